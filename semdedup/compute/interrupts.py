"""Waiting that Ctrl-C can end: what a library does not let go of is left to a thread of its own."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from typing import TypeVar

Made = TypeVar("Made")


@contextlib.contextmanager
def without_ctrl_c() -> Iterator[None]:
    """While threads and processes that this thread starts do not get Ctrl-C, now or later: they are ended by others.

    A terminal sends it to every process. One that is still importing Python would answer with a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    with contextlib.suppress(OSError):
        _start_resource_tracker()  # which unblocks signals in the thread that starts it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_resource_tracker() -> None:
    """Start the process of multiprocessing that removes what others leave; it does not say what that was.

    A run that is interrupted leaves some, and its warning would be the last that a user reads.
    """
    sys.warnoptions.append("ignore::UserWarning:multiprocessing.resource_tracker")  # handed on to the child
    try:
        resource_tracker.ensure_running()
    finally:
        sys.warnoptions.pop()


def interruptible(make: Callable[[], Made], undo: Callable[[Made], object]) -> Made:
    """What a function gives that is called in a thread: Ctrl-C ends the wait for it at once.

    What it gives later is undone in that thread; what it raises then is nobody's concern.
    """
    made: list[Made] = []
    raised: list[BaseException] = []
    lock, is_left = threading.Lock(), threading.Event()

    def call() -> None:
        try:
            with without_ctrl_c():
                found = make()
        except BaseException as error:  # raised again by the thread that waits
            raised.append(error)
            return
        with lock:
            if not is_left.is_set():
                made.append(found)
                return
        with contextlib.suppress(Exception):
            undo(found)

    thread = threading.Thread(target=call, name="semdedup-start", daemon=True)
    try:
        thread.start()
        thread.join()
    except BaseException:
        with lock:
            is_left.set()
        if made:
            within(0.0, lambda: undo(made[0]))
        raise
    if raised:
        raise raised[0]
    return made[0]


def within(seconds: float, call: Callable[[], object]) -> bool:
    """Call a function, and wait for its end for so long at most; it goes on after that. Whether it has ended.

    What it raises is passed over: it is for what is done while something else has failed.
    """

    def quietly() -> None:
        with contextlib.suppress(Exception):
            call()

    thread = threading.Thread(target=quietly, name="semdedup-end", daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()
