"""`find_pairs`: every pair of an input within eps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import distributed

from semdedup.compute.options import ClusterOptions
from semdedup.dedup.names import PAIRS, QUARANTINE
from semdedup.dedup.pairs.run import too_many
from semdedup.dedup.pairs.stage import PairsStage
from semdedup.dedup.ranking import RankingStrategy
from semdedup.display import OfInput
from semdedup.runs.record import FILE_NAME
from semdedup.settings.choices import EmbeddingEncoding, InputFiletype
from semdedup.settings.frames import Input
from semdedup.storage.tables import LOW_INFORMATION


@dataclass(frozen=True, repr=False)
class PairsResult(OfInput):
    """What `find_pairs` found.

    Attributes:
        pairs: how many there are.
        eps: the threshold.
        compared: rows that were compared.
        low_information: rows that show nothing and were left out.
        quarantined: rows that cannot be compared, by reason.
        counts: of the rows without repeated ones, the ``pairs`` that there are, what the margins of clusters
            (``by_margin``) and then short rows (``by_axes``) left of them, and the ``matches`` among these.
        plan: how pairs were ruled out, in words.
        seconds: time of the run, without forcing files to disk.
        paths: what was written, by table.
    """

    pairs: int
    eps: float
    compared: int
    low_information: int
    quarantined: Mapping[str, int]
    counts: Mapping[str, int]
    plan: str
    seconds: float
    paths: Mapping[str, str]

    @property
    def n_quarantined(self) -> int:
        """Rows set aside."""
        return sum(self.quarantined.values())

    def to_json(self) -> dict[str, Any]:
        """Everything that there is to tell, as JSON values."""
        return asdict(self)

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of everything that there is to tell."""
        lines = [("rows compared", f"{self.compared:,}"), (f"pairs within eps {self.eps:.6g}", f"{self.pairs:,}")]
        if self.low_information:
            lines.append(("left out: low_information", f"{self.low_information:,}"))
        lines.append(("quarantined", f"{self.n_quarantined:,}"))
        lines += [(f"  {reason}", f"{count:,}") for reason, count in sorted(self.quarantined.items())]
        names = {"pairs": "pairs of different rows", "by_margin": "  left by margins", "by_axes": "  left by products"}
        lines += [(name, f"{self.counts.get(key, 0):,}") for key, name in names.items()]
        lines += self.lines_of_input()
        return [*lines, ("plan", self.plan), ("seconds", f"{self.seconds:.1f}"), *self.paths.items()]


def run_pairs(
    stage: PairsStage, client: distributed.Client | str | None = None, *, cluster: ClusterOptions | None = None
) -> PairsResult:
    """Run the stage; what `find_pairs` gives."""
    found = stage.run(client, cluster=cluster)
    facts, root = found.facts, stage.destination().root
    if facts["pairs"] > stage.options.max_pairs:  # complete from an earlier run, which was allowed more
        raise too_many(stage.options, f"{facts['pairs']:,} stand in {root} from an earlier run.")
    paths = {"pairs": str(root / PAIRS)}
    if facts["quarantined"]:
        paths["quarantine"] = str(root / QUARANTINE)
    return PairsResult(
        pairs=facts["pairs"],
        eps=stage.options.eps,
        compared=facts["rows"],
        low_information=facts[LOW_INFORMATION],
        quarantined=facts["quarantined"],
        counts=facts["counts"],
        plan=facts["plan"],
        seconds=found.seconds,
        paths={**paths, "manifest": str(root / FILE_NAME)},
        passed_over=facts.get("passed_over", {}),
    )


def find_pairs(
    input: Input,
    eps: float,
    output: str,
    *,
    ranking_strategy: RankingStrategy | Mapping[str, Any] | None = None,
    max_pairs: int = 10**9,
    client: distributed.Client | str | None = None,
    cluster: ClusterOptions | None = None,
    id_field: str | None = "id",
    embedding_field: str = "embedding",
    embedding_dim: int | None = None,
    embedding_encoding: EmbeddingEncoding | None = None,
    input_filetype: InputFiletype = "parquet",
    storage_options: Mapping[str, Any] | None = None,
    read_kwargs: Mapping[str, Any] | None = None,
    write_kwargs: Mapping[str, Any] | None = None,
    clear_output: bool = False,
    verbose: bool = True,
    take_over: bool = False,
    verify: bool = False,
) -> PairsResult:
    """List every pair of rows of the whole input whose similarity is at least 1 - eps, wherever the two lie.

    Exact: recall and precision are 1. Clips that show nothing (`low_information`) are in no pair.

    Args:
        input: embeddings in Parquet or JSON Lines, a folder, file, glob or list of these; the output folder of `split`;
            a result of the dedup, whose clusters then spare most of the work (of one with a base, these are its new
            rows); or a frame, as for the workflow.
        eps: the threshold.
        output: folder for ``pairs/*.parquet`` (``id_a``, ``id_b``, ``cosine_sim_score``), the quarantine and the
            manifest.
        ranking_strategy: a ranks before b by this; by default by the ranks of a result, else by id ascending.
        max_pairs: more pairs are an error.
        client, cluster: as for the workflow.
        id_field, embedding_field, embedding_dim, embedding_encoding, input_filetype: as for the workflow.
        clear_output, verbose, take_over, verify: as for the workflow.
        storage_options: for fsspec; `read_kwargs` and `write_kwargs` may hold others.

    Raises:
        SemdedupError: see `semdedup.errors`; with more pairs than `max_pairs`, the id that has most of them. A run that
            is refused has written nothing.

    Cost: n²/2 products of at most d numbers, mostly of 32 to 128; less of a result, whose clusters rule out most.
    Memory of a task: two blocks, whatever the size of the input. Pairs are written as they are found.

    Example:
        >>> semdedup.find_pairs("clips/dct3d_embd_parquet", 0.05, "pairs").pairs
    """
    given = {name: value for name, value in locals().items() if name in STAGE_KEYWORDS}
    kwargs = {
        name: {"storage_options": dict(storage_options or {}), **(value or {})}
        for name, value in (("read_kwargs", read_kwargs), ("write_kwargs", write_kwargs))
    }
    stage = PairsStage(input_path=input, output_path=output, **{**given, **kwargs})
    return run_pairs(stage, client, cluster=cluster)


STAGE_KEYWORDS = (
    *("eps", "ranking_strategy", "max_pairs", "id_field", "embedding_field", "embedding_dim"),
    *("embedding_encoding", "input_filetype"),
    *("clear_output", "verbose", "take_over", "verify"),
)
"""Keywords of `find_pairs` that are those of `PairsStage` as they are."""
