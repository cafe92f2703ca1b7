"""Tars whose bytes depend on nothing but names and contents, written in pieces."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterable
from typing import BinaryIO

BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)
LARGEST_PLAIN = 8 << 30
"""Bytes from which on a member has a header of three blocks, for its size has no room in one."""


def header(name: str, n_bytes: int) -> bytes:
    """The header of a member: mode 0644, no owner, no time; ustar, with a pax record where the size needs one."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = n_bytes, 0o644
    return info.tobuf(tarfile.PAX_FORMAT, "ascii", "strict")


def member_bytes(n_bytes: int) -> int:
    """Bytes that a member of this size takes in a tar, with its header and padding."""
    return (BLOCK if n_bytes < LARGEST_PLAIN else 3 * BLOCK) + n_bytes + -n_bytes % BLOCK


class TarWriter:
    """Writes a tar to an open file, and hashes it on the way. Memory: one piece.

    Attributes:
        n_bytes: bytes written so far.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.n_bytes, self._hash = file, 0, hashlib.sha256()

    def add(self, name: str, n_bytes: int, pieces: Iterable[bytes]) -> int:
        """Write a member; return the offset in the tar at which its content begins.

        Raises:
            ValueError: the pieces are not of `n_bytes` together.
        """
        self._write(header(name, n_bytes))
        offset = self.n_bytes
        for piece in pieces:
            self._write(piece)
        if self.n_bytes - offset != n_bytes:
            raise ValueError(f"{name} should have {n_bytes} bytes, but had {self.n_bytes - offset}")
        self._write(bytes(-n_bytes % BLOCK))
        return offset

    def finish(self) -> str:
        """Write the end of the tar; return the SHA-256 of the whole."""
        self._write(END)
        return self._hash.hexdigest()

    def _write(self, content: bytes) -> None:
        self.file.write(content)
        self._hash.update(content)
        self.n_bytes += len(content)
