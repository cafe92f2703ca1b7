"""Something that takes a while, and how far it is; in words for a line, and in values for a file."""

from __future__ import annotations

import time
from typing import Any

from semdedup.compute.pace import Pace, rate_words, time_words


class Activity:
    """A step with units of work, or something else that a user waits for, which has none.

    Attributes:
        name: what it is called.
        total: units that there are; None: nobody knows, or there are none.
        unit: what they are called; nothing where there are none.
        is_announced: whether it is said at once, and not only when it has taken a while.
    """

    def __init__(self, name: str, total: int | None = None, unit: str = "", is_announced: bool = False) -> None:
        self.name, self.total, self.unit, self.is_announced = name, total, unit, is_announced
        self.started, self.ended = time.monotonic(), 0.0
        self._pace = Pace(self.started)

    @property
    def done(self) -> int:
        """Units that are done."""
        return self._pace.done

    def advance(self, n: int) -> None:
        """So many units more are done."""
        self._pace.note(time.monotonic(), self.done + n)

    def end(self) -> None:
        """It is over."""
        self.ended = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return (self.ended or time.monotonic()) - self.started

    def counts(self) -> str:
        """Units that are done, of how many: ``3/8 partitions``."""
        return f"{self.done:,}{'' if self.total is None else f'/{self.total:,}'} {self.unit}" if self.unit else ""

    def times(self) -> str:
        """How fast it goes and what is left; of what is over, how long it took and how fast it was."""
        if self.ended:
            took = f"in {self.seconds:.1f} s"
            return f"{took}, {rate_words(self.done / self.seconds)}" if self.done > 1 and self.seconds > 0 else took
        now = time.monotonic()
        rate, left = self._pace.rate(now), self._pace.seconds_left(now, self.total)
        parts = [time_words(self.seconds), "" if rate is None else rate_words(rate)]
        return ", ".join(filter(None, [*parts, "" if left is None else f"{time_words(left)} left"]))

    def words(self) -> str:
        """A line of it."""
        if not self.unit:
            return f"{self.name}, {self.times()}"
        return f"{self.name}: {self.counts()}{' ' if self.ended else ', '}{self.times()}"

    def facts(self) -> dict[str, Any]:
        """The same as JSON values; times are in seconds."""
        now = time.monotonic()
        rate, left = self._pace.rate(now), self._pace.seconds_left(now, self.total)
        return {
            "step": self.name,
            "done": self.done,
            "all": self.total,
            "unit": self.unit,
            "rate": None if rate is None else round(rate, 4),
            "seconds_left": None if left is None else round(left, 1),
        }
