"""The whole dedup on known data, real embeddings and digits: every row, score and witness as brute force has it."""

from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pandas as pd
import pytest

from tests import reference
from tests.helpers import read_all_scores, read_folder, workflow, write_embeddings

EPS = {"text_rows": 0.1, "digit_rows": 0.02}
CLUSTERS = (1, 40)


@pytest.fixture(scope="module", params=list(EPS))
def known(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """An input of real rows whose order says nothing, and an eps at which the rules differ on it."""
    rows = request.getfixturevalue(request.param)
    ids = [f"{i * 7919 % 10007:05d}" for i in range(len(rows))]
    return write_embeddings(tmp_path_factory.mktemp(request.param), ids, rows, n_files=3), EPS[request.param]


class Found:
    """A result beside brute force over the same rows in the order of its ranks."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.ids, self.rows, self.clusters = reference.ranked(read_folder(output / "kmeans_results"))

    def assert_scores(self, expected: reference.Scores) -> None:
        scores = pd.DataFrame(
            {"id": self.ids, "max_id": self.ids[expected.match], "cosine_sim_score": expected.score}
        ).sort_values("id", ignore_index=True)
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


@pytest.mark.parametrize("removal", ["any", "witness", "components"])
@pytest.mark.parametrize("n_clusters", CLUSTERS)
def test_inside_clusters(
    n_clusters: int, removal: str, known: tuple[Path, float], client: distributed.Client, tmp_path: Path
) -> None:
    found = run(client, known, tmp_path / "out", n_clusters=n_clusters, removal=removal)
    found.assert_scores(reference.scores(found.rows, found.clusters))
    found.assert_removal(reference.removal(found.rows, known[1], removal, found.clusters), removal != "any")


@pytest.mark.parametrize("removal", ["any", "witness", "components"])
@pytest.mark.parametrize("n_clusters", CLUSTERS)
def test_over_the_whole_input(
    n_clusters: int, removal: str, known: tuple[Path, float], client: distributed.Client, tmp_path: Path
) -> None:
    _, eps = known
    found = run(client, known, tmp_path / "out", n_clusters=n_clusters, removal=removal, exact_up_to=2 * eps)
    found.assert_scores(reference.scores(found.rows, found.clusters, exact_up_to=2 * eps))
    found.assert_removal(reference.removal(found.rows, eps, removal), removal != "any")


def test_the_number_of_clusters_does_not_change_what_goes_where_ranks_do_not_depend_on_it(
    known: tuple[Path, float], client: distributed.Client, tmp_path: Path
) -> None:
    gone = []
    for n_clusters in CLUSTERS:
        output = tmp_path / f"out-{n_clusters}"
        found = run(client, known, output, n_clusters=n_clusters, which_to_keep="random", exact_up_to=known[1])
        gone.append(read_folder(found.output / "duplicates")["id"].tolist())
    assert gone[0] == gone[1]


def test_what_clusters_hide_is_there(known: tuple[Path, float], client: distributed.Client, tmp_path: Path) -> None:
    """Else these rows would not tell the whole input from its clusters."""
    found = run(client, known, tmp_path / "out")
    inside = reference.removal(found.rows, known[1], clusters=found.clusters).removed
    assert len(inside) < len(reference.removal(found.rows, known[1]).removed)
    assert np.isin(inside, reference.removal(found.rows, known[1]).removed).all()
