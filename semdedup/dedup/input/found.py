"""The files of an input as they were found, with what was passed over and what the paths were."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from semdedup.display import format_passed_over
from semdedup.storage.file_list import FileInfo, FileList


class FoundFiles(FileList):
    """The files of an input, in the order of their paths, and what was passed over.

    Attributes:
        passed_over: of each reason, how many files there are of each ending; of results of ours, in each folder.
        top: URL of the folder that all given paths lie in, with its last slash; below it, names of folders are keys.
    """

    def __init__(
        self,
        files: Iterable[FileInfo],
        passed_over: Mapping[str, Mapping[str, int]] | None = None,
        top: str = "",
    ) -> None:
        super().__init__(FileList.of(files).batches)
        self.passed_over, self.top = passed_over or {}, top

    def __reduce__(self) -> tuple[Any, ...]:
        return FoundFiles, (self[:], self.passed_over, self.top)


def passed_over_of(files: Sequence[FileInfo]) -> Mapping[str, Mapping[str, int]]:
    """What was passed over when some files were found; nothing where that is not known of them."""
    return files.passed_over if isinstance(files, FoundFiles) else {}


def top_of(files: Sequence[FileInfo]) -> str:
    """The folder that the paths lie in which some files were found by; empty where that is not known of them."""
    return files.top if isinstance(files, FoundFiles) else ""


def told(passed_over: Mapping[str, Mapping[str, int]]) -> list[str]:
    """A line on what was passed over; none where nothing was."""
    return [f"passed over {format_passed_over(passed_over)}"] if passed_over else []
