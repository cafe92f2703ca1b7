"""What a call of the user is at: known in one place, shown in one display, however many parts it has."""

from __future__ import annotations

import contextlib
import contextvars
import threading
import time
from collections.abc import Iterator
from typing import Any

from semdedup.compute.activity import Activity
from semdedup.compute.displays import Display

SECONDS_BETWEEN_TICKS = 1.0

MOST_ENDED = 200
"""Steps that are over and are remembered."""


class Work:
    """What is being done, and what was done before.

    Attributes:
        display: where it is shown.
        part: which part of several it is at, where there are several.
        n_begun: steps that were put on record: before there is one, a run that is refused has written nothing.
        quarantined: rows, clips or videos that were set aside so far.
        ended: facts of the steps that are over, with their seconds.
        summary: names and values that sum up what came of it, once that is known.
    """

    def __init__(self, display: Display) -> None:
        self.display, self.part, self.n_begun, self.quarantined = display, "", 0, 0
        self.ended: list[dict[str, Any]] = []
        self.summary: list[tuple[str, str]] = []
        self.started = time.monotonic()
        self._active: list[Activity] = []
        self._last: Activity | None = None
        self._said = set[str]()
        self._lock = threading.RLock()
        self._n_holders, self._stop = 0, threading.Event()

    @property
    def activity(self) -> Activity | None:
        """What is being done; between two steps, the last one."""
        return self._active[-1] if self._active else self._last

    def say(self, line: str, is_part: bool = False) -> None:
        """Show one line; `is_part`: of the part that begins."""
        with self._lock:
            self._said.add(line)
            if is_part:
                self.part = line
                self.display.part(line)
            else:
                self.display.say(line)

    def has_said(self, line: str) -> bool:
        """Whether this line was shown before."""
        return line in self._said

    @contextlib.contextmanager
    def doing(self, activity: Activity, is_shown: bool = True) -> Iterator[None]:
        """While something is done."""
        display = self.display if is_shown else Display()
        with self._lock:
            self._active.append(activity)
            display.begin(activity)
        try:
            with self.ticking():
                yield
        finally:
            activity.end()
            with self._lock:
                if activity in self._active:
                    self._active.remove(activity)
                display.end(activity)
                if activity.unit:
                    self._last = activity
                    facts = {"step": activity.name, "done": activity.done, "unit": activity.unit}
                    self.ended = [*self.ended[1 - MOST_ENDED :], {**facts, "seconds": round(activity.seconds, 3)}]

    def advance(self, activity: Activity, n: int, is_shown: bool = True) -> None:
        """So many units more are done."""
        activity.advance(n)
        if is_shown:
            with self._lock:
                self.display.advance(activity)

    @contextlib.contextmanager
    def ticking(self) -> Iterator[None]:
        """While a thread tells the display every second that time goes on."""
        with self._lock:
            self._n_holders += 1
            if self._n_holders == 1:
                self._stop = stop = threading.Event()
                threading.Thread(target=self._tick, args=[stop], name="semdedup-progress", daemon=True).start()
        try:
            yield
        finally:
            with self._lock:
                self._n_holders -= 1
                if not self._n_holders:
                    self._stop.set()

    def _tick(self, stop: threading.Event) -> None:
        while not stop.wait(SECONDS_BETWEEN_TICKS):
            with self._lock:
                if not stop.is_set():
                    self.display.tick(self._active[-1] if self._active else None, time.monotonic() - self.started)

    @contextlib.contextmanager
    def leading(self) -> Iterator[None]:
        """While what is called within is a part of this: it is shown in the same place."""
        reset = _leading.set(self)
        words = "done"
        try:
            with self.ticking():
                yield
        except KeyboardInterrupt:
            words = "interrupted"
            raise
        except BaseException:
            words = "failed"
            raise
        finally:
            _leading.reset(reset)
            with self._lock:
                self._active.clear()
                self.display.close(f"{words} after {time.monotonic() - self.started:.1f} s")


_leading: contextvars.ContextVar[Work | None] = contextvars.ContextVar("semdedup_work", default=None)


def leading_work() -> Work | None:
    """What this is a part of; None where it is none."""
    return _leading.get()
