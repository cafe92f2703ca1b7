"""How results are shown: as a short table in a terminal and in a notebook."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from html import escape
from io import StringIO

from rich.console import Console
from rich.table import Table


def one_line(text: str) -> str:
    """Untrusted text, such as a file name, for a terminal: control characters and newlines are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Displayable(ABC):
    """A result that consists of named values."""

    @abstractmethod
    def rows(self) -> list[tuple[str, str]]:
        """Name and value of each line of the table."""

    def table(self) -> Table:
        """The result as a table for a terminal."""
        table = Table(title="semdedup", title_justify="left", show_header=False)
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        for name, value in self.rows():
            table.add_row(name, value)
        return table

    def __str__(self) -> str:
        text = StringIO()
        console = Console(file=text, width=100, color_system=None, force_jupyter=False, markup=False, emoji=False)
        console.print(self.table())
        return text.getvalue().rstrip()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in self.rows())
        return f'<table class="semdedup"><caption>semdedup</caption>{cells}</table>'


def format_counts(counts: Mapping[str, int]) -> str:
    """Counts by reason, in words."""
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(counts.items()))
