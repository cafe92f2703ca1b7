"""A run at work in a folder: it owns the folder, and ``_progress.json`` there says how far it is, for whoever asks.

The file is written whole, every `SECONDS_BETWEEN` at most, and once more at the end. A run that has put nothing on
record writes none. Cost: a request every five seconds to a store, in a thread of its own.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from semdedup.compute.activity import Activity
from semdedup.compute.cluster import end_where_imported
from semdedup.compute.progress import Reporter
from semdedup.compute.work import Work, leading_work
from semdedup.errors import SemdedupError, StorageError
from semdedup.runs.owner import Ownership, owned
from semdedup.storage.location import Location

PROGRESS = "_progress.json"
SECONDS_BETWEEN = 5.0
SECONDS_TO_STOP = 1.5
"""How long a run that was interrupted waits until that is written."""
SECONDS_TO_END = 60.0
"""How long another run waits for that: its store may be slow."""

RUNNING, DONE, FAILED, STOPPED = "running", "done", "failed", "stopped"
"""The states of a run."""


@contextlib.contextmanager
def at_work(root: Location, reporter: Reporter, *, take_over: bool = False) -> Iterator[Ownership]:
    """Own a folder for the time of the block, and say in it how far the work is, as `owned` does the first.

    What is called within and is at work elsewhere, as the parts of a run are, is a part of this work: it is shown and
    told here. A folder that is given inside it is owned, and no more.

    Raises:
        OutputConflictError: another run is at work there.
    """
    end_where_imported()  # or the worker would find the folder owned by its script
    with owned(root, take_over=take_over, say=reporter.say) as ownership:
        if leading_work() is not None:
            yield ownership
            return
        with _told(root, ownership, reporter.work), reporter.work.leading():
            yield ownership


@contextlib.contextmanager
def _told(root: Location, ownership: Ownership, work: Work) -> Iterator[None]:
    file, patience = _ProgressFile(root, ownership, work), SECONDS_TO_END
    state, why = FAILED, None
    try:
        yield
        state = DONE
    except KeyboardInterrupt:
        state, why, patience = STOPPED, "it was interrupted", SECONDS_TO_STOP
        raise
    except SemdedupError as error:
        why = str(error)
        raise
    except BaseException as error:
        why = f"an unexpected {type(error).__name__}; its traceback stands where the run was started"
        raise
    finally:
        file.close(state, why, patience)


class _ProgressFile:
    """The file, written by a thread until it is closed."""

    def __init__(self, root: Location, ownership: Ownership, work: Work) -> None:
        self._place, self._ownership, self._work = root / PROGRESS, ownership, work
        self._started, self._is_written = time.time(), False
        self._end: tuple[str, str | None] | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="semdedup-progress-file", daemon=True)
        self._thread.start()

    def close(self, state: str, why: str | None, patience: float) -> None:
        """Write how it ended, and wait for that so long."""
        self._end = state, why
        self._ended.set()
        self._thread.join(patience)

    def _go_on(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN):
            if self._work.n_begun:
                self._write(RUNNING, None)
        if self._end is None:
            return
        if self._work.n_begun:
            self._write(*self._end)
        elif self._is_written:  # it was refused after that, and took back what it had written
            with contextlib.suppress(StorageError):
                self._place.remove()

    def _write(self, state: str, why: str | None) -> None:
        if self._ownership.is_lost:
            return
        content = facts_of(self._work, state, why)
        content |= {"owner": None if state == DONE else asdict(self._ownership.owner), "started": self._started}
        with contextlib.suppress(StorageError):  # the run itself will tell of the storage
            self._place.write_bytes(json.dumps({**content, "updated": time.time()}, indent=1).encode())
            self._is_written = True


def facts_of(work: Work, state: str, why: str | None) -> dict[str, Any]:
    """What the file says of a run, as JSON values."""
    activity = work.activity
    return {
        "state": state,
        "error": why,
        "part": work.part,
        **(Activity("start") if activity is None else activity).facts(),
        "quarantined": work.quarantined,
        "steps": work.ended,
        "summary": work.summary,
    }
