"""Temporary folders of this machine, in which workers elsewhere cannot write."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator
from typing import Any

from semdedup.errors import ClusterError
from semdedup.storage.location import Location


class TemporaryFolder:
    """A temporary folder that is deleted when nobody holds this object any more, and at the end of the process."""

    def __init__(self, prefix: str) -> None:
        self.path = tempfile.mkdtemp(prefix=prefix)
        self.remove = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def go(self) -> None:
        """Delete it in a thread of its own, which nobody waits for: that takes a while, a file at a time."""
        threading.Thread(target=self.remove, name="semdedup-remove").start()

    def stay_for(self, frame: Any) -> None:
        """Stay as long as a Dask DataFrame, or one that is made of it, is held.

        That is as long as its expression, which those of the others hold. What is sent to workers does not count: a
        scheduler keeps its last messages for a while.
        """
        self.remove.detach()
        weakref.finalize(frame.expr, shutil.rmtree, self.path, ignore_errors=True)


@contextlib.contextmanager
def seen_by_all(temporary: Location, is_temporary: bool, instead: str) -> Iterator[None]:
    """While workers are asked whether they see a folder: where it is a temporary one, say what to give `instead`."""
    try:
        yield
    except ClusterError as error:
        if not is_temporary or str(temporary) not in str(error):
            raise
        raise ClusterError(
            f"{error}\nThe temporary folder {temporary} is of this machine alone: give {instead}, a folder that every "
            "worker sees."
        ) from error
