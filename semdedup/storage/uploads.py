"""Uploads in parts that killed processes have left: they are given up, for the store bills what nobody sees."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from semdedup.errors import StorageError
from semdedup.storage.faults import repeated
from semdedup.storage.location import Location
from semdedup.storage.s3 import abort_upload, unfinished_uploads
from semdedup.storage.stores import S3, store_of


def abort_uploads(folder: Location, is_ours: Callable[[str], bool]) -> None:
    """Give up uploads in parts, of objects below a folder, that a process left when it was killed.

    S3 keeps the parts, bills them, and shows them in no listing of objects; other stores drop such by themselves within
    a week or two. Where the credentials do not allow to list or to end uploads, or the store does not know of that,
    they stay until a rule of the bucket ends them. Cost: a request, and one for each that is given up.

    Args:
        folder: local or in a store.
        is_ours: whether an object, given by its path below the folder, is one that nobody else can be uploading.
    """
    if store_of(folder.url) is not S3:
        return
    start = len(folder.url.rstrip("/")) + 1
    with contextlib.suppress(StorageError):
        for url, upload_id in _unfinished(folder):
            if is_ours(url[start:]):
                _abort(folder.at(url), upload_id)


@repeated
def _unfinished(folder: Location) -> list[tuple[str, str]]:
    with folder.errors("list uploads to"):
        return unfinished_uploads(folder.fs, folder.url)


@repeated
def _abort(place: Location, upload_id: str) -> None:
    with place.errors("end an upload to"), contextlib.suppress(FileNotFoundError):  # it has ended meanwhile
        abort_upload(place.fs, place.url, upload_id)
