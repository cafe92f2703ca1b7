"""The rows of a folder of embeddings that no result of a chain has."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from semdedup.compute.session import Session
from semdedup.dedup.base import new_rows
from semdedup.dedup.base.chain import chain_of
from semdedup.dedup.base.folders import results_in
from semdedup.runs.owner import owned
from semdedup.runs.record import Record
from semdedup.runs.step import run_step
from semdedup.storage.location import Location
from tests.helpers import assert_nothing_left, contents, workflow, write_embeddings

KINDS = {"text": lambda i: f"clip-{i:04d}", "numbers": lambda i: 7 * i}


def rows_of(n: int) -> np.ndarray:
    rows = np.random.default_rng(3).normal(size=(n, 6)).astype(np.float32)
    rows[::17] = 0  # cannot be compared
    return rows


def select(
    session: Session,
    embeddings: Path,
    root: Path,
    base: Path | None,
    left_out: Sequence[new_rows.LeftOut] = (),
    others: Sequence[Path] = (),
) -> dict[str, Any]:
    links, folder = () if base is None else chain_of(Location.of(base)), Location.of(root)
    source = new_rows.Embeddings(Location.of(embeddings), tuple(map(Location.of, others)))
    step = new_rows.selection(folder, source, links, left_out)
    with owned(folder) as ownership:
        work = new_rows.select_new_rows(source, links, left_out)
        outcome = run_step(step, work, session, ownership)
    return dict(outcome.facts)


def ids_selected(root: Path) -> list[Any]:
    files = sorted((root / "_input").glob("*.parquet"))
    return pa.concat_tables(pq.read_table(file) for file in files)["id"].to_pylist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("per_range", [1 << 21, 16])
def test_they_are_those_of_no_result_whatever_became_of_the_others(
    kind: str, per_range: int, session: Session, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(new_rows, "IDS_PER_RANGE", per_range)
    ids, rows = [KINDS[kind](i) for i in range(200)], rows_of(200)
    steps = [np.arange(0, 200, 3), np.arange(1, 200, 3), np.arange(200)]
    names = ["a.parquet", "b.parquet"]
    for number, chosen in enumerate(steps[:2]):
        source = write_embeddings(tmp_path / f"in-{number}", [ids[i] for i in chosen], rows[chosen], 2, names=names)
        base = {"base": str(tmp_path / "dedup-0")} if number else {"n_clusters": 2, "max_iter": 5}
        given = {"n_clusters": "auto", "max_iter": 300, **base, "eps": 0.4}
        found = workflow(source, tmp_path / f"dedup-{number}", **given).run(client)
        assert found.n_quarantined
        assert found.duplicates
    source = write_embeddings(tmp_path / "all", ids, rows, 3)
    schema = pq.read_schema(source / "part-0.parquet").with_metadata({"who": "me"})
    for file in source.glob("*.parquet"):
        pq.write_table(pq.read_table(file).cast(schema), file)
    facts = select(session, source, tmp_path / "next", tmp_path / "dedup-1")
    table = pa.concat_tables(pq.read_table(file) for file in sorted((tmp_path / "next" / "_input").glob("*.parquet")))
    expected = [i for i in range(200) if i % 3 == 2]
    assert facts == {"rows": len(expected)}
    assert table["id"].to_pylist() == [ids[i] for i in expected], "in their order"
    np.testing.assert_array_equal(np.array(table["embedding"].to_pylist(), dtype=np.float32), rows[expected])
    assert pq.read_schema(tmp_path / "next" / "_input" / "part-0.parquet").metadata[b"who"] == b"me"

    pq.write_table(pa.table({"id": pa.array([ids[2], ids[5], ids[0]])}), tmp_path / "gone.parquet")
    gone = Location.of(tmp_path / "gone.parquet").info()
    left_out = [new_rows.LeftOut(3, [gone], Location.of(tmp_path), "digest", is_first=True)]
    select(session, source, tmp_path / "less", tmp_path / "dedup-1", left_out)
    assert ids_selected(tmp_path / "less") == [ids[i] for i in expected if i not in (2, 5)]
    select(session, source, tmp_path / "first", None, left_out)
    assert ids_selected(tmp_path / "first") == [row for i, row in enumerate(ids) if i not in (0, 2, 5)]

    names = [f"{letter}.parquet" for letter in "abc"]
    both = [write_embeddings(tmp_path / f"by-{n}", ids[n::n], rows[n::n], n, names=names[:n]) for n in (2, 3)]
    select(session, source, tmp_path / "of-all", None, left_out, both)
    expected = [row for i, row in enumerate(ids) if i and i % 6 == 0]
    assert ids_selected(tmp_path / "of-all") == expected, "those that all other embedders have"

    again = contents(tmp_path / "next")
    select(session, source, tmp_path / "other", tmp_path / "dedup-1")
    assert contents(tmp_path / "other") == again
    with owned(Location.of(tmp_path / "next")) as ownership:
        new_rows.forget_selected(Location.of(tmp_path / "next"), ownership.token)
    assert [path.name for path in (tmp_path / "next").iterdir()] == ["_manifest.json"]
    assert Record(Location.of(tmp_path / "next")).committed(new_rows.SELECT) is not None


def test_where_there_are_none_nothing_is_written(session: Session, client: Any, tmp_path: Path) -> None:
    source = write_embeddings(tmp_path / "in", [f"{i}" for i in range(40)], rows_of(40))
    workflow(source, tmp_path / "dedup", n_clusters=1).run(client)
    with pytest.raises(new_rows.NothingNewError, match="every row of"):
        select(session, source, tmp_path / "next", tmp_path / "dedup")
    assert not (tmp_path / "next").exists()
    (tmp_path / "there").mkdir()
    with pytest.raises(new_rows.NothingNewError):
        select(session, source, tmp_path / "there", tmp_path / "dedup")
    assert_nothing_left(tmp_path / "there")
    assert results_in(Location.of(tmp_path)) == (Location.of(tmp_path / "dedup"),)
    assert results_in(Location.of(tmp_path / "in")) == (Location.of(tmp_path / "in"),)
