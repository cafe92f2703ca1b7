"""Clusters that are scored by the task that writes them, and what is left to the comparison."""

from pathlib import Path

import distributed
import numpy as np
import pyarrow.parquet as pq
import pytest

from semdedup import KMeansStage, PairwiseStage, RankingStrategy
from semdedup.dedup.compare import run as compare_run
from tests.helpers import (
    contents,
    files_below,
    near_duplicates,
    read_folder,
    set_task_bytes,
    workflow,
    write_embeddings,
)


class Killed(BaseException):
    """The process of the run ends here."""


def killed(*given: object) -> None:
    raise Killed


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    ids, rows = near_duplicates(np.random.default_rng(5), 600, 8)
    bytes_of = [len(name) * i % 97 for i, name in enumerate(ids)]
    return write_embeddings(tmp_path_factory.mktemp("while") / "in", ids, rows, 4, n_bytes=bytes_of)


def forest(folder: Path) -> set[tuple[str, str, float]]:
    return {tuple(row) for path in (folder / "_forest").iterdir() for row in read_rows(path)}


def read_rows(path: Path) -> list[list[object]]:
    return [list(row.values()) for row in pq.read_table(path).to_pylist()]


def stages_alone(source: Path, out: Path, client: distributed.Client, **ranking: object) -> None:
    """The same result by two runs, of which the second reads what the first has written."""
    common = {"output_path": str(out), "verbose": False}
    columns = ["n_bytes"] if ranking else []
    KMeansStage(12, input_path=str(source), max_iter=5, metadata_fields=columns, folder="kmeans_results", **common).run(
        client
    )
    PairwiseStage(input_path=str(out / "kmeans_results"), folder="pairwise_results", eps=0.01, **ranking, **common).run(
        client
    )


@pytest.mark.parametrize("ranking", [{}, {"ranking_strategy": RankingStrategy(["n_bytes"], [False])}])
def test_scores_and_forests_are_those_of_a_comparison_that_reads_the_clusters(
    inside: distributed.Client,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ranking: dict[str, object],
) -> None:
    set_task_bytes(monkeypatch, 12_000)  # some clusters are larger, and cut
    workflow(source, tmp_path / "out", n_clusters=12, **ranking).run(inside)
    stages_alone(source, tmp_path / "alone", inside, **ranking)
    scores = [contents(tmp_path / name / "pairwise_results") for name in ("out", "alone")]
    assert scores[0] == scores[1]
    assert forest(tmp_path / "out") == forest(tmp_path / "alone")
    assert not any("scored-" in name for name in files_below(tmp_path / "out"))


def test_nothing_is_read_that_was_scored_as_it_was_written(
    inside: distributed.Client, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[object] = []
    monkeypatch.setattr(compare_run, "score_group", lambda task, group: compared.append(group))
    result = workflow(source, tmp_path / "out", n_clusters=12).run(inside)
    assert not compared
    assert len(read_folder(tmp_path / "out" / "pairwise_results")) == result.total == 600


def test_a_run_that_ends_between_the_steps_scores_what_it_finds_written(
    inside: distributed.Client, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = workflow(source, tmp_path / "out", n_clusters=12)
    with monkeypatch.context() as patch:
        patch.setattr(PairwiseStage, "work", killed)
        with pytest.raises(Killed):
            made.run(inside)
    again = workflow(source, tmp_path / "out", n_clusters=12).run(inside)
    assert "compare" in again.metadata["step_seconds"]
    workflow(source, tmp_path / "whole", n_clusters=12).run(inside)
    scores = [contents(tmp_path / name / "pairwise_results") for name in ("out", "whole")]
    assert scores[0] == scores[1]
    assert forest(tmp_path / "out") == forest(tmp_path / "whole")
    assert not any("scored-" in name for name in files_below(tmp_path / "out"))


def test_a_run_that_ends_after_it_took_the_scores_over_goes_on_with_them(
    inside: distributed.Client, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(compare_run, "scored_while_written", killed)
        with pytest.raises(Killed):
            workflow(source, tmp_path / "out", n_clusters=12).run(inside)
    monkeypatch.setattr(compare_run, "score_group", lambda *given: pytest.fail("is scored already"))
    again = workflow(source, tmp_path / "out", n_clusters=12).run(inside)
    assert len(read_folder(tmp_path / "out" / "pairwise_results")) == again.total == 600


def test_what_is_written_is_not_scored_where_pairs_across_clusters_are_asked_for(
    inside: distributed.Client, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semdedup.dedup.compare.stage.plan_scoring", lambda *given: pytest.fail("is planned"))
    workflow(source, tmp_path / "out", n_clusters=12, exact_up_to=0.05).run(inside)
