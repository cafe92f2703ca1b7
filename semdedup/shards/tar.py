"""Tars whose bytes depend on nothing but names and contents, written in pieces."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterable
from typing import BinaryIO

BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)
SIZE, CHECKSUM = slice(124, 136), slice(148, 156)
"""Bytes of these fields in a header."""

LONGEST_PLAIN = 99
LARGEST_PLAIN = 8 << 30
"""Bytes from which on a member has a header of three blocks, because its size does not fit into one."""


def header(name: str, n_bytes: int) -> bytes:
    """The header of a member: mode 0644, no owner, no time; ustar, with a pax record where the size needs one.

    What the standard library makes for it, in an eighth of the time where a plain header will do: for small clips, it
    would take more than half of all time.
    """
    if len(name) > LONGEST_PLAIN or n_bytes >= LARGEST_PLAIN:
        return _slow_header(name, n_bytes)
    block = bytearray(_BLANK)
    block[: len(name)] = name.encode("ascii")
    block[SIZE] = b"%011o\0" % n_bytes
    block[CHECKSUM] = b"        "
    block[CHECKSUM] = b"%06o\0 " % sum(block)
    return bytes(block)


def _slow_header(name: str, n_bytes: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = n_bytes, 0o644
    return info.tobuf(tarfile.PAX_FORMAT, "ascii", "strict")


_BLANK = _slow_header("", 0)


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
