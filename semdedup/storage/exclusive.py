"""Files that exist once: created only if absent, renewed only by their creator, taken away only as they were seen."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import time
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import quote

from semdedup.errors import StorageError
from semdedup.storage.location import Location
from semdedup.storage.stores import AZURE, GCS, S3, Store, store_of

SECONDS_TO_TAKE_AWAY = 60.0
"""A mark of somebody who is taking a file away, and was killed at it, counts for no longer."""


ATTEMPTS = 10

HTTP_PRECONDITION_FAILED = 412


class Claim:
    """A file that this process created."""

    def __init__(self, place: Location, descriptor: int | None, tag: str | None) -> None:
        self._place, self._descriptor, self._tag = place, descriptor, tag

    def renew(self, content: bytes) -> bool:
        """Replace the content by one of the same length; False where the file is not the one that was created.

        A local file is written through the descriptor that it was created with, so that a file of somebody else under
        the same name is never touched. An object is replaced only if its tag is still the one that was written.
        """
        if self._descriptor is not None:
            with self._place.errors("write"):
                if os.fstat(self._descriptor).st_nlink == 0:
                    return False
                os.pwrite(self._descriptor, content, 0)
            return True
        try:
            self._tag = _put(self._place, content, replaces=self._tag)
        except FileExistsError:
            return False
        return True

    def close(self) -> None:
        """Let go of the file; it stays."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None


def claim(place: Location, content: bytes) -> Claim | None:
    """Create a file with this content, forced to disk, only if it is absent; None where it is there."""
    if not place.is_local:
        place.check_writable()
        try:
            return Claim(place, None, _put(place, content, new=True))
        except FileExistsError:
            return None
    with place.errors("write"):
        for _ in range(ATTEMPTS):
            with contextlib.suppress(FileNotFoundError):  # another run takes away temporary files, or the folder
                return _claim_local(place, content)
        return _claim_local(place, content)


def _claim_local(place: Location, content: bytes) -> Claim | None:
    os.makedirs(os.path.dirname(place.url), exist_ok=True)
    temporary = Path(os.path.dirname(place.url), f"_{uuid.uuid4().hex}.tmp")
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        os.pwrite(descriptor, content, 0)
        os.fsync(descriptor)
        os.link(temporary, place.url)
    except FileExistsError:
        os.close(descriptor)
        return None
    except OSError as error:
        os.close(descriptor)
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        return _create_without_links(place, content)
    finally:
        temporary.unlink(missing_ok=True)
    return Claim(place, descriptor, None)


def _create_without_links(place: Location, content: bytes) -> Claim | None:
    """For file systems without hard links: a reader may see the file empty for a moment."""
    try:
        descriptor = os.open(place.url, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return None
    os.pwrite(descriptor, content, 0)
    os.fsync(descriptor)
    return Claim(place, descriptor, None)


def remove_claim(place: Location, content: bytes) -> bool:
    """Take away a file of somebody who is dead, if it still has the content that was seen; False where it has not.

    Of several that try this at once one succeeds: a second file, created only if absent, keeps the others away.
    """
    mark = place.parent / f"_{hashlib.sha256(content).hexdigest()[:32]}.tmp"
    mine = claim(mark, str(time.time()).encode())
    if mine is None:
        if _is_old(mark):
            mark.remove()
        time.sleep(0.2)
        return False
    try:
        if not place.exists() or place.read_bytes() != content:
            return False
        place.remove()
        return True
    finally:
        mine.close()
        mark.remove()


def _is_old(mark: Location) -> bool:
    """Whether the time in a mark is that of somebody who was killed since."""
    with contextlib.suppress(StorageError, ValueError):  # it has gone meanwhile, or is being written
        return time.time() - float(mark.read_bytes()) > SECONDS_TO_TAKE_AWAY
    return False


def _put(place: Location, content: bytes, new: bool = False, replaces: str | None = None) -> str | None:
    """Write an object; its tag, where the store gives one. S3, GCS and Azure check the condition as they write.

    Args:
        place: where to.
        content: what.
        new: only if there is none.
        replaces: only if the object there has this tag.

    Raises:
        FileExistsError: the condition is not met.
    """
    store = store_of(place.url)
    try:
        with place.errors("write"):
            if new and store is None and place.fs.exists(place.url):  # of other stores nothing is known
                raise FileExistsError(errno.EEXIST, "it exists", place.url)
            if store is GCS and replaces:
                return _replace_on_gcs(place, content, replaces)
            condition = {"mode": "create"} if new and store is not None else _condition(store, replaces)
            answer = place.fs.pipe_file(place.url, content, **condition)
    except Exception as error:
        cause = error.__cause__
        if isinstance(cause, FileExistsError) or getattr(cause, "errno", None) == errno.EINVAL:
            raise FileExistsError(place.url) from error
        if getattr(cause, "status_code", None) == HTTP_PRECONDITION_FAILED:  # of Azure
            raise FileExistsError(place.url) from error
        raise
    if not isinstance(answer, dict):
        return None
    tag = answer.get("ETag") or answer.get("generation") or answer.get("etag")
    return None if tag is None else str(tag)


def _condition(store: Store | None, tag: str | None) -> dict[str, Any]:
    """The arguments of `pipe_file` by which an object is replaced only if it has a tag."""
    if tag is None or store is None:
        return {}
    if store is AZURE:
        from azure.core import MatchConditions

        return {"etag": tag, "match_condition": MatchConditions.IfNotModified}
    return {"IfMatch": tag} if store is S3 else {}


def _replace_on_gcs(place: Location, content: bytes, generation: str) -> str:
    """Replace an object of this generation; the new one. `pipe_file` of gcsfs can only ask that there is none."""
    bucket, key, _ = place.fs.split_path(place.url)
    upload = f"{place.fs._location}/upload/storage/v1/b/{quote(bucket, safe='')}/o"
    line = uuid.uuid4().hex
    about = f"--{line}\nContent-Type: application/json; charset=UTF-8\n\n{json.dumps({'name': key})}\n"
    body = f"{about}--{line}\nContent-Type: application/octet-stream\n\n".encode() + content + f"\n--{line}--".encode()
    headers = {"Content-Type": f'multipart/related; boundary="{line}"'}
    options = {"uploadType": "multipart", "ifGenerationMatch": generation}
    return str(place.fs.call("POST", upload, headers=headers, data=body, json_out=True, **options)["generation"])
