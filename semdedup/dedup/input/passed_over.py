"""Files that are passed over where an input is looked for: why, and how many of each ending."""

from __future__ import annotations

from array import array
from collections.abc import Mapping

import numpy as np

from semdedup.dedup.input.endings import MOST_LOOKED_INTO, PICKLES, ending_of
from semdedup.storage.digests import are_among, as_digests, digest, repeated

WORDS = {"parquet": "Parquet", "jsonl": "JSON Lines"}
NOT_THIS = {name: f"that are no {words}" for name, words in WORDS.items()}
HIDDEN = "whose names begin with a dot or an underscore"
OF_RESULTS = "of results of semdedup"
OF_DATASETS = "of data sets of Lance or Hugging Face, which are read where they are named"
TWICE = "that stand there twice, by links or other names"
NO_FILES = "that are no regular files, or may not be read"
TOO_MANY = f"whose endings tell nothing, and which are more than {MOST_LOOKED_INTO:,}"
"""Why a file is passed over."""

OUTPUT = "in the output folder"
MARKER = "that mark or check others"
NEVER_TOLD = (OUTPUT, MARKER)
"""What nobody takes for data."""

NOWHERE = bytes(16)


class PassedOver:
    """Files that are passed over. Memory: 36 bytes a file.

    Attributes:
        examples: the URL of the first file of each reason and ending, and of each ending that its name has.
        folders: of data sets that are passed over.
    """

    def __init__(self) -> None:
        self.examples: dict[tuple[str, str, str], str] = {}
        self.folders: set[str] = set()
        self._kinds: dict[tuple[str, str], int] = {}
        self._codes, self._urls, self._places = array("i"), bytearray(), bytearray()

    def __len__(self) -> int:
        return len(self._codes)

    def add(self, url: str, reason: str, ending: str, place: str = "") -> None:
        """Add a file, or say why it is passed over anew.

        Args:
            url: its name.
            reason: why it is passed over.
            ending: what it is counted by.
            place: by which it is read all the same where that is read; empty where it does not count.
        """
        name = url.rpartition("/")[2]
        kind = f"{ending_of(name)}{'*' * url.endswith(PICKLES)}"
        self.examples.setdefault((reason, ending, kind), url)
        if reason == OF_DATASETS:
            self.folders.add(place)
        self._codes.append(self._kinds.setdefault((reason, ending), len(self._kinds)))
        self._urls += digest(url)
        self._places += digest(place) if place else NOWHERE

    def add_all(self, other: PassedOver) -> None:
        """Add all files of another one."""
        codes = [self._kinds.setdefault(kind, len(self._kinds)) for kind in other._kinds]
        self._codes.extend(codes[code] for code in other._codes)
        self._urls += other._urls
        self._places += other._places
        self.examples = {**other.examples, **self.examples}
        self.folders |= other.folders

    @property
    def reasons(self) -> set[str]:
        """The reasons that there are."""
        return {reason for reason, _ in self._kinds}

    @property
    def has_pickles(self) -> bool:
        """Whether there are pickles among them."""
        return any(url.endswith(PICKLES) for url in self.examples.values())

    def counted(self) -> dict[str, dict[str, int]]:
        """Of each reason, how many files there are of each ending."""
        return self._count(self._last_word())

    def told(self, asked_for: np.ndarray, read: np.ndarray) -> dict[str, dict[str, int]]:
        """The same without what nobody takes for data, and without what is read all the same.

        Args:
            asked_for: `digests` of the URLs that were given and of those that are read.
            read: `digests` of the places that are read.
        """
        never = np.array([reason in NEVER_TOLD for reason, _ in self._kinds], dtype=bool)
        urls, places = as_digests(self._urls), as_digests(self._places)
        hidden = never[np.array(self._codes, dtype=np.int64)] if len(self) else np.zeros(0, dtype=bool)
        for found, among in ((urls, asked_for), (places, asked_for), (places, read)):
            hidden |= are_among(found, np.sort(among)) if len(found) else hidden
        return self._count(self._last_word() & ~hidden)

    def _last_word(self) -> np.ndarray:
        """Which of the reasons that were given is the last one of its file, (n,) bool."""
        last = np.ones(len(self), dtype=bool)
        again, _ = repeated(np.ascontiguousarray(as_digests(self._urls)[::-1]))
        last[len(self) - 1 - again] = False
        return last

    def _count(self, chosen: np.ndarray) -> dict[str, dict[str, int]]:
        codes = np.array(self._codes, dtype=np.int64)[chosen]
        counts = np.bincount(codes, minlength=len(self._kinds)).tolist()
        found: dict[str, dict[str, int]] = {}
        for (reason, ending), count in sorted(zip(self._kinds, counts, strict=True)):
            if count:
                found.setdefault(reason, {})[ending] = count
        return found


def names_of(examples: Mapping[tuple[str, str, str], str]) -> list[str]:
    """The names of the files of some examples."""
    return [url.rpartition("/")[2] for url in examples.values()]
