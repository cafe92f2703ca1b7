"""Names of clips in columns: their ids, and by which metadata they are known."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.storage.digests import digests
from semdedup.storage.file_columns import bytes_of, has_ending, name_column, texts
from semdedup.storage.file_list import FileList
from semdedup.storage.location import Location
from semdedup.video.files import printable

MP4 = ".mp4"


def stem_of(path: str) -> str:
    """The name of a file without its folder and ending."""
    return os.path.splitext(path.rsplit("/", 1)[-1])[0]


def stems(names: pa.BinaryArray) -> pa.BinaryArray:
    """Names of files without their endings; see `stem_of`."""
    visible = pc.invert(is_hidden(names))
    for ending in (MP4, ".json"):
        if pc.all(pc.and_(has_ending(names, ending), visible), min_count=0).as_py():
            return pc.binary_slice(names, 0, -len(ending))
    return name_column([stem_of(name) for name in texts(names)])


def is_hidden(names: pa.BinaryArray) -> pa.BooleanArray:
    """Which files are hidden: macOS leaves hidden files beside every video, and rsync while it works."""
    return pc.equal(pc.binary_slice(names, 0, 1), b".")


def is_clip(names: pa.BinaryArray) -> pa.BooleanArray:
    """Which files are clips."""
    return pc.and_not(has_ending(names, MP4), is_hidden(names))


def is_meta(names: pa.BinaryArray) -> pa.BooleanArray:
    """Which files are metadata."""
    return pc.equal(pc.binary_slice(names, -len(".json")), b".json")


def printable_column(names: pa.Array) -> pa.StringArray:
    """Names as text that any table can hold; see `semdedup.video.files.printable`."""
    try:
        return names.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([printable(name) for name in texts(names)], pa.string())


def paths_below(batch: pa.RecordBatch, folder: Location) -> pa.LargeBinaryArray:
    """Paths of a batch of files relative to a folder that holds them."""
    start, wide = len(bytes_of(folder.url.rstrip("/"))) + 1, pa.large_binary()
    places = batch["folder"]  # not pc.binary_slice, which fails where it is given a beginning and no end
    below = pa.array([place[start:] for place in places.dictionary.to_pylist()], pa.binary())
    folders = pa.DictionaryArray.from_arrays(places.indices, below)
    parts = folders.dictionary_decode().cast(wide), batch["name"].cast(wide)
    return pc.binary_join_element_wise(*parts, pa.scalar(b"", wide))


def as_stored(paths: pa.Array) -> pa.Array:
    """Paths as their storage spells them, which need not be UTF-8."""
    try:
        paths.cast(pa.large_string())
    except pa.ArrowInvalid:
        return pa.array([os.fsencode(path) for path in texts(paths)], paths.type)
    return paths


def column_digests(columns: Iterable[pa.Array]) -> np.ndarray:
    """The digests of the values of columns, one after the other, (n,) S16."""
    return digests(value for column in columns for value in column.to_pylist())


def stem_columns(files: FileList) -> Iterator[pa.BinaryArray]:
    """The names of files without their endings, a batch at a time."""
    return map(stems, files.names())
