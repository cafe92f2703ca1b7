"""Temporary folders of this machine, in which workers elsewhere cannot write."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterable, Iterator

from semdedup.errors import ClusterError
from semdedup.storage.location import Location
from semdedup.storage.temporary import temporary_prefix


class TemporaryFolder:
    """A temporary folder that is deleted when nobody holds this object any more, and at the end of the process."""

    def __init__(self, what: str) -> None:
        self.path = tempfile.mkdtemp(prefix=temporary_prefix(what))
        self.remove = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def go(self) -> None:
        """Delete it in a thread of its own, which nobody waits for: that takes a while, a file at a time."""
        threading.Thread(target=self.remove, name="semdedup-remove").start()

    def stay_with(self, files: Iterable[str]) -> None:
        """Keep these files to the end of the process, and delete all else, in a thread of its own.

        A lazy frame needs its files whenever a worker comes to compute it, and nothing here tells when that is: it may
        be persisted, sent to a scheduler or pickled, and be held by nobody here.
        """
        kept = set(files)
        self.remove.detach()
        atexit.register(shutil.rmtree, self.path, ignore_errors=True)

        def delete_others() -> None:
            for folder, _, names in os.walk(self.path):
                for path in (os.path.join(folder, name) for name in names):
                    if path not in kept:
                        with contextlib.suppress(OSError):
                            os.unlink(path)

        threading.Thread(target=delete_others, name="semdedup-remove").start()


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
