"""Digests in place of texts where millions are compared: 16 bytes each, the same where the texts are."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import xxhash

AT_A_TIME = 1 << 16
"""Digests that are looked up at a time."""


def digest(text: str | bytes) -> bytes:
    """XXH3 of 128 bits; text and its UTF-8 have the same."""
    return xxhash.xxh3_128_digest(text.encode(errors="surrogatepass") if isinstance(text, str) else text)


def digests(texts: Iterable[str | bytes]) -> np.ndarray:
    """The `digest` of each, (n,) S16."""
    found = bytearray()
    for text in texts:
        found += digest(text)
    return as_digests(found)


def as_digests(found: bytearray) -> np.ndarray:
    """Digests that stand one behind the other, (n,) S16; a view, while which there is nothing may be added."""
    return np.frombuffer(found, dtype="S16")


def are_among(found: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    """Which digests are among others, (n,) bool; the others in ascending order. Time: O(n log m)."""
    among = np.zeros(len(found), dtype=bool)
    for start in range(0, len(found) if len(ascending) else 0, AT_A_TIME):
        some = found[start : start + AT_A_TIME]
        places = np.minimum(np.searchsorted(ascending, some), len(ascending) - 1)
        among[start : start + AT_A_TIME] = ascending[places] == some
    return among


def repeated(found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of digests that stand there before, and where they do first, (m,) int64 each. Time: O(n log n)."""
    halves = np.sort(found.view(np.uint64)[::2])
    if not (halves[1:] == halves[:-1]).any():
        return np.empty(0, np.int64), np.empty(0, np.int64)
    order = np.argsort(found, kind="stable")
    ascending = found[order]
    begins = np.ones(len(order), dtype=bool)
    begins[1:] = ascending[1:] != ascending[:-1]
    first = order[np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))]
    later = np.flatnonzero(~begins)
    return order[later], first[later]
