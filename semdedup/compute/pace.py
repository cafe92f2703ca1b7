"""How fast a step goes and how long the rest will take: arithmetic on counts and times, and the words for it."""

from __future__ import annotations

from collections import deque

LEAST_S = 30.0
"""A rate is that of so many of the last seconds, or more."""
LEAST_PART = 0.25
"""A rate is that of such a part of the time so far, or more: over hours it does not jump with every task."""
LEAST_UNITS = 16
"""A rate is that of so many units, or of all: few long tasks end in waves."""
SECONDS_BETWEEN_MARKS = 1.0


class Pace:
    """Units a second of late, and the seconds that the rest will take at that rate.

    >>> pace = Pace(0.0)
    >>> pace.note(10.0, 20)
    >>> pace.rate(20.0), pace.seconds_left(20.0, 50)
    (1.0, 30.0)
    """

    def __init__(self, started: float) -> None:
        self.done = 0
        self._started = started
        self._marks = deque([(started, 0)])

    def note(self, now: float, done: int) -> None:
        """Note how many units are done at a time."""
        self.done = done
        if now - self._marks[-1][0] >= SECONDS_BETWEEN_MARKS:
            self._marks.append((now, done))
        before = now - max(LEAST_S, LEAST_PART * (now - self._started))
        while len(self._marks) > 1 and self._marks[1][0] <= before and done - self._marks[1][1] >= LEAST_UNITS:
            self._marks.popleft()

    def rate(self, now: float) -> float | None:
        """Units a second; None while nothing is done."""
        since, before = self._marks[0]
        return (self.done - before) / (now - since) if now > since and self.done > before else None

    def seconds_left(self, now: float, total: int | None) -> float | None:
        """How long the rest takes; None while that cannot be told."""
        rate = self.rate(now)
        return None if rate is None or total is None else max(0, total - self.done) / rate


def rate_words(rate: float) -> str:
    """A rate as people read it; a slow one by the minute or by the hour.

    >>> rate_words(1234.5), rate_words(2.345), rate_words(0.05), rate_words(0.001)
    ('1,234/s', '2.3/s', '3.0/min', '3.6/h')
    """
    for per, seconds in (("s", 1), ("min", 60), ("h", 3600)):
        if rate * seconds >= 1 or per == "h":
            break
    number = rate * seconds
    return f"{number:,.0f}/{per}" if number >= 100 else f"{number:.1f}/{per}"


def time_words(seconds: float) -> str:
    """A span of time as people read it.

    >>> time_words(7.4), time_words(754), time_words(3675), time_words(200_000)
    ('0:07', '12:34', '1:01:15', '2 days 7:33:20')
    """
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    text = f"{hours}:{minutes:02d}:{rest:02d}" if hours or days else f"{minutes}:{rest:02d}"
    return f"{days} day{'s' * (days > 1)} {text}" if days else text
