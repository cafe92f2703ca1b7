"""Rows with more than an embedding: what they take is known before they are read, and bounds every task; and rows that
come in many small files."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semdedup import BadFileError
from semdedup.dedup.cluster import shuffle
from semdedup.dedup.cluster.plan import Plan
from semdedup.dedup.cluster.shuffle import uneven_bytes
from semdedup.dedup.compare import groups
from semdedup.dedup.input import columns, packed
from semdedup.dedup.input.columns import narrow, wide, wide_type
from semdedup.dedup.input.facts import Counted, FileFacts, Files, inspect_files
from semdedup.dedup.input.packed import Packing, pack_files
from semdedup.dedup.input.partitions import Slice, cut_partitions
from semdedup.dedup.input.scan import ID_HASH_SEED, SCANNED, Sampling, Workspace, scan_partition
from semdedup.dedup.input.schema import InputSchema, unify_schemas
from semdedup.dedup.input.usable import counted_of
from semdedup.dedup.options import InputOptions
from semdedup.dedup.sizes import held_bytes
from semdedup.storage.location import FileInfo, Location
from semdedup.storage.tables import BATCH_BYTES, one_batch
from tests.helpers import (
    assert_nothing_left,
    assert_same_answer,
    embedding_table,
    near_duplicates,
    read_answer,
    read_folder,
    set_task_bytes,
    workflow,
    write_embeddings,
)

# What a row takes

LONG = ["".join(map(chr, np.random.default_rng(i).integers(97, 123, 700))) for i in range(200)]
ONE = LONG[0]

COLUMNS: dict[str, tuple[Any, dict[str, Any], int]] = {
    "text": (LONG, {"use_dictionary": False}, 200 * 700),
    "text with a dictionary that spares nothing": (LONG, {}, 200 * 700),
    "one text again and again": ([ONE] * 5000, {}, 5000 * 700),
    "in many row groups": ([ONE] * 5000, {"row_group_size": 100}, 5000 * 700),
    "first nothing": ([""] * 500 + [ONE] * 4500, {}, 4500 * 700),
    "first different texts": (LONG + [ONE] * 4800, {"dictionary_pagesize_limit": 1000}, 5000 * 700),
    "at last different texts": ([ONE] * 4800 + LONG, {"dictionary_pagesize_limit": 1000}, 5000 * 700),
    "prefixes": (
        [f"{ONE}{i:04d}" for i in range(5000)],
        {"use_dictionary": False, "column_encoding": {"x": "DELTA_BYTE_ARRAY"}},
        5000 * 704,
    ),
    "lists of text": ([[ONE, ONE]] * 2500, {}, 5000 * 700),
    "structs": ([{"a": ONE, "b": 1}] * 2500, {}, 2500 * 708),
    "dictionaries": (pa.array([ONE] * 5000).dictionary_encode(), {}, 5000 * 700),
    "bytes": ([b"x" * 700] * 5000, {}, 5000 * 700),
    "bytes of one size": (pa.array([b"x" * 700] * 5000, pa.binary(700)), {}, 5000 * 700),
    "numbers": ([7] * 5000, {}, 5000 * 8),
    "nothing": (pa.nulls(5000), {}, 0),
    "a few rows": (LONG[:3], {}, 3 * 700),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_what_a_column_takes_decoded_is_known_from_its_file(tmp_path: Path, name: str) -> None:
    values, options, expected = COLUMNS[name]
    pq.write_table(pa.table({"x": values}), tmp_path / "a.parquet", **options)
    files = [(Location.of(tmp_path / "a.parquet"), "a")]
    ((file,), _) = inspect_files(Counted("embedding", ("x",)), False, files)
    assert expected <= file.other_bytes <= 1.01 * expected + 2 * 8 * file.n_rows + 32


def test_columns_that_are_not_read_do_not_count(tmp_path: Path) -> None:
    pq.write_table(embedding_table(range(200), np.ones((200, 4)), caption=LONG), tmp_path / "a.parquet")
    files = [(Location.of(tmp_path / "a.parquet"), "a")]
    with_caption, without = (
        inspect_files(counted_of(InputOptions(metadata_fields=fields)), False, files)[0][0]
        for fields in (("caption",), None)
    )
    assert with_caption.n_bytes - without.n_bytes == pytest.approx(200 * 700, rel=0.05)
    assert without.n_bytes == pytest.approx(held_bytes(200, 200 * 4, 200 * 8))


def test_text_that_repeats_is_decoded_a_few_rows_at_a_time(tmp_path: Path) -> None:
    text = ONE * 20
    pq.write_table(embedding_table(range(5000), np.ones((5000, 2)), caption=[text] * 5000), tmp_path / "a.parquet")
    options = InputOptions(metadata_fields=("caption",))
    file = Location.of(tmp_path / "a.parquet")
    facts, _ = inspect_files(counted_of(options), False, [(file, "a")])
    ((piece,),) = cut_partitions(facts, 1 << 30, None)
    tables = list(unify_schemas(facts, options).read(file, piece, {}))
    assert sum(map(len, tables)) == 5000
    assert max(table.nbytes for table in tables) <= BATCH_BYTES


def test_rows_are_weighed_by_their_text_where_they_have_any() -> None:
    texts = ["", "a" * 50, None]
    table = pa.table({"id": ["x", "y", "z"], "n": [1, 2, 3], "caption": pa.array(texts, pa.large_string())})
    assert uneven_bytes(table.select(["id", "n"])) is None
    found = uneven_bytes(table)
    assert found is not None
    assert found.tolist() == [0, 50, 0]


# Text of more than 32-bit offsets can tell

TEXTS = st.lists(st.none() | st.text(max_size=30), max_size=40)
KINDS = [pa.string(), pa.binary(), pa.list_(pa.string()), pa.struct([("a", pa.string()), ("b", pa.list_(pa.binary()))])]


@given(texts=TEXTS, kind=st.sampled_from(KINDS), start=st.integers(0, 10))
def test_wide_columns_are_written_in_arrays_that_narrow_offsets_can_tell(
    texts: list[str | None], kind: pa.DataType, start: int
) -> None:
    def value(text: str | None) -> Any:
        as_bytes = None if text is None else text.encode()
        if text is None or kind == pa.string():
            return text
        by_kind = {pa.binary(): as_bytes, pa.list_(pa.string()): [text, None]}
        return by_kind.get(kind, {"a": text, "b": [as_bytes]})

    column = pa.chunked_array([pa.array([value(text) for text in texts], kind)])
    found = wide(pa.table({"x": column})).column("x")
    assert found.type == wide_type(kind) != kind
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "TEXT_BYTES", 60)
        again = narrow(found.slice(start), kind)
    assert again.to_pylist() == column.slice(start).to_pylist()
    assert all(chunk.nbytes <= 60 or len(chunk) == 1 for chunk in again.chunks if chunk.get_total_buffer_size() > 60)


def test_a_table_of_several_chunks_is_no_batch() -> None:
    table = pa.table({"x": pa.chunked_array([[1], [2]])})
    with pytest.raises(ValueError, match="rows would be lost"):
        one_batch(table)


def test_a_cluster_whose_text_needs_several_arrays_is_written_whole(
    inside: distributed.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    ids, rows = near_duplicates(rng)
    captions = [f"a caption of {name} {'.' * (i % 90)}" for i, name in enumerate(ids)]
    write_embeddings(tmp_path / "in", ids, rows, 3, caption=captions, tags=[[name] * 2 for name in ids])
    monkeypatch.setattr(columns, "TEXT_BYTES", 500)
    set_task_bytes(monkeypatch, 6000)
    options = {"metadata_fields": ["caption", "tags"]}
    workflow(tmp_path / "in", tmp_path / "out", **options).run(inside)
    found = read_folder(tmp_path / "out" / "kmeans_results")
    assert dict(zip(found["id"], found["caption"], strict=True)) == dict(zip(ids, captions, strict=True))
    assert all(list(tags) == [name] * 2 for name, tags in zip(found["id"], found["tags"], strict=True))
    file = next((tmp_path / "out" / "kmeans_results").rglob("*.parquet"))
    assert pq.read_schema(file).field("caption").type == pa.string()


# What the scan reads


def damage_column(path: Path, name: str) -> None:
    """Overwrite the pages of one column, whose checksums tell it."""
    group = pq.read_metadata(path).row_group(0)
    column = next(group.column(i) for i in range(group.num_columns) if group.column(i).path_in_schema == name)
    content = bytearray(path.read_bytes())
    middle = column.data_page_offset + column.total_compressed_size // 2
    content[middle : middle + 8] = bytes(8)
    path.write_bytes(bytes(content))


@pytest.fixture
def with_a_damaged_caption(tmp_path: Path, rng: np.random.Generator) -> Path:
    ids, rows = near_duplicates(rng, 60)
    for i in range(3):
        part = slice(20 * i, 20 * i + 20)
        captions = [f"{name} {ONE}" for name in ids[part]]
        (tmp_path / "in").mkdir(exist_ok=True)
        pq.write_table(
            embedding_table(ids[part], rows[part], caption=captions),
            tmp_path / "in" / f"part-{i}.parquet",
            write_page_checksum=True,
            use_dictionary=False,
        )
    damage_column(tmp_path / "in" / "part-1.parquet", "caption")
    return tmp_path / "in"


def test_the_scan_leaves_metadata_unread_unless_files_are_to_be_skipped(with_a_damaged_caption: Path) -> None:
    file = with_a_damaged_caption / "part-1.parquet"
    schema = InputSchema(InputOptions(metadata_fields=("caption",)), pa.string(), pa.schema([("caption", pa.string())]))
    place = Location.of(with_a_damaged_caption)
    work = Workspace(schema, place, place / "scratch", {})
    item = (0, (Slice(str(file), "the source", 0, 20),))
    sampling = Sampling(ID_HASH_SEED, 1)
    found = scan_partition(work, sampling, False, item)
    assert (found["rows"], found["bad"]) == (20, [])
    assert [source for source, _ in scan_partition(work, sampling, True, item)["bad"]] == ["the source"]
    (rows,) = work.read(item[1], SCANNED)
    assert rows.table.column_names == ["id", "embedding"]


def test_damage_in_metadata_refuses_the_run_or_skips_the_file(
    with_a_damaged_caption: Path, inside: distributed.Client, tmp_path: Path
) -> None:
    options = {"metadata_fields": ["caption"]}
    with pytest.raises(BadFileError, match=r"part-1\.parquet cannot be read"):
        workflow(with_a_damaged_caption, tmp_path / "out", **options).run(inside)
    assert_nothing_left(tmp_path / "out")
    result = workflow(with_a_damaged_caption, tmp_path / "out", skip_bad_files=True, **options).run(inside)
    assert (result.total, len(result.skipped_files)) == (40, 1)


# Plans


def test_a_partition_of_many_small_files_takes_few_bytes_in_the_plan(tmp_path: Path) -> None:
    files = [FileInfo(f"/in/{i:05d}.parquet", 700, 0) for i in range(2000)]
    slices = tuple(Slice("/out/scratch/packed/0-0.parquet", file.url, 5 * i, 5 * i + 5, -5 * i, 130)
                   for i, file in enumerate(files))  # fmt: skip
    uneven = (Slice(files[0].url, files[0].url, 3, 9, 0, 17), Slice(files[7].url, files[7].url, 0, 2, 0, 17))
    schema = InputSchema(InputOptions(), pa.string(), pa.schema([]))
    plan = Plan(schema, (slices, uneven, uneven[:1]), 10_010, 1 << 20, ("why",), 3, other_bytes=7.5, most_bytes=9)
    text = json.dumps(plan.to_json(files, Location.of("/out/scratch")), sort_keys=True)
    assert len(text) < 25 * len(files)
    again = Plan.from_json(InputOptions(), json.loads(text), files, Location.of("/out/scratch"))
    assert again is not None
    assert again.partitions == plan.partitions
    assert (again.skipped, again.other_bytes, again.most_bytes) == (("why",), 7.5, 9)


def test_a_plan_of_another_version_is_made_anew() -> None:
    assert (
        Plan.from_json(InputOptions(), {"partitions": [[[0, "", 0, 5, 0]]], "n_rows": 5}, [], Location.of("/")) is None
    )


class Killed(Exception):
    pass


def failing(function: Callable[..., Any], after: int) -> Callable[..., Any]:
    """The function, which raises `Killed` from this call on."""
    calls = iter(range(after))

    def call(*args: Any, **kwargs: Any) -> Any:
        if next(calls, None) is None:
            raise Killed
        return function(*args, **kwargs)

    return call


@pytest.mark.parametrize(
    ("module", "name"), [(shuffle, "write_chunks"), (groups, "write_scores")], ids=["clusters", "scores"]
)
def test_a_run_goes_on_where_tasks_have_less_memory_than_it_was_planned_for(
    module: Any, name: str, inside: distributed.Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_embeddings(tmp_path / "in", *near_duplicates(np.random.default_rng(3), 400, 8), 7)
    workflow(source, tmp_path / "expected", n_clusters=9).run(inside)
    with pytest.MonkeyPatch.context() as patch:
        set_task_bytes(patch, 9000)
        patch.setattr(module, name, failing(getattr(module, name), 1))
        with pytest.raises(Killed):
            workflow(source, tmp_path / "out", n_clusters=9).run(inside)
    with pytest.MonkeyPatch.context() as patch:
        set_task_bytes(patch, 2500)
        workflow(source, tmp_path / "out", n_clusters=9, verbose=True).run(inside)
    assert "it is cut again" in capsys.readouterr().err
    assert_same_answer(tmp_path / "out", read_answer(tmp_path / "expected"))
    assert not (tmp_path / "out" / "_scratch").exists()


# Many small files


def write_small_files(folder: Path, rng: np.random.Generator) -> list[Path]:
    """Files that differ in all that small files may differ in, the last two of which cannot be read."""
    folder.mkdir(parents=True)
    tables = [
        embedding_table([f"a{i}-{j}" for j in range(3)], rng.normal(size=(3, 4)), note=[i] * 3) for i in range(30)
    ]
    tables[3] = tables[3].slice(0, 0)
    tables[5] = tables[5].drop_columns("note")
    tables[7] = tables[7].set_column(2, "note", pa.array([7.5, None, 7.0]))
    tables[9] = tables[9].set_column(0, "id", tables[9].column("id").dictionary_encode())
    tables[11] = embedding_table(["a11-0", "a11-1"], [None, [1.0, float("nan"), 2.0, 3.0]], note=[1, 2])
    tables[13] = tables[13].set_column(1, "embedding", tables[13].column("embedding").cast(pa.list_(pa.float32(), 4)))
    for i, table in enumerate(tables):
        pq.write_table(table, folder / f"{i:02d}.parquet")
    (folder / "30.parquet").write_bytes(b"PAR1 no more PAR1")
    wrong = pa.Array.from_buffers(pa.string(), 1, [None, *pa.array([b"\xff\xfe"]).buffers()[1:]])
    pq.write_table(embedding_table(wrong, [[1.0, 0.0, 0.0, 0.0]], note=[0]), folder / "31.parquet")
    return sorted(folder.iterdir())


@pytest.mark.parametrize("id_field", ["id", None])
def test_small_files_put_together_are_read_as_each_by_itself(
    tmp_path: Path, rng: np.random.Generator, id_field: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_small_files(tmp_path / "in", rng)
    options = InputOptions(metadata_fields=("note",), id_field=id_field)
    located = [(Location.of(path), str(path)) for path in paths]
    files = Files(0, located, [path.stat().st_size for path in paths])
    scratch = Location.of(tmp_path / "scratch")
    packing = Packing(scratch / "packed", counted_of(options), None, True)
    monkeypatch.setattr(packed, "FEWEST_FILES", 4)
    monkeypatch.setattr(packed, "BATCH_BYTES", 1500)

    def read(facts: list[FileFacts]) -> tuple[Any, ...]:
        used = [file for file in facts if file.n_rows and "/31" not in file.source]
        schema = unify_schemas(used, options).below([FileInfo(str(path), 1, 0) for path in paths])
        work = Workspace(schema, Location.of(tmp_path), scratch, {})
        (part,) = cut_partitions(used, 1 << 30, None)
        rows, others, faulty = work.gather(part, 4)
        return rows.tolist(), others.to_pylist(), faulty.to_pylist(), scan_partition(
            work, Sampling(0, 1), False, (0, part)
        )["lengths"]  # fmt: skip

    together, bad = pack_files(packing, files)
    unreadable = ["30.parquet", "31.parquet"] if id_field else ["30.parquet"]  # of the other the ids are no text
    assert [Path(words.split(" cannot")[0].split()[-1]).name for words in bad] == unreadable
    alone, _ = inspect_files(packing.counted, True, located)
    alone = [file for file in alone if Path(file.source).name not in unreadable]
    for one, other in zip(together, alone, strict=True):
        assert (one.source, one.n_rows, one.schema) == (other.source, other.n_rows, other.schema)
        assert one.n_values in (other.n_values, other.n_values - 1)  # to a footer a null row has an element
    n_alone = sum(file.url == file.source for file in together)
    assert n_alone == (2 if id_field else 1)  # the empty one, and that whose ids have a dictionary
    assert read(together) == read(alone)


def test_small_files_are_left_alone_where_they_are_few(tmp_path: Path, rng: np.random.Generator) -> None:
    paths = write_small_files(tmp_path / "in", rng)[:30]
    located = [(Location.of(path), str(path)) for path in paths]
    packing = Packing(Location.of(tmp_path / "scratch"), Counted("embedding", ("id", "note"), ("id",)), None, False)
    found, _ = pack_files(packing, Files(0, located, [path.stat().st_size for path in paths]))
    assert found == inspect_files(packing.counted, False, located)[0]
    assert not (tmp_path / "scratch").exists()


def test_an_input_of_many_small_files_gives_the_answer_of_one_file(
    client: distributed.Client, tmp_path: Path, rng: np.random.Generator
) -> None:
    ids, rows = near_duplicates(rng, 400)
    rows[17] = np.nan
    for name, n_files in (("one", 1), ("many", 200)):
        write_embeddings(tmp_path / name, ids, rows, n_files, caption=[f"of {name}" for name in ids])
        workflow(tmp_path / name, tmp_path / f"{name} out", metadata_fields=["caption"]).run(client)
    assert_same_answer(tmp_path / "many out", read_answer(tmp_path / "one out"))
    (aside,) = pq.read_table(tmp_path / "many out" / "_quarantine").to_pylist()
    assert (aside["id"], Path(aside["source"]).parent.name) == (ids[17], "many")


# Memory

IN_ONE_WORKER = """
import sys
import distributed
from semdedup import SemanticDeduplicationWorkflow

if __name__ == "__main__":
    source, out, limit, *fields = sys.argv[1:]
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, memory_limit=limit, dashboard_address=None) as one:
        with distributed.Client(one) as client:
            options = {"metadata_fields": fields or None, "n_clusters": 8, "max_iter": 3}
            print(SemanticDeduplicationWorkflow(source, out, eps=0.1, verbose=False, **options).run(client).total)
"""


def run_in_one_worker(folder: Path, limit: str, *fields: str) -> int:
    (folder / "program.py").write_text(IN_ONE_WORKER)
    command = [sys.executable, str(folder / "program.py"), str(folder / "in"), str(folder / "out"), limit, *fields]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return int(done.stdout.split()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["different", "repeated", "one row group", "of some rows"])
def test_text_of_7_kb_a_row_beside_short_vectors_needs_no_more_than_700_mib(
    kind: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    n_rows, n_files = 48_000, 1 if kind == "one row group" else 8
    (tmp_path / "in").mkdir()
    for i in range(n_files):
        ids = [f"c{i}-{j}" for j in range(n_rows // n_files)]
        rows = rng.standard_normal((len(ids), 16)).astype(np.float32)
        texts = ["x" * 7000] * len(ids) if kind == "repeated" else [rng.bytes(3500).hex() for _ in ids]
        table = embedding_table(ids, rows, caption=texts)
        pq.write_table(table, tmp_path / "in" / f"{i}.parquet", row_group_size=n_rows)
    if kind == "of some rows":
        ids = [f"d-{j}" for j in range(500_000)]
        table = embedding_table(ids, rng.standard_normal((len(ids), 16)).astype(np.float32), caption=[""] * len(ids))
        pq.write_table(table, tmp_path / "in" / "many.parquet")
        n_rows += len(ids)
    assert run_in_one_worker(tmp_path, "700MiB", "caption") == n_rows


@pytest.mark.slow
def test_a_row_group_of_400_mb_needs_no_more_than_500_mib(tmp_path: Path, rng: np.random.Generator) -> None:
    (tmp_path / "in").mkdir()
    rows = rng.standard_normal((200_000, 512)).astype(np.float32)
    offsets = pa.array(np.arange(0, rows.size + 1, 512, dtype=np.int32))
    embeddings = pa.ListArray.from_arrays(offsets, pa.array(rows.reshape(-1)))
    table = pa.table({"id": [f"c{i}" for i in range(len(rows))], "embedding": embeddings})
    pq.write_table(table, tmp_path / "in" / "a.parquet", row_group_size=len(rows), use_dictionary=False)
    assert run_in_one_worker(tmp_path, "500MiB") == 200_000
