"""Ctrl-C ends the program: at once where it can, within seconds whatever it is at. For the command line alone."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from typing import NoReturn

SECONDS_TO_END = 2.5
"""What a run that is interrupted has for its end: bars, workers, the file that says how far it is."""
EXIT_INTERRUPTED = 130
SENTENCE = "interrupted: run the same command again to go on"

_pressed = threading.Event()
_leaving = threading.Lock()


def was_pressed() -> bool:
    """Whether Ctrl-C was pressed."""
    return _pressed.is_set()


def end_at_ctrl_c() -> None:
    """From now on Ctrl-C raises `KeyboardInterrupt`, and `SECONDS_TO_END` later, or when it is pressed again, `leave`s.

    A thread hears of it from the signal itself: the main thread may be in a library that does not return.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # ignored, as in the background of a shell
        return
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    threading.Thread(target=_hear, args=[read], name="semdedup-ctrl-c", daemon=True).start()


def _hear(read: int) -> None:
    while signal.SIGINT not in os.read(read, 1):
        pass
    _pressed.set()
    select.select([read], [], [], SECONDS_TO_END)
    leave()


def leave(is_said: bool = False) -> NoReturn:
    """End this process and those that it started, now. What Python and Dask do at the end takes long."""
    _leaving.acquire()  # for good: who comes second says nothing more
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr.isatty():
            sys.stderr.write("\x1b[?25h")  # the cursor, which bars hide
        if not is_said:
            sys.stderr.write(f"{SENTENCE}\n")
        sys.stderr.flush()
        sys.stdout.flush()
    _end_children()
    os._exit(EXIT_INTERRUPTED)


def _end_children() -> None:
    """End what this process started: a child that still waits for its task would print a traceback at our end.

    All but the resource tracker of multiprocessing, which removes what the others leave behind.
    """
    # Neither is imported here: it takes time, and the main thread may be in the middle of it.
    psutil = sys.modules.get("psutil")
    if psutil is None or not hasattr(psutil, "Process"):
        return
    tracker = getattr(sys.modules.get("multiprocessing.resource_tracker"), "_resource_tracker", None)
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process().children(recursive=True):
            if child.pid != getattr(tracker, "_pid", None):
                with contextlib.suppress(psutil.Error):
                    child.kill()
