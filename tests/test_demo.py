"""The demo: what it plants, it finds."""

from pathlib import Path

import pytest

from semdedup import ClusterOptions, InputError
from semdedup.demo import make_embeddings, run_demo


def test_the_demo_finds_what_it_planted_and_nothing_else_and_runs_again(tmp_path: Path) -> None:
    for _ in range(2):
        result = run_demo(str(tmp_path / "demo"), ClusterOptions(n_workers=2, backend="cpu"), verbose=False)
        assert result.run.total == 20_000
        assert result.planted == 2_000
        assert result.found >= 0.99 * result.planted  # a pair on the border of two clusters is not compared
        assert result.wrong == 0


def test_the_demo_writes_only_to_a_folder_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not the demo's"):
        run_demo(str(tmp_path), verbose=False)


def test_the_embeddings_are_the_same_every_time() -> None:
    table, pairs = make_embeddings()
    again, _ = make_embeddings()
    assert table.equals(again)
    ids = set(table.column("id").to_pylist())
    assert len(ids) == table.num_rows == 20_000
    assert all(original in ids and copy in ids for original, copy in pairs)
