"""Bytes in and out in pieces, so that memory is bounded whatever the size of a clip, a shard or a table."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from semdedup.errors import InputError
from semdedup.storage.chunks import ahead
from semdedup.storage.location import Location
from semdedup.storage.s3 import part_bytes
from semdedup.storage.written import NotedStream

LOCAL_PIECE, REMOTE_PIECE = 1 << 20, 8 << 20
"""Bytes of a clip that are read at a time."""

PIECES_AHEAD = 8
"""Pieces of remote clips that are being read while others are written: a request takes longer than its bytes."""

REQUESTS_AHEAD = 32
"""Small remote files that are being read at a time."""


def read_small(files: Iterable[Location | None], is_local: bool) -> Iterator[bytes | None]:
    """Contents of small files in order; None stays None. Remote ones are read many at a time."""

    def read(file: Location | None) -> bytes | None:
        return None if file is None else file.read_bytes()

    return map(read, files) if is_local else ahead(read, files, REQUESTS_AHEAD)


def read_clips(root: Location, clips: Iterable[tuple[str, int]]) -> Iterator[Iterator[bytes]]:
    """Contents of clips, given by path and size, each in pieces. One has to be taken before the next.

    Memory: one piece; of remote clips `PIECES_AHEAD` + 1 pieces.

    Raises:
        InputError: a clip is not as long as it was when it was listed.
    """
    if root.is_local:
        return (_local_pieces(root / path, n_bytes) for path, n_bytes in clips)
    return _remote_clips(root, clips)


def _local_pieces(clip: Location, n_bytes: int) -> Iterator[bytes]:
    left = n_bytes
    with clip.errors("read"), open(clip.url, "rb", buffering=0) as file:
        while piece := file.read(LOCAL_PIECE):
            left -= len(piece)
            if left < 0:
                break
            yield piece
    if left:
        raise _changed(clip)


def _remote_clips(root: Location, clips: Iterable[tuple[str, int]]) -> Iterator[Iterator[bytes]]:
    counted, requested = itertools.tee(clips)
    requests = (
        (root / path, start, n_bytes) for path, n_bytes in requested for start in range(0, n_bytes, REMOTE_PIECE)
    )
    pieces = ahead(_remote_piece, requests, PIECES_AHEAD)
    try:
        for _, n_bytes in counted:
            yield itertools.islice(pieces, -(-n_bytes // REMOTE_PIECE))
    finally:
        pieces.close()  # type: ignore[attr-defined]


def _remote_piece(request: tuple[Location, int, int]) -> bytes:
    clip, start, n_bytes = request
    stop = min(start + REMOTE_PIECE, n_bytes)
    piece = clip.read_bytes(start, stop + (stop == n_bytes))  # one byte more shows that the clip has grown
    if len(piece) != stop - start:
        raise _changed(clip)
    return piece


def _changed(clip: Location) -> InputError:
    return InputError(
        f"the clip {clip} is not as long as it was when it was listed: it changed during the run. Run again with "
        "clear_output=True (--overwrite) when it stays as it is."
    )


@contextlib.contextmanager
def writing_stream(location: Location, n_bytes: int) -> Iterator[BinaryIO]:
    """Give an open file of about `n_bytes` to write to; it becomes `location` unless the block raises.

    An object is uploaded while it is written, and needs no room on a local disk. Memory: `part_bytes` twice. What a
    process that is killed has uploaded of it is given up by the next run in the folder: `Record.remove_strays`.
    """
    if location.is_local:
        with location.writing() as path, open(path, "wb", buffering=LOCAL_PIECE) as local:
            yield local
        return
    with location.errors("write"):
        file: Any = location.fs.open(location.url, "wb", block_size=part_bytes(n_bytes))
        stream: Any = NotedStream(file)
        try:
            yield stream
        except BaseException:
            file.discard()
            file.closed = True  # or it would be committed when it is collected
            raise
        file.close()
        stream.note(location.url)
