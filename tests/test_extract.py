"""`extract`: the ids to drop and to keep for any eps, from scores that exist."""

import itertools
from pathlib import Path

import distributed
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import semdedup
from semdedup import OutputConflictError, ParameterError, cli
from semdedup.dedup.threshold import run as identification
from tests.helpers import NOWHERE, contents, stamps


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """Scores of four clusters, in the layout of the command line, row groups of 100 rows."""
    root = tmp_path_factory.mktemp("scored")
    folder = root / "extraction" / "semdedup_pruning_tables"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    tables = []
    for cluster, n in enumerate((1000, 1, 0, 300)):
        ids = [f"{cluster}/{rng.integers(1 << 40):x}-{i}" for i in range(n)]
        scores = rng.choice(np.linspace(0, 1, 41), n).astype(np.float32)
        scores[:1] = 0
        table = pd.DataFrame({"id": ids, "max_id": ids[:1] * n, "cosine_sim_score": scores}).astype({"id": str})
        schema = pa.schema([("id", pa.string()), ("max_id", pa.string()), ("cosine_sim_score", pa.float32())])
        arrow = pa.Table.from_pandas(table, schema=schema, preserve_index=False)
        pq.write_table(arrow, folder / f"cluster_{cluster}.parquet", row_group_size=100)
        tables.append(table)
    return root, pd.concat(tables, ignore_index=True)


def read_ids(folder: Path) -> list[list[str]]:
    return [pq.read_table(path)["id"].to_pylist() for path in sorted(folder.glob("*.parquet"))]


@pytest.mark.parametrize("bytes_per_group", [1, 1 << 12, 1 << 24])
@pytest.mark.parametrize("eps", [0.0, 0.3, 0.999])
def test_every_id_is_to_drop_or_to_keep(
    eps: float,
    bytes_per_group: int,
    scored: tuple[Path, pd.DataFrame],
    client: distributed.Client,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(identification, "BYTES_PER_GROUP", bytes_per_group)
    root, rows = scored
    found = semdedup.extract(str(root), eps, str(tmp_path / "out"), client=client, verbose=False)
    dropped, kept = (read_ids(tmp_path / "out" / name) for name in ("duplicates", "kept"))
    expected = rows["cosine_sim_score"].astype(np.float32) >= np.float32(1 - eps)
    assert sorted(itertools.chain(*dropped)) == sorted(rows["id"][expected])
    assert sorted(itertools.chain(*kept)) == sorted(rows["id"][~expected])
    assert all(ids == sorted(ids) for ids in (*dropped, *kept))
    assert (found.total, found.duplicates, found.kept) == (len(rows), expected.sum(), (~expected).sum())
    summary = pd.read_csv(tmp_path / "out" / f"dedup_summary_{eps:.6g}.csv")
    assert summary.to_dict("records") == [
        {"eps": eps, "kept": found.kept, "removed": found.duplicates, "total": found.total}
    ]
    assert len(kept) > 1 if bytes_per_group == 1 else kept


@pytest.mark.parametrize("fraction", [0.9, 0.5, 0.1])
def test_a_target_fraction_chooses_the_eps(
    fraction: float, scored: tuple[Path, pd.DataFrame], client: distributed.Client, tmp_path: Path
) -> None:
    root, rows = scored
    found = semdedup.extract(
        str(root), target_fraction=fraction, output_path=str(tmp_path / "out"), client=client, verbose=False
    )
    assert found.kept / found.total <= fraction
    a_little_less = np.nextafter(np.float32(1 - found.eps), np.float32(2))
    assert (rows["cosine_sim_score"].astype(np.float32) < a_little_less).mean() > fraction


def test_a_second_run_does_nothing_and_another_eps_is_refused(
    scored: tuple[Path, pd.DataFrame], client: distributed.Client, tmp_path: Path
) -> None:
    root, _ = scored
    out = tmp_path / "out"
    semdedup.extract(str(root), 0.2, str(out), client=client, verbose=False)
    before = stamps(out)
    semdedup.extract(str(root), 0.2, str(out), verbose=False, client=NOWHERE)
    assert stamps(out) == before
    with pytest.raises(OutputConflictError, match=r"eps: 0\.2 there, 0\.3 now"):
        semdedup.extract(str(root), 0.3, str(out), client=client, verbose=False)
    semdedup.extract(str(root), 0.3, str(out), client=client, clear_output=True, verbose=False)
    semdedup.extract(str(root), 0.3, str(tmp_path / "fresh"), client=client, verbose=False)
    assert contents(out) == contents(tmp_path / "fresh")


@pytest.mark.parametrize("name", ["duplicates/theirs.parquet", "kept/theirs.parquet"])
def test_a_folder_with_tables_of_somebody_else_is_refused(
    name: str, scored: tuple[Path, pd.DataFrame], tmp_path: Path
) -> None:
    theirs = tmp_path / "out" / name
    theirs.parent.mkdir(parents=True)
    theirs.write_text("theirs")
    with pytest.raises(OutputConflictError, match=r"theirs\.parquet"):
        semdedup.extract(str(scored[0]), 0.2, str(tmp_path / "out"), client=NOWHERE, clear_output=True, verbose=False)
    assert theirs.read_text() == "theirs"


def test_one_of_the_two_is_needed(scored: tuple[Path, pd.DataFrame]) -> None:
    for given in ({}, {"eps": 0.1, "target_fraction": 0.5}):
        with pytest.raises(ParameterError, match="one of the two"):
            semdedup.extract(str(scored[0]), **given)  # type: ignore[arg-type]


def test_the_command_writes_beside_the_results_by_default(
    scored: tuple[Path, pd.DataFrame], client: distributed.Client
) -> None:
    root, rows = scored
    scheduler = ["--scheduler", str(client.scheduler.address), "--quiet"]
    planned = CliRunner().invoke(cli.main, ["extract", str(root), "--eps", "0.25", "--dry-run"])
    assert planned.exit_code == 0, planned.output
    assert not (root / "eps_0.25_any").exists()
    done = CliRunner().invoke(cli.main, ["extract", str(root), "--eps", "0.25", *scheduler])
    assert done.exit_code == 0, done.output
    n = int((rows["cosine_sim_score"].astype(np.float32) >= np.float32(0.75)).sum())
    assert f"{n:,} (" in done.output
    assert sum(map(len, read_ids(root / "eps_0.25_any" / "duplicates"))) == n
    wrong = CliRunner().invoke(cli.main, ["extract", str(root)])
    assert wrong.exit_code == 2
    assert "target_fraction" in wrong.output
