"""`IdentifyDuplicatesStage`: tables of scores in, ids to drop out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

from semdedup.dedup.names import IDENTIFY, SCORES_FILE
from semdedup.dedup.options import IOOptions, ThresholdOptions
from semdedup.dedup.results.find import find_scores
from semdedup.dedup.stage import Stage
from semdedup.dedup.threshold.rule import DEFAULT_EPS, check_eps
from semdedup.dedup.threshold.run import check_score_files, identify_duplicates
from semdedup.runs.run import Run
from semdedup.settings import documented
from semdedup.settings.shared import SharedKeywords
from semdedup.storage.location import FileInfo, Location, Paths


@documented(IOOptions, ThresholdOptions)
class IdentifyDuplicatesStage(Stage):
    """Write the ids whose score reaches 1 - eps, sorted within each file.

    Reads the tables ``cluster_{k}.parquet`` of `PairwiseStage`, its own or another program's. For each eps of
    `count_at` the counts of kept and removed rows go to ``dedup_summary_{eps}.csv`` in the folder `summaries`. The ids
    of the other rows go to the folder `kept`, if one is named.

    Example:
        >>> IdentifyDuplicatesStage(input_path="out/pairwise", output_path="out/duplicates", eps=0.01).run()
    """

    step = IDENTIFY

    def __init__(
        self,
        eps: float = DEFAULT_EPS,
        input_path: Paths | None = None,
        output_path: str | None = None,
        count_at: Sequence[float] = (),
        summaries: str = "",
        kept: str = "",
        folder: str = "",
        **shared: Unpack[SharedKeywords],
    ) -> None:
        given = {**locals(), **shared}
        super().__init__(given)
        self.eps, self.count_at = check_eps(eps), ThresholdOptions.of(given).count_at
        self.summaries, self.kept = summaries, kept

    def parameters(self) -> dict[str, Any]:
        """What its result depends on beside its input."""
        return {
            "folder": self.folder,
            "eps": self.eps,
            "count_at": list(self.count_at),
            **({"kept": self.kept} if self.kept else {}),
        }

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

    def work(self, run: Run, files: Sequence[FileInfo], source: Location) -> dict[str, Any]:
        """Apply the threshold."""
        folders = (self.summaries, self.kept)
        return identify_duplicates(run, files, source, self.eps, self.count_at, folders, self.destination())
