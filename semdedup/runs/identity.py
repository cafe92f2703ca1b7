"""What identifies the files of an input or of a step, and where one folder is as seen from another."""

from __future__ import annotations

import heapq
import itertools
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import xxhash

from semdedup.runs.written_files import WrittenFiles
from semdedup.storage.file_list import FileInfo, FileList
from semdedup.storage.location import Location
from semdedup.storage.written import Written

LINES_AT_A_TIME = 1 << 12


def fingerprint(files: Iterable[FileInfo], known: Mapping[str, Written] | None = None) -> dict[str, Any]:
    """What identifies an input: how many files and bytes, and a digest over every file.

    A file that a record of ours names is known by its checksum, wherever it is and whenever it was copied; any other by
    its size and stamp. Names are relative to the folder that holds all of them.

    Memory: another `FileList` where the files are not in the order of their URLs.

    Args:
        files: as listed.
        known: what records say of them, by URL.
    """
    return fingerprint_of([FileList.of(files)], known)


def fingerprint_of(
    lists: Iterable[FileList], known: Mapping[str, Written] | WrittenFiles | None = None
) -> dict[str, Any]:
    """`fingerprint` of the files of several lists, which are not put together."""
    ordered = [files.ordered() for files in lists if files]
    start = len(common_folder([files[end].url for files in ordered for end in (0, -1)]))
    written = known if isinstance(known, WrittenFiles) else WrittenFiles((known or {}).items())
    digest = xxhash.xxh3_128()
    n_files = n_bytes = 0
    every = in_order(ordered)
    while some := list(itertools.islice(every, LINES_AT_A_TIME)):
        pairs = zip(some, written.stamps(some), strict=True)
        lines = "".join(f"{file.url[start:]}\0{file.n_bytes}\0{stamp}\n" for file, stamp in pairs)
        digest.update(lines.encode(errors="surrogateescape"))
        n_files, n_bytes = n_files + len(some), n_bytes + sum(file.n_bytes for file in some)
    return {"files": n_files, "bytes": n_bytes, "digest": digest.hexdigest()}


def in_order(lists: Sequence[FileList]) -> Iterator[FileInfo]:
    """The files of lists that are each in the order of their URLs, in that order."""
    ranges = sorted((files[0].url, files[-1].url, i) for i, files in enumerate(lists))
    if all(last < first for (_, last, _), (first, _, _) in pairwise(ranges)):
        return itertools.chain.from_iterable(lists[i] for _, _, i in ranges)
    return heapq.merge(*lists, key=lambda file: file.url)


def input_words(identity: Mapping[str, Any]) -> str:
    """How much an input is, for messages."""
    if "rows" in identity:
        return f"a frame of {identity['rows']:,} rows and {identity['bytes']:,} bytes"
    return f"{identity['files']:,} files of {identity['bytes']:,} bytes"


def common_folder(urls: Sequence[str]) -> str:
    """URL of the folder that holds all of these, with its last slash; nothing where there are none."""
    if not urls:
        return ""
    first, last = min(urls), max(urls)
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[: first.rfind("/", 0, same) + 1]


def commit_of(files: Mapping[str, Written]) -> str:
    """What identifies the files of a step, wherever they are."""
    digest = xxhash.xxh3_128()
    for name, (n_bytes, checksum) in sorted(files.items()):
        digest.update(f"{name}\0{n_bytes}\0{checksum}\n".encode())
    return digest.hexdigest()


def relative_path(place: Location, root: Location) -> str:
    """The path of a place seen from a folder, true where both are moved together; in another store its URL."""
    here, there = _store_and_path(root), _store_and_path(place)
    if here[0] == there[0]:
        return posixpath.relpath(there[1], here[1])
    return f"file://{place.url}" if place.is_local else place.url


def resolve_path(path: str, root: Location) -> Location:
    """The reverse of `relative_path`."""
    if "://" in path:
        return Location.of(path, root.options)
    store, base = _store_and_path(root)
    return root.at(store + posixpath.normpath(posixpath.join(base, path)))


def _store_and_path(place: Location) -> tuple[str, str]:
    """``s3://bucket`` and the path in it; nothing and the path for local ones."""
    if place.is_local:
        return "", place.url
    protocol, _, rest = place.url.partition("://")
    bucket, slash, path = rest.partition("/")
    return f"{protocol}://{bucket}", slash + path
