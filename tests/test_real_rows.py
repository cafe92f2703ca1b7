"""The whole dedup on known data, real embeddings and digits: every row, score and witness as brute force has it."""

from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pandas as pd
import pytest

from semdedup import SemanticDeduplicationWorkflow
from tests import reference
from tests.helpers import read_all_scores, read_folder, workflow, write_embeddings

pytestmark = pytest.mark.slow

EPS = {"text_rows": 0.1, "digit_rows": 0.02}
RULES = ("any", "witness", "components")


@pytest.fixture(scope="module", params=list(EPS))
def known(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """An input of real rows whose order says nothing, and an eps at which the rules differ on it."""
    rows = request.getfixturevalue(request.param)
    ids = [f"{i * 7919 % 10007:05d}" for i in range(len(rows))]
    return write_embeddings(tmp_path_factory.mktemp(request.param), ids, rows, n_files=3), EPS[request.param]


class Found:
    """A result beside brute force over the same rows in the order of its ranks, those that a base kept first."""

    def __init__(self, output: Path, base: Path | None = None) -> None:
        self.output = output
        self.ids, self.rows, self.clusters = reference.ranked(read_folder(output / "kmeans_results"))
        self.base = 0
        if base is not None:
            ids, rows, clusters = reference.ranked(read_folder(base / "kmeans_results"))
            kept = ~np.isin(ids, read_folder(base / "duplicates")["id"])
            self.base = int(kept.sum())
            self.ids = np.concatenate([ids[kept], self.ids])
            self.rows = np.concatenate([rows[kept], self.rows])
            self.clusters = np.concatenate([clusters[kept], self.clusters])

    def assert_scores(self, expected: reference.Scores) -> None:
        scores = pd.DataFrame({"id": self.ids, "max_id": self.ids[expected.match], "cosine_sim_score": expected.score})[
            self.base :
        ].sort_values("id", ignore_index=True)
        pd.testing.assert_frame_equal(read_all_scores(self.output), scores, check_exact=True, check_dtype=False)

    def assert_removal(self, expected: reference.Removal, witnesses: bool = True) -> None:
        gone = expected.removed
        assert len(gone)
        assert read_folder(self.output / "duplicates")["id"].tolist() == sorted(self.ids[gone])
        if witnesses:
            table = pd.DataFrame(
                {
                    "id": self.ids[gone],
                    "witness_id": self.ids[expected.witness[gone]],
                    "cosine_sim_score": expected.score[gone],
                }
            ).sort_values("id", ignore_index=True)
            found = read_folder(self.output / "witnesses")
            pd.testing.assert_frame_equal(found, table, check_exact=True, check_dtype=False)


def run(client: distributed.Client, known: tuple[Path, float], output: Path, **options: Any) -> Found:
    inputs, eps = known
    result = workflow(inputs, output, **{"eps": eps, "n_clusters": 40, **options}).run(client)
    assert result.kept + result.duplicates == result.total
    return Found(output)


@pytest.mark.parametrize("removal", RULES)
@pytest.mark.parametrize("n_clusters", [1, 40])
def test_inside_clusters(
    n_clusters: int, removal: str, known: tuple[Path, float], client: distributed.Client, tmp_path: Path
) -> None:
    found = run(client, known, tmp_path / "out", n_clusters=n_clusters, removal=removal)
    found.assert_scores(reference.scores(found.rows, found.clusters))
    found.assert_removal(reference.removal(found.rows, known[1], removal, found.clusters), removal != "any")


@pytest.mark.parametrize("removal", RULES)
def test_over_the_whole_input(
    removal: str, known: tuple[Path, float], client: distributed.Client, tmp_path: Path
) -> None:
    _, eps = known
    found = run(client, known, tmp_path / "out", removal=removal, exact_up_to=2 * eps)
    found.assert_scores(reference.scores(found.rows, found.clusters, exact_up_to=2 * eps))
    found.assert_removal(reference.removal(found.rows, eps, removal), removal != "any")


def test_what_clusters_hide_is_there(known: tuple[Path, float], client: distributed.Client, tmp_path: Path) -> None:
    """Else these rows would not tell the whole input from its clusters."""
    found = run(client, known, tmp_path / "out")
    inside = reference.removal(found.rows, known[1], clusters=found.clusters).removed
    assert len(inside) < len(reference.removal(found.rows, known[1]).removed)
    assert np.isin(inside, reference.removal(found.rows, known[1]).removed).all()


@pytest.fixture(scope="module")
def in_two(text_rows: np.ndarray, client: distributed.Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the result of most of the rows, ``base``, and the rest as ``new``."""
    folder = tmp_path_factory.mktemp("in-two")
    ids = [f"{i:05d}" for i in range(len(text_rows))]
    write_embeddings(folder / "old", ids[:2000], text_rows[:2000])
    write_embeddings(folder / "new", ids[2000:], text_rows[2000:])
    workflow(folder / "old", folder / "base", n_clusters=40, eps=0.1).run(client)
    return folder


@pytest.mark.parametrize("removal", RULES)
@pytest.mark.parametrize("exact_up_to", [None, 0.2])
def test_new_rows_on_a_base(
    exact_up_to: float | None, removal: str, in_two: Path, client: distributed.Client, tmp_path: Path
) -> None:
    options = {} if exact_up_to is None else {"exact_up_to": exact_up_to}
    SemanticDeduplicationWorkflow(
        str(in_two / "new"),
        str(tmp_path / "out"),
        eps=0.1,
        removal=removal,
        base=str(in_two / "base"),
        verbose=False,
        **options,
    ).run(client)
    found = Found(tmp_path / "out", in_two / "base")
    found.assert_scores(reference.scores(found.rows, found.clusters, exact_up_to, found.base))
    clusters = found.clusters if exact_up_to is None else None
    found.assert_removal(reference.removal(found.rows, 0.1, removal, clusters, found.base), removal != "any")
