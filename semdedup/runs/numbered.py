"""Results that follow one another below the root of a run: ``dedup``, then ``dedup-0002``, ``dedup-0003``, …"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from semdedup.runs.record import FILE_NAME
from semdedup.storage.location import Location


@dataclass(frozen=True)
class Numbered:
    """The names of such folders, by that of the first.

    >>> Numbered("dedup").name(1), Numbered("dedup").name(2)
    ('dedup', 'dedup-0002')
    """

    first: str

    def name(self, number: int) -> str:
        """Name of a folder; numbers begin at 1."""
        return self.first if number == 1 else f"{self.first}-{number:04d}"

    def below(self, root: Location) -> list[Location]:
        """Those that have a record, in order, to the first gap. Cost: a request for each."""
        folders = (root / self.name(number) for number in itertools.count(1))
        return list(itertools.takewhile(lambda folder: (folder / FILE_NAME).exists(), folders))

    def beyond(self, root: Location) -> list[Location]:
        """Those that come after a gap: one before them was taken away."""
        known = {folder.name for folder in self.below(root)}
        names = root.folder_names() if root.is_dir() else []
        later = re.compile(rf"{self.first}-\d{{4,}}")
        others = [root / name for name in names if later.fullmatch(name) and name not in known]
        return [folder for folder in others if (folder / FILE_NAME).exists()]
