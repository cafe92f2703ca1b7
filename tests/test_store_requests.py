"""What is asked of an object store: the bytes that are wanted, in few requests; counted on the wire."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.counting_s3 import CountingS3, counting
from semdedup.dedup.input.arrow import ArrowBlock, reading_arrow
from semdedup.errors import StorageError
from semdedup.runs.files import changed_files
from semdedup.runs.record import Record
from semdedup.storage.location import READ_AHEAD, Location
from semdedup.storage.parquet import FOOTER_BYTES, GROUPS_BYTES, LARGEST_PIECE, StoredParquet, fetched_together
from semdedup.storage.tables import (
    CORRUPT,
    count_rows,
    iter_groups,
    iter_rows,
    open_parquet,
    read_arrow_batch,
    read_table,
    write_arrow_parts,
    write_table,
)
from semdedup.storage.written import Written, checksum_of
from semdedup.video.kinds import split_kind

DIM, ROWS = 512, 10_000
"""Of the file with a wide column: 21 MB."""

HOLES = 8 << 10
"""Bytes that may be read over between two that are wanted."""


@pytest.fixture(scope="module")
def counter(s3_server: dict) -> Iterator[CountingS3]:
    with counting(s3_server["client_kwargs"]["endpoint_url"]) as found:
        fsspec.filesystem("s3", **found.storage_options).mkdir("counted")
        yield found


def place_of(counter: CountingS3, name: str) -> Location:
    return Location.of(f"s3://counted/{name}", counter.storage_options)


@pytest.fixture(scope="module")
def wide(counter: CountingS3, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Location]:
    """A file with ids, wide embeddings and captions, in row groups of so many rows."""
    made: dict[int, Location] = {}
    rows = pa.array(np.random.default_rng(0).standard_normal(ROWS * DIM, dtype=np.float32))
    columns = {
        "id": [f"clip-{i:06d}" for i in range(ROWS)],
        "embedding": pa.FixedSizeListArray.from_arrays(rows, DIM),
        "caption": [f"{i * i} {'a b c'[i % 5 :]}" for i in range(ROWS)],
    }

    def file_of(rows_per_group: int) -> Location:
        if rows_per_group not in made:
            path = tmp_path_factory.mktemp("wide") / "a.parquet"
            pq.write_table(pa.table(columns), path, rows_per_group, compression="none", use_dictionary=False)
            made[rows_per_group] = place_of(counter, f"wide-{rows_per_group}.parquet")
            made[rows_per_group].take(path)
        return made[rows_per_group]

    return file_of


def chunk_bytes(place: Location, groups: range, columns: list[str]) -> int:
    """Bytes of some columns in some row groups."""
    with open_parquet(place) as file:
        chunks = [file.metadata.row_group(group).column(i) for group in groups for i in range(3)]
    return sum(chunk.total_compressed_size for chunk in chunks if chunk.path_in_schema.split(".")[0] in columns)


def asked(counter: CountingS3, read: Callable[[], Any]) -> tuple[int, int]:
    """How many GET requests a reader makes, and the bytes that it fetches."""
    counter.reset()
    read()
    found = counter.counts()["GetObject"]
    return found.n, found.fetched


def rows_of(place: Location, columns: list[str], start: int, stop: int) -> pa.Table:
    with open_parquet(place) as file:
        return pa.concat_tables(list(iter_rows(file, columns, start, stop)))


@pytest.mark.parametrize(
    ("rows_per_group", "start", "stop", "columns", "requests"),
    [
        (1000, 0, ROWS, ["id"], 1 + 10),  # a footer, and the ids of each row group, which lie far apart
        (1000, 4000, 5000, ["id", "embedding"], 2),
        (1000, 4000, 7000, ["id", "embedding", "caption"], 2),
        (1000, 0, ROWS, ["id", "embedding", "caption"], 1 + 2),  # of 2.1 MB each, and 16 MiB at a time
        (1000, 4100, 4110, ["caption"], 2),
        (ROWS, 0, ROWS, ["id"], 2),
        (ROWS, 0, ROWS, ["id", "embedding"], 1 + 1 + 3),  # pieces of 8 MiB
    ],
)
def test_of_a_wide_file_the_columns_that_are_wanted_are_fetched_in_few_requests(
    counter: CountingS3,
    wide: Callable[[int], Location],
    rows_per_group: int,
    start: int,
    stop: int,
    columns: list[str],
    requests: int,
) -> None:
    place = wide(rows_per_group)
    groups = range(start // rows_per_group, -(-stop // rows_per_group))
    wanted = chunk_bytes(place, groups, columns)
    found: list[pa.Table] = []
    n_requests, n_bytes = asked(counter, lambda: found.append(rows_of(place, columns, start, stop)))
    assert n_requests == requests
    assert wanted <= n_bytes <= wanted + FOOTER_BYTES + HOLES * len(groups)
    assert counter.counts()["HeadObject"].n == 1
    assert found[0]["id" if "id" in columns else "caption"][0].as_py().startswith(("clip-", str(start**2)))
    assert len(found[0]) == stop - start


def test_the_beginning_of_a_large_row_group_is_fetched_without_its_rest(
    counter: CountingS3, wide: Callable[[int], Location]
) -> None:
    place = wide(ROWS)
    n_requests, n_bytes = asked(counter, lambda: rows_of(place, ["embedding"], 0, 1000))
    assert n_requests == 2
    assert n_bytes <= LARGEST_PIECE + FOOTER_BYTES


def test_hundreds_of_small_row_groups_are_fetched_together(counter: CountingS3, tmp_path: Path) -> None:
    rows = pa.table({"id": range(20_000), "embedding": np.zeros((20_000, 4)).tolist()})
    pq.write_table(rows, tmp_path / "a.parquet", 100, use_dictionary=False, compression="none")
    place = place_of(counter, "small-groups.parquet")
    place.take(tmp_path / "a.parquet")
    n_requests, n_bytes = asked(counter, lambda: rows_of(place, ["id", "embedding"], 0, 20_000))
    assert n_requests == 2
    assert n_bytes <= place.info().n_bytes + FOOTER_BYTES


def test_row_groups_are_fetched_together_up_to_a_bound() -> None:
    sizes = [int(size) for size in np.random.default_rng(0).integers(0, GROUPS_BYTES * 2, 200)]
    parts = list(fetched_together(sizes))
    assert [i for part in parts for i in part] == list(range(200))
    assert all(len(part) == 1 or sum(sizes[i] for i in part) <= GROUPS_BYTES for part in parts)
    assert not list(fetched_together([]))


def test_a_damaged_footer_is_an_error_before_a_column_chunk_is_asked_for(tmp_path: Path) -> None:
    """PyArrow ends the process there."""
    sink = pa.BufferOutputStream()
    rows = pa.table({"id": [f"c{i}" for i in range(60)], "embedding": np.zeros((60, 4)).tolist()})
    pq.write_table(rows, sink, row_group_size=20)
    whole = sink.getvalue().to_pybytes()
    start, rng = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little"), np.random.default_rng(0)
    outcomes = set()
    for _ in range(300):
        content = bytearray(whole)
        content[int(rng.integers(start, len(whole) - 8))] = int(rng.integers(256))
        try:
            with StoredParquet(io.BytesIO(content)) as file:
                outcomes.add(sum(len(batch) for batch in file.iter_batches(7, columns=["id", "embedding"])))
        except CORRUPT:
            outcomes.add("damaged")
    assert outcomes >= {60, "damaged"}


def test_a_footer_alone_costs_one_request_and_one_for_the_size(
    counter: CountingS3, wide: Callable[[int], Location]
) -> None:
    place = wide(1000)
    assert asked(counter, lambda: count_rows(place)) == (1, FOOTER_BYTES)
    assert counter.total().n == 2


def test_a_small_file_costs_one_request_and_one_for_the_size_where_that_is_not_known(
    counter: CountingS3, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"id": ["a", "b"]}), tmp_path / "tiny.parquet")
    place = place_of(counter, "tiny.parquet")
    place.take(tmp_path / "tiny.parquet")
    n_bytes = place.info().n_bytes

    def read(**known: int) -> None:
        with open_parquet(place, **known) as file:
            assert file.read()["id"].to_pylist() == ["a", "b"]

    assert asked(counter, read) == (1, n_bytes)
    assert counter.total().n == 2
    assert asked(counter, lambda: read(n_bytes=n_bytes)) == (1, n_bytes)
    assert counter.total().n == 1


def test_options_of_the_user_decide_what_is_fetched(counter: CountingS3, wide: Callable[[int], Location]) -> None:
    place = wide(1000)

    def read() -> None:
        with open_parquet(place, {"pre_buffer": False, "buffer_size": 1 << 20}) as file:
            list(iter_groups(file, [2], ["embedding"], 1000))

    assert asked(counter, read)[0] == 1 + 2


def test_a_file_that_is_read_from_the_beginning_to_the_end_is_fetched_once_in_large_pieces(
    counter: CountingS3, wide: Callable[[int], Location]
) -> None:
    place = wide(1000)
    n_bytes = place.info().n_bytes
    with place.open(READ_AHEAD) as file:
        written = Written(n_bytes, checksum_of(file))

    def verify() -> None:
        assert changed_files(place.parent, {place.name: written}, verify=True) == []

    n_requests, fetched = asked(counter, verify)
    assert fetched == n_bytes
    assert n_requests == -(-n_bytes // (READ_AHEAD + (1 << 16)))
    assert asked(counter, place.read_bytes) == (1, n_bytes)
    assert counter.total().n == 1
    assert asked(counter, lambda: place.read_bytes(5, 25)) == (1, 20)


def test_of_arrow_files_batches_are_fetched_one_by_one_and_streams_in_large_pieces(
    counter: CountingS3, tmp_path: Path
) -> None:
    table = pa.table({"id": range(40_000), "embedding": np.zeros((40_000, 8)).tolist()}).combine_chunks()
    place, stream = place_of(counter, "a.arrow"), place_of(counter, "b.arrow")
    write_arrow_parts(place, table, range(0, 40_000, 1000))
    with pa.ipc.new_stream(tmp_path / "b.arrow", table.schema) as writer:
        writer.write_table(table, 1000)
    stream.take(tmp_path / "b.arrow")
    size = place.info().n_bytes
    n_requests, n_bytes = asked(counter, lambda: read_arrow_batch(place, 7))
    assert n_bytes < size / 40 + HOLES
    assert n_requests <= 6

    def read_all(at: Location) -> None:
        with reading_arrow(None, ArrowBlock(at, at)) as (_, tables):
            assert sum(len(part) for part in tables) == 40_000

    n_requests, n_bytes = asked(counter, lambda: read_all(place))
    assert n_bytes <= size + HOLES
    assert n_requests <= 2 * 40 + 6
    n_requests, n_bytes = asked(counter, lambda: read_all(stream))
    assert n_bytes <= stream.info().n_bytes + HOLES
    assert n_requests <= 3


# What is written and deleted


@pytest.fixture
def answers(counter: CountingS3) -> Iterator[dict[str, tuple[int, str]]]:
    """Answers that the server is to give in place of its own, by operation."""
    yield counter.answers
    counter.answers.clear()


NAMES = ("a*.txt", "b?.txt", "[c].txt", "d & e <é>.txt", "f/g.txt", "h//i.txt", *(f"many/{i}" for i in range(20)))


def test_a_folder_is_deleted_many_files_at_a_time_and_nothing_beside_it(
    counter: CountingS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semdedup.storage.location.KEYS_AT_ONCE", 10)
    folder, beside = place_of(counter, "delete/it"), place_of(counter, "delete/its/a.txt")
    for name in NAMES:
        (folder / name).write_bytes(b"x")
    beside.write_bytes(b"x")
    counter.reset()
    folder.remove_tree()
    assert counter.counts()["DeleteObjects"].n == 3
    assert "DeleteObject" not in counter.counts()
    assert [file.url for file in place_of(counter, "delete").files()] == [beside.url]
    folder.remove_files([folder / "gone", folder / "gone/too"])  # what is not there is fine


def test_a_folder_is_moved_with_a_request_a_file_to_copy_it_and_few_to_delete(counter: CountingS3) -> None:
    folder, target = place_of(counter, "move/from"), place_of(counter, "move/to")
    for name in NAMES:
        (folder / name).write_bytes(name.encode())
    counter.reset()
    folder.move_into(target)
    assert counter.counts()["CopyObject"].n == len(NAMES)
    assert counter.counts()["DeleteObjects"].n == 1
    assert [(file.url, target.at(file.url).read_bytes()) for file in place_of(counter, "move").files()] == sorted(
        (f"{target.url}/{name}", name.encode()) for name in NAMES
    )


def test_a_file_that_cannot_be_deleted_is_told(counter: CountingS3, answers: dict[str, tuple[int, str]]) -> None:
    folder = place_of(counter, "delete/locked")
    for name in ("a", "b"):
        (folder / name).write_bytes(b"x")
    error = "<Error><Key>delete/locked/b</Key><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
    answers["DeleteObjects"] = (200, f"<DeleteResult>{error}</DeleteResult>")
    with pytest.raises(StorageError, match=r"cannot delete s3://counted/delete/locked/b: .*Access Denied.*Credentials"):
        folder.remove_tree()


def test_a_store_that_deletes_one_by_one_alone_is_asked_for_that(
    counter: CountingS3, answers: dict[str, tuple[int, str]]
) -> None:
    folder = place_of(counter, "delete/slowly")
    for name in ("a", "b"):
        (folder / name).write_bytes(b"x")
    answers["DeleteObjects"] = (501, "<Error><Code>NotImplemented</Code><Message>not here</Message></Error>")
    folder.remove_tree()
    assert not folder.files()


def test_a_large_file_is_uploaded_in_parts_and_two_of_them_are_in_memory(
    counter: CountingS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semdedup.storage.s3.PART_BYTES", 5 << 20)
    place, content = place_of(counter, "large"), bytes(range(256)) * (11 << 12)
    (tmp_path / "a").write_bytes(content)
    counter.reset()
    place.take(tmp_path / "a")
    assert counter.counts()["UploadPart"] == (3, 0, len(content))
    assert place.read_bytes() == content


def begin_upload(place: Location) -> None:
    """Begin to upload an object in parts, as a process does that is killed then."""
    bucket, key, _ = place.fs.split_path(place.url)
    upload = place.fs.call_s3("create_multipart_upload", Bucket=bucket, Key=key)["UploadId"]
    place.fs.call_s3("upload_part", Bucket=bucket, Key=key, UploadId=upload, PartNumber=1, Body=b"x")


def uploads(place: Location) -> list[str]:
    """Objects below a folder that are being uploaded in parts."""
    bucket, key, _ = place.fs.split_path(place.url)
    found = place.fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=f"{key}/").get("Uploads", ())
    return sorted(upload["Key"].removeprefix(f"{key}/") for upload in found)


def test_uploads_that_killed_runs_left_in_a_folder_are_given_up_and_no_others(counter: CountingS3) -> None:
    top = place_of(counter, "killed")
    root = top / "out"
    record = Record(root)
    record.update("kmeans", status="begun", parameters={}, files={"kmeans_results/a": [1, ""]}, temporary=[])
    ours = ("_scratch/kmeans-0123abcd/final/x", "_scratch/shard-0123abcd/y", "kmeans_results/a", "clips/v_0.mp4")
    others = ("notes/x", "_scratch/mine/x", "run/_scratch/kmeans-0123abcd/x", "kmeans_results/b", "clips/v.mov")
    for name in (*ours, *others):
        begin_upload(root / name)
    for name in ("out2/_scratch/kmeans-0123abcd/x", "_scratch/kmeans-0123abcd/x"):
        begin_upload(top / name)
    record.remove_strays()
    assert uploads(root) == sorted([*others, "clips/v_0.mp4"])
    record.remove_strays(split_kind().written["split"])
    assert uploads(root) == sorted(others)
    assert len(uploads(top)) == len(others) + 2


def test_a_store_that_does_not_tell_of_unfinished_uploads_stops_no_run(
    counter: CountingS3, answers: dict[str, tuple[int, str]]
) -> None:
    answers["ListMultipartUploads"] = (403, "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>")
    Record(place_of(counter, "untold")).remove_strays()


@pytest.mark.slow
def test_a_store_that_refuses_three_requests_of_ten_is_read_and_written_all_the_same(
    counter: CountingS3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    table = pa.table({"id": range(1000)})
    folder = place_of(counter, "faults")
    monkeypatch.setattr(counter, "faults", 0.3)
    for number in range(5):
        write_table(folder / f"{number}.parquet", table)
    folder.move_into(place_of(counter, "moved"))
    files = place_of(counter, "moved").files()
    assert [read_table(place_of(counter, "x").at(file.url)).equals(table) for file in files] == [True] * 5
    place_of(counter, "moved").remove_tree()
    assert place_of(counter, "moved").files() == []
    assert counter.counts()["fault"].n > 5
