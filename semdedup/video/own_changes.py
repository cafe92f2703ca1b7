"""What has become of the files that are a video's own since they were written."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from semdedup.storage.file_columns import url_column
from semdedup.storage.file_list import FileList
from semdedup.storage.location import READ_AHEAD, REQUESTS_IN_FLIGHT, Location
from semdedup.storage.written import checksum_of
from semdedup.video.clip_meta import read_meta
from semdedup.video.steps.caption.windows import WINDOWS
from semdedup.video.tree import METAS


class Sizes:
    """How many bytes the files of a listing have, by name. Memory: 16 bytes a file.

    A name is known by 64 bits of a hash: one that is missing has those of one of ten million once in 1.8e12 times.
    """

    def __init__(self, root: Location, listed: Iterable[FileList]) -> None:
        start = len(root.url.rstrip("/").encode(errors="surrogatepass")) + 1
        hashes, sizes = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
        for files in listed:
            for batch in files.batches:
                hashes.append(_hashes(url[start:] for url in url_column(batch).to_pylist()))
                sizes.append(batch["bytes"].to_numpy())
        self._hashes, self._sizes = np.concatenate(hashes), np.concatenate(sizes)
        order = np.argsort(self._hashes)
        self._hashes, self._sizes = self._hashes[order], self._sizes[order]

    def of(self, names: pa.StringArray) -> pa.Array:
        """Bytes of each of these files; null where there is none."""
        wanted = _hashes(name.encode() for name in names.to_pylist())
        if not len(self._hashes):
            return pa.nulls(len(wanted), pa.int64())
        positions = np.minimum(np.searchsorted(self._hashes, wanted), len(self._hashes) - 1)
        return pa.array(self._sizes[positions], mask=self._hashes[positions] != wanted)


def _hashes(names: Iterator[bytes]) -> np.ndarray:
    return np.fromiter(map(xxhash.xxh3_64_intdigest, names), dtype=np.uint64)


def changed_own_files(
    root: Location,
    files: Iterable[tuple[Sequence[str], pa.ListArray]],
    there: Sizes,
    places: Collection[str],
    verify: bool,
    looked_at: bool,
) -> dict[str, list[str]]:
    """What is wrong with the files of videos, by video: missing, or changed since they were written.

    Others add to metadata, which have changed where they are no JSON object any more; those that have become smaller
    are looked at.

    Args:
        root: the folder.
        files: names of videos, and the files of each, `FILES`; some at a time.
        there: what is listed below these `places`, the only ones that are asked for.
        verify: compare the checksums of files, too, and look at all metadata.
        looked_at: whether metadata are looked at that have become smaller.
    """
    wrong: dict[str, list[str]] = {}
    begins = tuple(f"{place}/" for place in places)
    for videos, column in files:
        own, owners = column.flatten(), pc.list_parent_indices(column)
        asked = pa.array([name.startswith(begins) for name in own.field("name").to_pylist()], pa.bool_())
        own, owners = own.filter(asked), owners.filter(asked)
        for position, fault in _faults(root, own, there.of(own.field("name")), verify, looked_at):
            wrong.setdefault(videos[owners[position].as_py()], []).append(f"{own[position]['name'].as_py()} {fault}")
    return wrong


def lost_captions(
    root: Location, files: Iterable[tuple[Sequence[str], pa.ListArray]], there: Sizes, name: str, verify: bool
) -> dict[str, list[str]]:
    """Clips whose metadata have lost the captions that a run had added, by clip: `split` may have made them anew.

    Those that are missing, or smaller than they were, are looked at; with `verify` all.

    Args:
        root: the folder.
        files: names of clips, and the metadata of each, `FILES`; some at a time.
        there: the metadata that are listed.
        name: of the captions, in a window.
        verify: look at all metadata.
    """
    wrong: dict[str, list[str]] = {}

    def has_none(file: Location, _checksum: str) -> bool:
        meta = read_meta(file)
        return not isinstance(meta, dict) or not any(name in window for window in meta.get(WINDOWS) or ())

    for clips, column in files:
        own, owners = column.flatten(), pc.list_parent_indices(column)
        found = there.of(own.field("name"))
        asked = pc.fill_null(pc.less(found, own.field("bytes")), True)
        every = list(range(len(own))) if verify else _where(asked)
        for position in _of_which(has_none, root, own, every):
            fault = f"{own[position]['name'].as_py()} lacks its captions"
            wrong.setdefault(clips[owners[position].as_py()], []).append(fault)
    return wrong


def _faults(
    root: Location, files: pa.StructArray, found: pa.Array, verify: bool, looked_at: bool
) -> Iterator[tuple[int, str]]:
    """Positions of files that are not as they were, and why; `found` are the bytes that each has."""
    names, n_bytes = files.field("name"), files.field("bytes")
    is_meta, same = pc.starts_with(names, f"{METAS}/"), pc.equal(found, n_bytes)
    for position in _where(pc.is_null(found)):
        yield position, "is missing"
    for position in _where(pc.and_not(pc.invert(same), is_meta)):
        yield position, f"has {found[position].as_py():,} bytes instead of {n_bytes[position].as_py():,}"
    smaller = pc.is_valid(found) if verify else pc.and_(pc.less(found, n_bytes), looked_at)
    for position in _of_which(_is_no_meta, root, files, _where(pc.and_(is_meta, smaller))):
        yield position, "is damaged: it is no JSON object"
    if verify:
        for position in _of_which(_has_other_content, root, files, _where(pc.and_not(same, is_meta))):
            yield position, "has another content than was written"


def _where(mask: pa.BooleanArray) -> list[int]:
    found: list[int] = pc.indices_nonzero(mask).to_pylist()
    return found


def _of_which(
    test: Callable[[Location, str], bool], root: Location, files: pa.StructArray, positions: Sequence[int]
) -> list[int]:
    """Those of the positions where a test of a file and its checksum is true."""
    if not positions:
        return []

    def is_true(position: int) -> bool:
        file = files[position].as_py()
        return test(root.below(file["name"]), file["checksum"])

    with ThreadPoolExecutor(REQUESTS_IN_FLIGHT) as pool:
        return [p for p, true in zip(positions, pool.map(is_true, positions), strict=True) if true]


def _is_no_meta(file: Location, _checksum: str) -> bool:
    try:
        return not isinstance(file.read_json(), dict)
    except (ValueError, RecursionError):
        return True


def _has_other_content(file: Location, checksum: str) -> bool:
    with file.open(READ_AHEAD) as opened:
        return checksum_of(opened) != checksum
