"""Exports: what remains of a result, each row once, in formats that others read."""

import json
import os
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import semdedup
from semdedup import BadFileError, InputError, OutputConflictError, ParameterError
from semdedup.cli import main
from semdedup.exports import rows as rows_module
from tests.helpers import NOWHERE, embedding_table, files_below, near_duplicates, read_answer, workflow
from tests.shards import make_clips

EPS = 0.01


class Made:
    """An input of two files with other columns, a zero vector and a null id; and the result of its dedup."""

    def __init__(self, place: Path, client: distributed.Client) -> None:
        ids, vectors = near_duplicates(np.random.default_rng(2), 60)
        vectors[5] = 0
        self.ids: list[str | None] = [*ids[:-1], None]
        table = embedding_table(self.ids, vectors, note=pa.array([f"note {i}" for i in range(60)]))
        (place / "in").mkdir()
        pq.write_table(table.slice(0, 30), place / "in" / "a.parquet")
        more = table.slice(30).append_column("only_here", pa.array(range(30)))
        pq.write_table(more, place / "in" / "b.parquet")
        self.place, self.source, self.out = place, str(place / "in"), str(place / "out")
        self.result = workflow(self.source, self.out, eps=EPS).run(client)
        self.duplicates = set(read_answer(place / "out")[1])
        self.kept = [i for i in self.ids if i not in self.duplicates | {ids[5], None}]


@pytest.fixture(scope="module")
def made(inside: distributed.Client, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("made"), inside)


def read_rows(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted(folder.glob("*.parquet"))])


def exported(made: Made, out: Path, **options: Any) -> semdedup.Export:
    given = {"input_embeddings_path": made.source, "verbose": False, **options}
    return semdedup.export(made.out, str(out), **given)


@pytest.mark.parametrize("file_bytes", [1 << 30, 1])
def test_each_row_that_stays_is_there_once_with_all_its_columns(
    file_bytes: int, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "FILE_BYTES", file_bytes)
    found = exported(made, tmp_path / "kept", format="parquet")
    table = read_rows(tmp_path / "kept")
    assert table["id"].to_pylist() == made.kept
    assert table.column_names == ["id", "embedding", "note", "only_here"]
    assert table["note"].to_pylist() == [f"note {made.ids.index(i)}" for i in made.kept]
    assert table["only_here"].null_count == sum(made.ids.index(i) < 30 for i in made.kept)
    n_files = len(list((tmp_path / "kept").glob("part-*.parquet")))
    assert n_files == (1 if file_bytes > 1 else 2)
    assert dict(found.counts) == {
        "rows": 60,
        "kept": len(made.kept),
        "duplicates": len(made.duplicates),
        "quarantined": 2,
    }
    assert found.counts["kept"] == made.result.kept


@pytest.mark.parametrize("filetype", ["parquet", "jsonl"])
def test_rows_whose_ids_were_made_are_found_in_any_type_of_file(
    filetype: str, inside: distributed.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semdedup.dedup.input.jsonl.BLOCK_BYTES", 1000)
    ids, vectors = near_duplicates(np.random.default_rng(2), 60)
    (tmp_path / "in").mkdir()
    for name, some in {"a": slice(0, 30), "b": slice(30, 60)}.items():
        table = embedding_table(ids[some], vectors[some]).rename_columns(["name", "embedding"])
        if filetype == "parquet":
            pq.write_table(table, tmp_path / "in" / f"{name}.parquet")
        else:
            lines = [json.dumps(row | ({"only": 1} if i > 20 else {})) for i, row in enumerate(table.to_pylist())]
            (tmp_path / "in" / f"{name}.jsonl").write_text("\n".join(lines))
    options = {"eps": EPS, "id_field": None, "input_filetype": filetype}
    workflow(tmp_path / "in", tmp_path / "out", **options).run(inside)
    gone = {f"{row_id}" for row_id in read_answer(tmp_path / "out")[1]}
    (tmp_path / "in").rename(tmp_path / "elsewhere")
    source = str(tmp_path / "elsewhere")
    found = semdedup.export(
        str(tmp_path / "out"), str(tmp_path / "x"), format="parquet", input_embeddings_path=source, verbose=False
    )
    made = [f"{name}.{filetype}:{row}" for name in "ab" for row in range(30)]
    kept = [row_id for row_id, its in zip(ids, made, strict=True) if its not in gone]
    assert 0 < len(kept) == found.counts["kept"] < 60
    table = read_rows(tmp_path / "x")
    assert table["name"].to_pylist() == kept
    assert set(table.column_names) == {"name", "embedding"} | ({"only"} if filetype == "jsonl" else set())
    with pytest.raises(ParameterError, match=r"clips_path goes by ids, which .* had none of \(id_field=None\)"):
        semdedup.export(
            str(tmp_path / "out"), str(tmp_path / "y"), input_embeddings_path=source, clips_path=source, verbose=False
        )


def test_types_and_keys_that_a_dedup_brings_together_are_exported_together(
    inside: distributed.Client, tmp_path: Path
) -> None:
    _, vectors = near_duplicates(np.random.default_rng(2), 60)
    uuids = pa.array([bytes([i]) * 16 for i in range(30)], pa.uuid())
    halves = [
        {"id": uuids, "c": pa.array(["x"] * 30).dictionary_encode(), "d": pa.array(["y"] * 30).dictionary_encode()},
        {"id": [f"b{i}" for i in range(30)], "c": ["z"] * 30, "d": pa.array(["v"] * 30).dictionary_encode()},
    ]
    for year, (half, some) in enumerate(zip(halves, (vectors[:30], vectors[30:]), strict=True), 2020):
        table = embedding_table(half["id"], some, **{name: half[name] for name in "cd"})
        (tmp_path / "in" / f"year={year}").mkdir(parents=True)
        pq.write_table(table, tmp_path / "in" / f"year={year}" / "a.parquet")
    source = str(tmp_path / "in")
    made = workflow(source, tmp_path / "out", eps=EPS, metadata_fields=["year"])
    made.run(inside)

    def export(**options: Any) -> semdedup.Export:
        given = {"format": "parquet", "input_embeddings_path": source, "verbose": False, **options}
        return semdedup.export(str(tmp_path / "out"), str(tmp_path / "in" / "kept"), **given)

    export()
    table = read_rows(tmp_path / "in" / "kept")
    assert table.schema.types[2:] == [
        pa.string(),
        pq.read_schema(tmp_path / "in/year=2020/a.parquet").types[3],
        pa.int64(),
    ]
    assert set(zip(table["c"].to_pylist(), table["d"].to_pylist(), table["year"].to_pylist(), strict=True)) == {
        ("x", "y", 2020),
        ("z", "v", 2021),
    }
    ids = table["id"].to_pylist()
    assert set(ids).isdisjoint(read_answer(tmp_path / "out")[1])
    assert len(ids) == 60 - len(read_answer(tmp_path / "out")[1])
    made.run(NOWHERE)  # the export is no input
    pq.write_table(embedding_table([1], vectors[:1], c=pa.array([7])), tmp_path / "in" / "n.parquet")
    with pytest.raises(BadFileError, match=r"'id' is int64 in .*n\.parquet but extension<arrow\.uuid> in .*one type"):
        export(clear_output=True)


def test_hugging_face_reads_the_folder(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported(made, tmp_path / "hf")
    assert {name for name in files_below(tmp_path / "hf") if not name.startswith("_")} == {
        "README.md",
        "data/train-00000.parquet",
    }
    card = (tmp_path / "hf" / "README.md").read_text()
    assert f"{len(made.kept)} of 60 rows" in card
    assert f"without {len(made.duplicates)} duplicates, 2 quarantined (eps 0.01, removal any)" in card
    datasets = load_datasets(tmp_path, monkeypatch)
    found = datasets.load_dataset(str(tmp_path / "hf"), split="train")
    assert found["id"][:] == made.kept
    assert len(found["embedding"][0]) == 6


def load_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package, which asks nobody and keeps what it makes in the folder of the test."""
    datasets = pytest.importorskip("datasets", reason="no package datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return datasets


def test_clips_become_a_data_set_of_videos(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_clips(tmp_path / "clips", [i for i in made.ids if i is not None])
    exported(made, tmp_path / "videos", clips_path=str(tmp_path / "clips"))
    train = tmp_path / "videos" / "train"
    table = pq.read_table(train / "metadata.parquet")
    assert table["id"].to_pylist() == made.kept
    assert table.column_names == ["file_name", "id", "embedding", "note", "only_here"]
    names = table["file_name"].to_pylist()
    assert sorted(names) == [name for name in files_below(train) if name != "metadata.parquet"]
    for row_id, name in zip(made.kept, names, strict=True):
        (source,) = (tmp_path / "clips").rglob(f"{row_id}.mp4")
        assert (train / name).read_bytes() == source.read_bytes()
    (next((tmp_path / "clips").rglob(f"{made.kept[0]}.mp4"))).unlink()
    with pytest.raises(InputError, match=f"1 rows that stay have no clip in .*, such as '{made.kept[0]}'"):
        exported(made, tmp_path / "none", clips_path=str(tmp_path / "clips"))
    assert files_below(tmp_path / "none") == []
    datasets = load_datasets(tmp_path, monkeypatch)
    videos = datasets.load_dataset(str(tmp_path / "videos"), split="train").cast_column(
        "video", datasets.Video(decode=False)
    )
    assert sorted(videos["id"][:]) == sorted(made.kept)
    assert os.path.basename(videos[0]["video"]["path"]) == f"{videos[0]['id']}.mp4"


def test_scores_and_ids_to_keep_as_lance_and_embeddings_of_lance(
    made: Made, inside: distributed.Client, tmp_path: Path
) -> None:
    lance = pytest.importorskip("lance", reason="Lance is not tested: no pylance")
    source = str(tmp_path / "emb.lance")
    lance.write_dataset(pq.read_table(made.source), source)
    workflow(source, tmp_path / "out", eps=EPS).run(inside)
    found = semdedup.export(str(tmp_path / "out"), str(tmp_path / "lance"), format="lance", verbose=False)
    scores = lance.dataset(str(tmp_path / "lance" / "scores.lance")).to_table().to_pandas()
    keep = lance.dataset(str(tmp_path / "lance" / "keep.lance")).to_table()["id"].to_pylist()
    assert sorted(keep) == sorted(made.kept)
    assert list(scores.columns) == ["id", "max_id", "cosine_sim_score", "duplicate"]
    assert set(scores["id"][scores["duplicate"]]) == made.duplicates
    assert len(scores) == 58
    expected = read_answer(Path(made.out))[0]
    assert scores.drop(columns="duplicate").sort_values("id", ignore_index=True).equals(expected)
    assert (found.counts["rows"], found.counts["kept"]) == (58, len(keep))
    kept = semdedup.export(
        str(tmp_path / "out"), str(tmp_path / "kept"), input_embeddings_path=source, format="parquet", verbose=False
    )
    assert kept.counts["kept"] == len(keep)


@pytest.mark.parametrize("removal", ["any", "witness", "components"])
def test_another_eps_or_rule_gives_what_extract_gives(
    removal: Any, made: Made, inside: distributed.Client, tmp_path: Path
) -> None:
    found = exported(made, tmp_path / "kept", eps=0.1, removal=removal, format="parquet")
    written = semdedup.extract(made.out, 0.1, str(tmp_path / "extract"), removal=removal, client=inside, verbose=False)
    ids = pq.read_table(written.paths["ids to keep"])["id"].to_pylist()
    assert sorted(read_rows(tmp_path / "kept")["id"].to_pylist()) == sorted(ids)
    assert (found.eps, found.removal) == (0.1, removal)
    of_extract = semdedup.export(
        str(tmp_path / "extract"),
        str(tmp_path / "again"),
        format="parquet",
        input_embeddings_path=made.source,
        verbose=False,
    )
    assert sorted(read_rows(tmp_path / "again")["id"].to_pylist()) != []
    assert of_extract.counts["duplicates"] == written.duplicates


def test_a_result_and_its_update_are_exported_together(made: Made, inside: distributed.Client, tmp_path: Path) -> None:
    known = [made.kept[0], made.kept[1]]
    _, vectors = near_duplicates(np.random.default_rng(7), 12)
    vectors[0] = pq.read_table(made.source, filters=[("id", "==", known[0])])["embedding"].to_pylist()[0]
    new = [f"new-{i}" for i in range(12)]
    pq.write_table(embedding_table(new, vectors), tmp_path / "new.parquet")
    update = semdedup.SemanticDeduplicationWorkflow(
        str(tmp_path / "new.parquet"), str(tmp_path / "out"), base=made.out, withdraw=[known[1]], verbose=False
    ).run(inside)
    both = [made.source, str(tmp_path / "new.parquet")]
    found = semdedup.export(
        str(tmp_path / "out"), str(tmp_path / "kept"), input_embeddings_path=both, format="parquet", verbose=False
    )
    kept = read_rows(tmp_path / "kept")["id"].to_pylist()
    dropped = set(read_answer(tmp_path / "out")[1])
    assert "new-0" in dropped
    assert sorted(kept) == sorted([*(i for i in made.kept if i != known[1]), *(i for i in new if i not in dropped)])
    assert found.counts["withdrawn"] == 1
    assert update.kept == 12 - len(dropped)


def test_an_input_of_another_result_is_refused_and_leaves_nothing(made: Made, tmp_path: Path) -> None:
    one = str(tmp_path / "one.parquet")
    pq.write_table(pq.read_table(f"{made.source}/a.parquet"), one)
    with pytest.raises(InputError, match=r"the input is not the one that .* is of"):
        exported(made, tmp_path / "kept", input_embeddings_path=one)
    more = pq.read_table(f"{made.source}/a.parquet").slice(0, 1)
    more = more.set_column(0, "id", pa.array(["of nobody"]))
    pq.write_table(more, tmp_path / "more.parquet")
    with pytest.raises(InputError, match=rf"keeps {len(made.kept)} rows, and {len(made.kept) + 1} of the input"):
        exported(made, tmp_path / "kept", input_embeddings_path=[made.source, str(tmp_path / "more.parquet")])
    with pytest.raises(InputError, match="has no column 'key'; it has id, embedding"):
        exported(made, tmp_path / "kept", id_field="key")
    assert files_below(tmp_path / "kept") == []


def test_a_folder_that_is_not_empty_is_refused_and_an_export_is_made_anew_where_that_is_asked_for(
    made: Made, tmp_path: Path
) -> None:
    exported(made, tmp_path / "kept")
    with pytest.raises(OutputConflictError, match="holds an export already"):
        exported(made, tmp_path / "kept", format="parquet")
    exported(made, tmp_path / "kept", format="parquet", clear_output=True)
    assert files_below(tmp_path / "kept") == ["_export.json", "part-00000.parquet"]
    (tmp_path / "kept" / "mine.txt").write_text("mine")
    with pytest.raises(OutputConflictError, match=r"1 files that no export wrote: mine\.txt"):
        exported(made, tmp_path / "kept", clear_output=True)
    (tmp_path / "kept" / "mine.txt").unlink()
    record = json.loads((tmp_path / "kept" / "_export.json").read_text())
    (tmp_path / "kept" / "_export.json").write_text(json.dumps({**record, "complete": False}))  # as if it was killed
    exported(made, tmp_path / "kept")
    assert (tmp_path / "kept" / "README.md").exists()
    assert not (tmp_path / "kept" / "part-00000.parquet").exists()


def test_a_record_that_names_what_no_export_writes_deletes_nothing(made: Made, tmp_path: Path) -> None:
    exported(made, tmp_path / "kept")
    (tmp_path / "kept" / "mine.txt").write_text("mine")
    for name in ("mine.txt", "data/mine.parquet", "../mine.txt"):
        record = {"complete": False, "files": [name]}
        (tmp_path / "kept" / "_export.json").write_text(json.dumps(record))
        with pytest.raises(OutputConflictError, match="which no export writes"):
            exported(made, tmp_path / "kept", clear_output=True)
    assert (tmp_path / "kept" / "mine.txt").read_text() == "mine"


def test_what_is_missing_is_asked_for_by_name(made: Made, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="--input-embeddings-path"):
        semdedup.export(made.out, str(tmp_path / "kept"), verbose=False)
    with pytest.raises(ParameterError, match="clips_path goes with format 'hf'"):
        exported(made, tmp_path / "kept", format="parquet", clips_path="clips")
    with pytest.raises(ParameterError, match="format must be one of hf, lance, parquet"):
        exported(made, tmp_path / "kept", format="csv")
    with pytest.raises(InputError, match="neither scores nor ids to drop"):
        semdedup.export(str(tmp_path), str(tmp_path / "kept"), input_embeddings_path=made.source, verbose=False)
    assert not (tmp_path / "kept").exists()


def test_the_command_tells_what_it_would_do_and_what_it_did(made: Made, tmp_path: Path) -> None:
    given = ["export", made.out, "--input-embeddings-path", made.source, "--output-path", str(tmp_path / "kept")]
    plan = CliRunner().invoke(main, [*given, "--dry-run"])
    assert plan.exit_code == 0, plan.output
    assert "input: 2 files" in plan.output
    assert not (tmp_path / "kept").exists()
    done = CliRunner().invoke(main, [*given, "--json", "--quiet"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["kept"] == len(made.kept)
