"""Leaks: the clips of a set B (evaluation) that duplicate clips of a set A (training)."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import distributed
import numpy as np

from semdedup.compute.options import ClusterOptions
from semdedup.dedup.leaks.stage import CrossStage
from semdedup.dedup.names import IDENTIFY, PAIRWISE, QUARANTINE, WITNESSES, WORKFLOW, below
from semdedup.dedup.pipeline import Pipeline
from semdedup.dedup.results.pairs import Pair
from semdedup.dedup.results.scores import Scores
from semdedup.dedup.results.tallies import Nearest
from semdedup.dedup.threshold.recommended import chosen_eps, recommended_eps
from semdedup.dedup.threshold.rule import duplicate_mask
from semdedup.dedup.threshold.stage import IdentifyDuplicatesStage
from semdedup.display import Displayable, format_counts
from semdedup.runs.record import FILE_NAME
from semdedup.settings import taken
from semdedup.settings.choices import EmbeddingEncoding
from semdedup.storage.location import Location, Paths
from semdedup.storage.tables import LOW_INFORMATION


@dataclass(frozen=True, repr=False)
class LeakResult(Displayable):
    """What `find_leaks` found.

    Attributes:
        a_rows: rows of A.
        leaks: rows of B whose score reaches 1 - eps.
        clean: the other rows of B that were compared, or show nothing.
        low_information: how many of the clean ones show nothing and were not compared.
        quarantined: rows of B that cannot be compared, by reason.
        left_out: rows of A that cannot be compared, by reason; `low_information` is one.
        threshold: eps, and who chose it.
        seconds: time of the run.
        paths: what was written, by table.
        scores: the table of scores; `id` is of B, `max_id` of A. It is streamed; a result holds no rows.
    """

    a_rows: int
    leaks: int
    clean: int
    low_information: int
    quarantined: Mapping[str, int]
    left_out: Mapping[str, int]
    threshold: tuple[float, str]
    seconds: float
    paths: Mapping[str, str]
    scores: Scores

    @property
    def eps(self) -> float:
        """The threshold."""
        return self.threshold[0]

    @property
    def eps_from(self) -> str:
        """Who chose the threshold."""
        return self.threshold[1]

    @property
    def b_rows(self) -> int:
        """Rows of B: leaks, clean and quarantined."""
        return self.leaks + self.clean + self.n_quarantined

    @property
    def n_quarantined(self) -> int:
        """Rows of B set aside."""
        return sum(self.quarantined.values())

    def pairs(self, n: int = 10) -> list[Pair]:
        """The n leaks of the highest scores, the clip of B as `id` and that of A as `max_id`.

        Time: a reading of the scores.
        """
        highest = Nearest(n, 1.0)
        self.scores.tally(highest)
        found = self.scores.pairs(highest.places)
        keep = duplicate_mask(np.array([pair.score for pair in found], dtype=np.float32), self.eps)
        return list(itertools.compress(found, keep))

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of everything that there is to tell."""

        def share(count: int) -> str:
            return f"{count:,} ({count / self.b_rows:.1%})"

        lines = [
            ("rows of A", f"{self.a_rows:,}"),
            ("rows of B", f"{self.b_rows:,}"),
            (f"leaks at eps {self.eps:.6g}", share(self.leaks)),
            ("clean", share(self.clean)),
        ]
        if self.low_information:
            lines.append(("  not compared: low_information", f"{self.low_information:,}"))
        lines.append(("quarantined", share(self.n_quarantined) if self.quarantined else "0"))
        lines += [(f"  {reason}", f"{count:,}") for reason, count in sorted(self.quarantined.items())]
        if self.left_out:
            lines.append(("left out of A", format_counts(self.left_out)))
        return [*lines, ("eps from", self.eps_from), ("seconds", f"{self.seconds:.1f}"), *self.paths.items()]


class LeakSearch:
    """The search for leaks that `find_leaks` runs; see there. `describe` tells what it would do."""

    def __init__(
        self,
        a: Paths,
        b: Paths,
        output_path: str,
        *,
        eps: float | None = None,
        id_field: str | None = "id",
        embedding_field: str = "embedding",
        embedding_dim: int | None = None,
        embedding_encoding: EmbeddingEncoding | None = None,
        storage_options: Mapping[str, Any] | None = None,
        clear_output: bool = False,
        verbose: bool = True,
        take_over: bool = False,
        verify: bool = False,
    ) -> None:
        self.root = Location.of(output_path, storage_options)
        kwargs = {"storage_options": dict(storage_options or {})}
        given = {**locals(), "output_path": self.root.url, "read_kwargs": kwargs, "write_kwargs": kwargs}
        cross = CrossStage(**taken(CrossStage, given, against=a, input_path=b, folder=WORKFLOW.scores))
        self.eps, self.eps_from = _choose_eps(cross, eps)
        given |= {"eps": self.eps, "removal": "witness", "input_path": below(self.root, WORKFLOW.scores).url}
        identify = IdentifyDuplicatesStage(**taken(IdentifyDuplicatesStage, given, folder=WORKFLOW.duplicates))
        self.pipeline = Pipeline("leaks").add_stage(cross).add_stage(identify)

    def describe(self) -> list[str]:
        """What `run` would do, in lines of text; see `Pipeline.describe`."""
        return self.pipeline.describe()

    def run(
        self, client: distributed.Client | str | None = None, *, cluster: ClusterOptions | None = None
    ) -> LeakResult:
        """Run, going on where an earlier run with the same parameters and input stopped."""
        started = time.monotonic()
        results = {result.stage: result for result in self.pipeline.run(client, cluster=cluster)}
        scored, identified = results[PAIRWISE].facts, results[IDENTIFY].facts
        quarantined = scored["quarantined"]
        paths = {"scores": results[PAIRWISE].path, "ids to drop from B": results[IDENTIFY].path}
        paths["witnesses"] = str(self.root / WITNESSES)
        if quarantined:
            paths["quarantine"] = str(self.root / QUARANTINE)
        return LeakResult(
            a_rows=scored["rows_of_a"],
            leaks=identified["duplicates"],
            clean=identified["rows"] - identified["duplicates"],
            low_information=scored[LOW_INFORMATION],
            quarantined=quarantined,
            left_out=scored["left_out_of_a"],
            threshold=(self.eps, self.eps_from),
            seconds=time.monotonic() - started,
            paths={**paths, "manifest": str(self.root / FILE_NAME)},
            scores=replace(Scores.of(self.root), across=True),
        )


def _choose_eps(cross: CrossStage, eps: float | None) -> tuple[float, str]:
    """The threshold, and where it comes from: the files of B, or of A, if it is not given."""
    if eps is not None:
        return chosen_eps(eps, [])
    source = cross.source()[0]
    a, b = cross.find_against(), cross.find_input(cross.source())
    first = source.at(b[0].url)
    return chosen_eps(None, [first if recommended_eps([first]) is not None else a.source.at(a.files[0].url)])


def find_leaks(
    a: Paths,
    b: Paths,
    output_path: str,
    *,
    eps: float | None = None,
    id_field: str | None = "id",
    embedding_field: str = "embedding",
    embedding_dim: int | None = None,
    embedding_encoding: EmbeddingEncoding | None = None,
    client: distributed.Client | str | None = None,
    cluster: ClusterOptions | None = None,
    storage_options: Mapping[str, Any] | None = None,
    clear_output: bool = False,
    verbose: bool = True,
    take_over: bool = False,
    verify: bool = False,
) -> LeakResult:
    """Find the clips of B (evaluation) that duplicate clips of A (training): train on A, and these measure nothing.

    Exact: every row of B is compared with every row of A. Of equal scores the smallest id of A wins. Clips that show
    nothing (`low_information`) leak from nowhere and to nowhere.

    Args:
        a: embeddings in Parquet, a folder, file, glob or list of these; or the output folder of `split`.
        b: likewise. The same id may be in both sets.
        output_path: folder for the scores, the ids to drop from B, the quarantine and the manifest.
        eps: a row of B leaks where its score is at least 1 - eps; by default what the embedder recommends, else 0.1.
        id_field, embedding_field: names of the columns, in both sets. With id_field=None ids are made of file and row.
        embedding_dim: expected length of the embeddings; the commonest where not given.
        embedding_encoding: what lists of uint16 hold: "fp16_bits", the bits of float16.
        client, cluster: as for the workflow.
        storage_options: for fsspec.
        clear_output: first delete what semdedup wrote to the output path before.
        verbose: show progress.
        take_over: go on in place of a run that seems to be at work in the output path.
        verify: read the files of what is complete already, and compare their checksums.

    Raises:
        SemdedupError: see `semdedup.errors`. A run that is refused has written nothing.

    Cost: 2·n_A·n_B·d operations, spread over the workers; memory of a task as in `compare_span`, whatever the size of
    the sets. `semdedup.load`, `report` and `extract` work on the output.

    Example:
        >>> semdedup.find_leaks("train/dct3d_embd_parquet", "eval/dct3d_embd_parquet", "leaks").leaks
    """
    return LeakSearch(**taken(LeakSearch, locals())).run(client, cluster=cluster)
