"""What records say of very many files, in 32 bytes each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from semdedup.storage.digests import digest, digests
from semdedup.storage.file_list import FileInfo
from semdedup.storage.written import Written

CHECKSUM = re.compile("[0-9a-f]{32}")


class WrittenFiles:
    """Checksums of files, found by URL and size: what is asked for is only whether a file is as it was written.

    Args:
        files: URLs, with size and checksum.
    """

    def __init__(self, files: Iterable[tuple[str, Written]]) -> None:
        found = bytearray()
        self._others: dict[str, Written] = {}  # with checksums that are none of ours
        for url, written in files:
            if CHECKSUM.fullmatch(written.checksum):
                found += digest(_name(url, written.n_bytes)) + bytes.fromhex(written.checksum)
            else:
                self._others[url] = written
        self._entries = np.frombuffer(found, dtype="S32")
        self._entries.sort()
        self._bytes = self._entries.view(np.uint8).reshape(-1, 2, 16)

    def stamps(self, files: Sequence[FileInfo]) -> list[str]:
        """For each file the checksum that it was written with, if it is known in this size; else its own stamp."""
        others = (self._others.get(file.url) if self._others else None for file in files)
        stamps = [
            file.stamp if other is None or other.n_bytes != file.n_bytes else other.checksum
            for file, other in zip(files, others, strict=True)
        ]
        if not len(self._entries):
            return stamps
        keys = digests(_name(file.url, file.n_bytes) for file in files)
        places = np.minimum(np.searchsorted(self._entries, keys.astype("S32")), len(self._entries) - 1)
        same = (self._bytes[places, 0] == keys.view(np.uint8).reshape(-1, 16)).all(axis=1)
        for i in np.flatnonzero(same).tolist():
            stamps[i] = self._bytes[places[i], 1].tobytes().hex()
        return stamps


def _name(url: str, n_bytes: int) -> str:
    return f"{url}\0{n_bytes}"
