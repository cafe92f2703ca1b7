"""`IdentifyDuplicatesStage`: tables of scores in, ids to drop out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

from semdedup.dedup.names import IDENTIFY, SCORES_FILE, WITNESSES
from semdedup.dedup.options import IOOptions, ThresholdOptions
from semdedup.dedup.results.find import find_scores
from semdedup.dedup.stage import Stage
from semdedup.dedup.threshold.rule import DEFAULT_EPS, check_eps
from semdedup.dedup.threshold.run import Rule, check_across, check_score_files, identify_duplicates
from semdedup.dedup.threshold.vectors import check_exact, find_vectors, is_across, scores_record
from semdedup.runs.run import Run
from semdedup.settings import Setting, documented
from semdedup.settings.choices import RemovalRule
from semdedup.settings.kinds import path
from semdedup.settings.shared import SharedKeywords
from semdedup.storage.location import FileInfo, Location, Paths

CLUSTERS_PATH = Setting(
    path(), None, "Folder of the clusters; by default where the record of the scores says.", "clusters_path"
)


@documented(IOOptions, ThresholdOptions)
class IdentifyDuplicatesStage(Stage):
    """Write the ids of the rows that go at 1 - eps, sorted within each file.

    Reads the tables ``cluster_{k}.parquet`` of `PairwiseStage`, its own or another program's. For each eps of
    `count_at` the counts of kept and removed rows go to ``dedup_summary_{eps}.csv`` in the folder `summaries`. The ids
    of the other rows go to the folder `kept`, if one is named.

    Under the rules ``witness`` and ``components`` the folder ``witnesses`` tells of each row that goes which row stays
    for it: ``id``, ``witness_id``, ``cosine_sim_score``. They read those clusters in which the scores alone do not
    decide: those of `clusters_path`, by default those that the record of the scores names.

    Example:
        >>> IdentifyDuplicatesStage(input_path="out/pairwise", output_path="out/duplicates", eps=0.01).run()
    """

    step = IDENTIFY
    reads = "the folder of the scores that PairwiseStage wrote"

    def __init__(
        self,
        eps: float = DEFAULT_EPS,
        input_path: Paths | None = None,
        output_path: str | None = None,
        count_at: Sequence[float] = (),
        summaries: str = "",
        kept: str = "",
        removal: RemovalRule = "any",
        clusters_path: str | None = None,
        folder: str = "",
        **shared: Unpack[SharedKeywords],
    ) -> None:
        given = {**locals(), **shared}
        super().__init__(given)
        options = ThresholdOptions.of(given)
        self.rule = Rule(check_eps(eps), options.count_at, options.removal, CLUSTERS_PATH.check(clusters_path))
        self.summaries, self.kept = summaries, kept

    def parameters(self) -> dict[str, Any]:
        """What its result depends on beside its input."""
        return {
            "folder": self.folder,
            "eps": self.rule.eps,
            "removal": self.rule.removal,
            "count_at": list(self.rule.count_at),
            **({"kept": self.kept} if self.kept else {}),
        }

    def find_input(self, sources: Sequence[Location]) -> Sequence[FileInfo]:
        """The tables of scores."""
        return find_scores(sources[0])

    def folders(self) -> Sequence[str]:
        """Folders of the ids to drop, of those to keep, and of the witnesses."""
        witnesses = [] if self.rule.removal == "any" else [WITNESSES]
        return [self.folder, *([self.kept] if self.kept else []), *witnesses]

    def is_result(self, name: str) -> bool:
        """Whether a file of this name holds ids."""
        return name.endswith(".parquet") and "/" not in name and not SCORES_FILE.search(name)

    def check_schema(self, files: Sequence[FileInfo], source: Location) -> None:
        """Refuse what the footers of the first files show to be wrong."""
        check_score_files(files, source)
        compared = scores_record(source)
        check_across(self.rule, compared)
        check_exact(compared, [self.rule.eps, *self.rule.count_at])
        if self.rule.removal != "any" and not is_across(compared):
            find_vectors(source, self.rule.removal, self.rule.clusters_path)

    def work(self, run: Run, files: Sequence[FileInfo], source: Location) -> dict[str, Any]:
        """Apply the rule."""
        folders = (self.summaries, self.kept)
        return identify_duplicates(run, files, source, self.rule, folders, self.destination())
