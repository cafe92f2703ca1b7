"""How results are shown: as a short table in a terminal and in a notebook."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import datetime
from html import escape
from io import StringIO
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table


def one_line(text: str) -> str:
    """Untrusted text, such as a file name, for a terminal: control characters and newlines are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def is_plain(value: Any) -> bool:
    """Whether a value is one of JSON, or consists of such: numbers and times of libraries, too."""
    if isinstance(value, Mapping):
        return all(is_plain(each) for each in value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(is_plain, value))
    return value is None or isinstance(value, (str, int, float, np.generic, datetime))


def plain(value: Any) -> Any:
    """A value as JSON has it: no NaN, no number of a library; what JSON does not know as text.

    >>> plain({"a": (1, float("nan")), 2: None})
    {'a': [1, None], '2': None}
    """
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int)) else str(value)


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

    def to_json(self) -> dict[str, Any]:
        """Everything that there is to tell, as JSON values: what it holds, but for what is no plain value."""
        found: dict[str, Any] = (
            {one.name: getattr(self, one.name) for one in fields(self)} if is_dataclass(self) else {}
        )
        return {name: plain(value) for name, value in found.items() if is_plain(value)}

    def __str__(self) -> str:
        text = StringIO()
        console = Console(file=text, width=100, color_system=None, force_jupyter=False, markup=False, emoji=False)
        console.print(self.table())
        return text.getvalue().rstrip()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in self.rows())
        return f'<table class="semdedup"><caption>semdedup</caption>{cells}</table>'


@dataclass(frozen=True, repr=False, kw_only=True)
class OfInput(Displayable):
    """A result that was made of files.

    Attributes:
        passed_over: files of the input that were not read: of each reason, how many there are of each ending.
    """

    passed_over: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def lines_of_input(self) -> list[tuple[str, str]]:
        """Name and value of what was passed over, where something was."""
        return [(PASSED_OVER, format_passed_over(self.passed_over))] if self.passed_over else []


def clock(seconds: float) -> str:
    """Seconds as people read them.

    >>> clock(7.5), clock(59.96), clock(754.3), clock(3675.25)
    ('0:07.5', '1:00.0', '12:34.3', '1:01:15.2')
    """
    tenths = round(10 * seconds)
    minutes, rest = divmod(abs(tenths), 600)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{'-' * (tenths < 0)}{text}:{rest // 10:02d}.{rest % 10}"


def format_counts(counts: Mapping[str, int]) -> str:
    """Counts by reason, in words."""
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(counts.items()))


PASSED_OVER = "passed over"
"""What files are called that were not read."""

MOST_ENDINGS = 6
"""Endings that a line names; of what has others the number is told."""


def format_passed_over(passed_over: Mapping[str, Mapping[str, int]]) -> str:
    """Files that were passed over, in words; of each reason, how many there are of each ending.

    >>> format_passed_over({"that are no videos": {".txt": 2, "": 1}})
    '3 files that are no videos: 2 .txt, 1 without an ending'
    """
    return "; ".join(
        f"{sum(endings.values()):,} files {reason}: {_by_ending(endings)}" for reason, endings in passed_over.items()
    )


def _by_ending(endings: Mapping[str, int]) -> str:
    ranked = sorted(endings.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{count:,} {one_line(ending) or 'without an ending'}" for ending, count in ranked[:MOST_ENDINGS]]
    others = sum(count for _, count in ranked[MOST_ENDINGS:])
    return ", ".join([*shown, *([f"{others:,} others"] if others else [])])
