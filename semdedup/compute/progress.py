"""Progress of long work: a bar on a terminal, plain lines elsewhere, nothing where the user asked for silence."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

SECONDS_BETWEEN_LINES = 5.0

Advance = Callable[[int], None]
"""Called with how many units of a step are done."""


class Reporter:
    """Tells the user on stderr what is going on. Results go to stdout, so that a pipe gets nothing else.

    `seconds` has the time that each step took so far.
    """

    def __init__(self, verbose: bool = True) -> None:
        self.verbose = verbose
        self.seconds: dict[str, float] = {}
        self.forced_bytes, self.forced_seconds = 0, 0.0
        self.console = Console(file=sys.stderr, highlight=False, soft_wrap=True)

    def say(self, line: str) -> None:
        """Print one line."""
        if self.verbose:
            self.console.print(line, markup=False)

    def start_over(self) -> None:
        """Count the seconds of steps, and of forcing to disk, from nothing."""
        self.seconds.clear()
        self.forced_bytes, self.forced_seconds = 0, 0.0

    def forced(self, n_bytes: int, seconds: float) -> None:
        """Take note of how much was forced to disk, and how long that took: figures of speed are without it."""
        self.forced_bytes += n_bytes
        self.forced_seconds += seconds
        if n_bytes:
            self.say(f"forced to disk: {n_bytes:,} bytes in {seconds:.2f} s")

    @contextlib.contextmanager
    def step(self, name: str, total: int | None, unit: str) -> Iterator[Advance]:
        """Show one step with `total` units of work (None: unknown) until the block ends.

        >>> with reporter.step("assign", total=20, unit="partitions") as advance:
        ...     advance(1)
        """
        started = time.monotonic()
        try:
            with self._shown(name, total, unit) as advance:
                yield advance
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started

    @contextlib.contextmanager
    def _shown(self, name: str, total: int | None, unit: str) -> Iterator[Advance]:
        if not self.verbose:
            yield lambda n: None
        elif self.console.is_terminal:
            columns = (
                TextColumn("{task.description:<22}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn(unit),
                TimeElapsedColumn(),
            )
            with Progress(*columns, console=self.console) as bar:
                task = bar.add_task(name, total=total)
                yield lambda n: bar.advance(task, n)
        else:
            yield from self._lines(name, total, unit)

    def _lines(self, name: str, total: int | None, unit: str) -> Iterator[Advance]:
        started = last = time.monotonic()
        done = 0
        of_total = "" if total is None else f"/{total}"

        def advance(n: int) -> None:
            nonlocal done, last
            done += n
            now = time.monotonic()
            if now - last >= SECONDS_BETWEEN_LINES:
                last = now
                self.say(f"{name}: {done}{of_total} {unit}, {now - started:.0f} s")

        yield advance
        self.say(f"{name}: {done}{of_total} {unit} in {time.monotonic() - started:.1f} s")
