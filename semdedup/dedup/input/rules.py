"""Which of the files that are found are data, and why others are passed over."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.dedup.input.endings import EXTENSIONS, ending_of, is_other, is_regular
from semdedup.dedup.input.own import OwnFiles
from semdedup.dedup.input.passed_over import HIDDEN, MARKER, NO_FILES, NOT_THIS, OF_DATASETS, OF_RESULTS, OUTPUT
from semdedup.storage.file_columns import has_ending, texts
from semdedup.storage.folders import Listing
from semdedup.storage.listing import MAGIC
from semdedup.storage.location import FileInfo, Location

PART = "that are part of a data set that is read"


def is_data(relative: str, named: Sequence[str] = ()) -> bool:
    """Whether no part of a relative path begins with ``_`` or ``.``, but for keys of partitions, ``_key=value``.

    Parts of a pattern may be `named` that begin so themselves: what matches them is data.
    """
    named = [part for part in named if part.startswith(("_", "."))]
    return all(
        not part.startswith(("_", "."))
        or part in (".", "..")  # of keys in an object store, in which they mean nothing
        or (part.startswith("_") and "=" in part)
        or any(fnmatchcase(part, pattern) for pattern in named)
        for part in relative.strip("/").split("/")
    )


def why_by_name(relative: str, filetype: str, named: Sequence[str] = ()) -> str | None:
    """By its name, why a file is passed over; empty for one that is read, None where the name does not tell.

    Args:
        relative: its path below what is given.
        filetype: ``parquet`` or ``jsonl``.
        named: parts of the pattern that it matches. An ending that the last one names is wanted.
    """
    name = relative.rpartition("/")[2]
    ending = ending_of(name)
    if not is_data(relative, named):
        return HIDDEN if ending in EXTENSIONS[filetype] else MARKER
    asked_for = MAGIC.split(named[-1])[-1] if named and MAGIC.search(named[-1]) else ""
    if ending in EXTENSIONS[filetype] or (asked_for.startswith(".") and name.endswith(asked_for)):
        return ""
    if ending == ".crc" or not name:  # no name: what marks a folder in an object store
        return MARKER
    return None if filetype == "parquet" and not is_other(ending) else NOT_THIS[filetype]


@dataclass(frozen=True)
class Rules:
    """What decides on the files of a path.

    Attributes:
        top: the folder that they are in.
        filetype: what is read.
        named: the parts of the pattern.
        around: real places of outputs.
        results: results of ours among them.
        datasets: folders of data sets, each with the files that stand for it where it is read.
    """

    top: Location
    filetype: str
    named: Sequence[str]
    around: Sequence[str]
    results: OwnFiles
    datasets: Mapping[str, Sequence[FileInfo]]

    def are_plain(self, batch: pa.RecordBatch, listing: Listing) -> np.ndarray:
        """Which files are read for certain, (n,) bool: by names that are not hidden, and folders that hold data."""
        folders, names = batch["folder"], batch["name"]
        is_plain = np.array([self._is_plain(folder, listing) for folder in texts(folders.dictionary)], dtype=bool)
        begins = pc.is_in(pc.binary_slice(names, 0, 1), value_set=pa.array([b"_", b"."]))
        wanted = pc.and_not(has_ending(names, *EXTENSIONS[self.filetype]), begins)
        plain: np.ndarray = wanted.to_numpy(zero_copy_only=False) & is_plain[folders.indices.to_numpy()]
        return plain & (batch["bytes"].to_numpy() > 0)

    def _is_plain(self, folder: str, listing: Listing) -> bool:
        return (
            is_data(below(self.top, folder), self.named)
            and not self.results.is_around(folder)
            and not (self.around and is_below(listing.real_folder(folder), self.around))
        )

    def why(self, file: FileInfo, real: str) -> tuple[str | None, str, str]:
        """As `why_by_name`, but by all that is known; what the file is counted by; and the place it is read by."""
        top, ending = self.top, ending_in(file.url)
        why = why_by_name(below(top, file.url), self.filetype, self.named)
        if why != MARKER and is_below(real, self.around):
            return OUTPUT, ending, real
        if why == "" and file.url in self.results.recorded:
            return OF_RESULTS, f"in {below(top, self.results.recorded[file.url])}", real
        if why != MARKER and ending not in EXTENSIONS[self.filetype]:
            folder = _folder_of(file.url, self.datasets)
            if folder:
                return PART if self.datasets[folder] else OF_DATASETS, f"in {below(top, folder) or folder}", folder
        if why == HIDDEN and self.results.is_around(file.url):
            return MARKER, ending, real
        if why == "" and not file.n_bytes and not is_regular(top.at(file.url)):
            return NO_FILES, ending, real
        return why, ending, real


def _folder_of(url: str, folders: Collection[str]) -> str:
    """The innermost of the folders that a file lies below; empty for none."""
    folder = url.rpartition("/")[0]
    while folder and folder not in folders:
        folder = folder.rpartition("/")[0]
    return folder


def below(top: Location, url: str) -> str:
    """The path of a file below a folder."""
    return url[len(top.url.rstrip("/")) + 1 :]


def ending_in(url: str) -> str:
    """The ending of the name of a file."""
    return ending_of(url.rpartition("/")[2])


def is_below(real: str, folders: Sequence[str]) -> bool:
    """Whether a place lies below one of some folders."""
    return real.startswith(tuple(f"{folder}/" for folder in folders))
