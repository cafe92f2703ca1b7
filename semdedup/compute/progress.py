"""Progress of long work: a bar on a terminal or in a notebook, plain lines elsewhere, nothing where that is wanted."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console

from semdedup.compute.activity import Activity
from semdedup.compute.displays import Display, display_of
from semdedup.compute.work import Work, leading_work

Advance = Callable[[int], None]
"""Called with how many units of a step are done."""


class Reporter:
    """Tells the user on stderr what is going on. Results go to stdout, so that a pipe gets nothing else.

    One that is made while another is at work (see `semdedup.runs.at_work`) tells it in the same place.

    Attributes:
        work: what is known of it.
        seconds: the time that each step took so far.
    """

    def __init__(self, verbose: bool = True) -> None:
        self.verbose = verbose
        self.seconds: dict[str, float] = {}
        self.forced_bytes, self.forced_seconds = 0, 0.0
        self.work = leading_work() or Work(_display() if verbose else Display())

    def say(self, line: str) -> None:
        """Print one line."""
        if self.verbose:
            self.work.say(line)

    def say_once(self, line: str) -> None:
        """Print one line, unless a part before has."""
        if not self.work.has_said(line):
            self.say(line)

    def part(self, words: str) -> None:
        """Say which part of several begins."""
        if self.verbose:
            self.work.say(words, is_part=True)
        else:
            self.work.part = words

    def begun(self, n: int = 1) -> None:
        """Take note that a step was put on record; -1 where that was taken back."""
        self.work.n_begun += n

    def quarantined(self, n: int) -> None:
        """Take note that so many rows, clips or videos more were set aside."""
        self.work.quarantined += n

    def summarize(self, rows: Sequence[tuple[str, str]]) -> None:
        """Take note of what came of it, by names and values: `semdedup status` tells it."""
        self.work.summary = list(rows)

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
        activity = Activity(name, total, unit)
        try:
            with self.work.doing(activity, self.verbose):
                yield lambda n: self.work.advance(activity, n, self.verbose)
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - activity.started

    @contextlib.contextmanager
    def doing(self, what: str, is_announced: bool = False) -> Iterator[None]:
        """Show that something is being done that has no units, until the block ends.

        Args:
            what: as in "connecting to ADDRESS".
            is_announced: say it at once where there is no terminal, and not only where it takes a while.
        """
        with self.work.doing(Activity(what, is_announced=is_announced), self.verbose):
            yield


def _display() -> Display:
    return display_of(Console(file=sys.stderr, highlight=False, soft_wrap=True))
