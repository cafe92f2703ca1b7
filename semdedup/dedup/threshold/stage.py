"""`IdentifyDuplicatesStage`: tables of scores in, ids to drop out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from semdedup.compute.session import Session
from semdedup.dedup.names import (
    IDENTIFY,
    SCORES_FILE,
    Destination,
    destination_of,
)
from semdedup.dedup.results.find import find_scores
from semdedup.dedup.stage import Stage
from semdedup.dedup.threshold.rule import check_eps
from semdedup.dedup.threshold.run import check_score_files, identify_duplicates
from semdedup.storage.location import FileInfo, Location, Paths, locations_of


@dataclass
class IdentifyDuplicatesStage(Stage):
    """Write the ids whose score reaches 1 - eps, sorted within each file.

    Reads the tables ``cluster_{k}.parquet`` of `PairwiseStage`, its own or another program's. For each eps of
    `count_at` the counts of kept and removed rows go to ``dedup_summary_{eps}.csv`` in the folder `summaries`. The ids
    of the other rows go to the folder `kept`, if one is named.

    Example:
        >>> IdentifyDuplicatesStage(input_path="out/pairwise", output_path="out/duplicates", eps=0.01).run()
    """

    eps: float = 0.1
    input_path: Paths | None = None
    output_path: str | None = None
    count_at: Sequence[float] = ()
    summaries: str = ""
    kept: str = ""
    read_kwargs: Mapping[str, Any] | None = field(default=None, repr=False)  # they may hold credentials
    write_kwargs: Mapping[str, Any] | None = field(default=None, repr=False)
    clear_output: bool = False
    verbose: bool = True
    folder: str = ""

    def __post_init__(self) -> None:
        self.step = IDENTIFY
        self.eps = check_eps(self.eps)
        self.count_at = tuple(check_eps(eps) for eps in self.count_at)

    def source(self) -> Sequence[Location]:
        """Where it reads."""
        return locations_of(self.input_path, self.read_kwargs)

    def destination(self) -> Destination:
        """Where it writes."""
        return destination_of(self.output_path, self.folder, self.write_kwargs)

    def parameters(self) -> dict[str, Any]:
        """What its result depends on beside its input."""
        return {"eps": self.eps, "count_at": list(self.count_at), **({"kept": self.kept} if self.kept else {})}

    def find_input(self, sources: Sequence[Location]) -> list[FileInfo]:
        """The tables of scores."""
        return find_scores(sources[0])

    def folders(self) -> Sequence[str]:
        """Folders of the ids to drop, and of those to keep."""
        return [self.folder, self.kept] if self.kept else [self.folder]

    def is_result(self, name: str) -> bool:
        """Whether a file of this name holds ids."""
        return name.endswith(".parquet") and "/" not in name and not SCORES_FILE.search(name)

    def check_schema(self, files: Sequence[FileInfo], source: Location) -> None:
        """Refuse what the footers of the first files show to be wrong."""
        check_score_files(files, source)

    def work(self, session: Session, files: Sequence[FileInfo], source: Location) -> dict[str, Any]:
        """Apply the threshold."""
        folders = (self.summaries, self.kept)
        return identify_duplicates(session, files, source, self.eps, self.count_at, folders, self.destination())
