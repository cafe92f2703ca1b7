"""The files of an input as they were found, with what was passed over and what the paths were."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

from semdedup.display import format_passed_over
from semdedup.storage.location import FileInfo


@dataclass(frozen=True)
class FoundFiles(Sequence[FileInfo]):
    """The files of an input, in the order of their paths, and what was passed over.

    Attributes:
        files: what is read.
        passed_over: of each reason, how many files there are of each ending; of results of ours, in each folder.
        top: URL of the folder that all given paths lie in, with its last slash; below it, names of folders are keys.
    """

    files: Sequence[FileInfo]
    passed_over: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    top: str = ""

    @overload
    def __getitem__(self, index: int) -> FileInfo: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[FileInfo]: ...
    def __getitem__(self, index: int | slice) -> FileInfo | Sequence[FileInfo]:
        return self.files[index]

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[FileInfo]:
        return iter(self.files)


def passed_over_of(files: Sequence[FileInfo]) -> Mapping[str, Mapping[str, int]]:
    """What was passed over when some files were found; nothing where that is not known of them."""
    return files.passed_over if isinstance(files, FoundFiles) else {}


def top_of(files: Sequence[FileInfo]) -> str:
    """The folder that the paths lie in which some files were found by; empty where that is not known of them."""
    return files.top if isinstance(files, FoundFiles) else ""


def told(passed_over: Mapping[str, Mapping[str, int]]) -> list[str]:
    """A line on what was passed over; none where nothing was."""
    return [f"passed over {format_passed_over(passed_over)}"] if passed_over else []
