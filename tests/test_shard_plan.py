"""The decisions of `shard`, without a cluster: keys, packing, order, tars, bins, and which clips are to be dropped."""

import io
import itertools
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semdedup import InputError, ParameterError
from semdedup.dedup.names import COMMAND_LINE, WORKFLOW, Layout
from semdedup.shards.drops import find_drops
from semdedup.shards.keys import sample_key
from semdedup.shards.layouts import LAYOUTS
from semdedup.shards.layouts.cosmos import BINS, bin_of
from semdedup.shards.options import ShardOptions
from semdedup.shards.packing import pack, rows_of_shards
from semdedup.shards.plan import boundary_of, in_order, order_of, parts
from semdedup.shards.sample import sample_json
from semdedup.shards.tar import TarWriter, header, member_bytes
from semdedup.storage.location import Location
from tests.shards import write_duplicates, write_scores

HOSTILE = [
    *("a/b", "..", ".", "x.y", "", "<script>", "a\nb", "\0", "\u00e9\U0001f3ac", "A", "a", "CON", "con", "-rf"),
    *("a" * 64, "a" * 65, "k" * 70_000, "__a__", " ", "~", "*", "clip", "e\u0301", "\u00e9", "\u0130", "i\u0307"),
]

# Keys


@pytest.mark.parametrize("clip_id", ["clip-0001", "a", "0", "5f2b-4c_d", "a" * 64])
def test_a_plain_id_is_its_own_key(clip_id: str) -> None:
    assert sample_key(clip_id) == clip_id


def assert_safe(key: str) -> None:
    assert key.isascii()
    assert set(key) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-")
    assert 0 < len(key) <= 80
    assert key[0].isalnum()
    assert key not in ("con", "nul", "com1")


def test_hostile_ids_have_safe_keys_that_differ() -> None:
    keys = [sample_key(clip_id) for clip_id in HOSTILE]
    for key in keys:
        assert_safe(key)
    assert len({key.casefold() for key in keys}) == len(HOSTILE)


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=90), unique=True, max_size=20))
def test_keys_are_safe_and_differ_where_ids_do(ids: list[str]) -> None:
    keys = [sample_key(clip_id) for clip_id in ids]
    for key in keys:
        assert_safe(key)
    assert len({key.casefold() for key in keys}) == len(ids)


@given(st.text(st.characters(codec="utf-8"), max_size=20))
def test_no_id_can_be_chosen_to_take_the_key_of_another(clip_id: str) -> None:
    key = sample_key(clip_id)
    if key != clip_id:
        assert sample_key(key) != key


# Packing


@given(
    st.lists(st.integers(1, 50), max_size=60),
    st.integers(1, 8),
    st.integers(1, 120),
)
def test_shards_hold_every_sample_once_in_order_and_are_full(sizes: list[int], samples: int, size: int) -> None:
    shards = pack(np.array(sizes, dtype=np.int64), samples, size)
    assert [i for start, stop in shards for i in range(start, stop)] == list(range(len(sizes)))
    for start, stop in shards:
        held = sizes[start:stop]
        assert 1 <= len(held) <= samples
        assert sum(held) <= size or len(held) == 1
        if stop < len(sizes):  # the next sample did not fit
            assert len(held) == samples or sum(held) + sizes[stop] > size


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(-1, 2)), max_size=60), st.integers(1, 8), st.integers(1, 9))
def test_packing_does_not_depend_on_partitions(samples: list[tuple[int, int]], most: int, per_partition: int) -> None:
    cuts = range(0, len(samples), per_partition)
    sizes = [np.array([size for size, _ in samples[i : i + per_partition]], dtype=np.int64) for i in cuts]
    bins = [np.array([bin_ for _, bin_ in samples[i : i + per_partition]], dtype=np.int64) for i in cuts]
    for chosen in (0, 1, 2):
        wanted = [i for i, (_, bin_) in enumerate(samples) if bin_ == chosen]
        whole = pack(np.array([samples[i][0] for i in wanted], dtype=np.int64), most, 100)
        found = list(rows_of_shards(sizes, bins, chosen, most, 100)) if samples else []
        expected = [wanted[start:stop] for start, stop in whole]
        told = [
            [
                rows.partition * per_partition + row
                for rows in shard
                for row in range(rows.start, rows.stop)
                if bins[rows.partition][row] == chosen
            ]
            for shard, _ in found
        ]
        assert told == expected
        assert [n_bytes for _, n_bytes in found] == [sum(samples[i][0] for i in rows) for rows in expected]


def test_names_of_shards() -> None:
    flat = [LAYOUTS["flat"].tar_names("v0", 0, number) for number in (0, 99_999, 100_000)]
    assert flat == [{"shard": "00000.tar"}, {"shard": "99999.tar"}, {"shard": "100000.tar"}]
    cosmos = [LAYOUTS["cosmos"].tar_names("v1", 60, number) for number in (0, 99, 100)]
    names = ["part_000000/000000.tar", "part_000000/000099.tar", "part_000001/000000.tar"]
    assert [tars["shard"] for tars in cosmos] == [f"v1/{UNKNOWN}/video/{name}" for name in names]
    assert [tars["json_shard"] for tars in cosmos] == [f"v1/{UNKNOWN}/metas/{name}" for name in names]


# Order


@given(
    st.lists(st.text(st.characters(codec="utf-8"), max_size=4), unique=True, min_size=1, max_size=40),
    st.lists(st.text(st.characters(codec="utf-8"), max_size=4), max_size=40),
    st.integers(1, 12),
    st.sampled_from([None, 0, 7]),
)
def test_rows_meet_the_clips_of_their_partition(
    ids: list[str], others: list[str], per_partition: int, seed: int | None
) -> None:
    column = pa.chunked_array([ids[:3], ids[3:]], pa.string())
    order = order_of(column, seed)
    cuts = [column.take(order[start : start + per_partition]) for start in range(0, len(order), per_partition)]
    partitions = [part.to_pylist() for part in cuts]
    bounds = [boundary_of(pa.table({"id": part}), seed) for part in cuts]
    rows = in_order(pa.table({"id": pa.array([*others, *ids], pa.string())}), seed)
    pieces = [batch.column("id").to_pylist() for batch in parts(rows, bounds)]
    assert len(pieces) == len(partitions)
    assert sorted(itertools.chain.from_iterable(pieces)) == sorted([*others, *ids])
    for clip_ids, piece in zip(partitions, pieces, strict=True):
        assert set(clip_ids) <= set(piece)
    assert list(itertools.chain.from_iterable(partitions)) == in_order(pa.table({"id": column}), seed)["id"].to_pylist()


def test_a_seed_shuffles_and_another_seed_shuffles_otherwise() -> None:
    table = pa.table({"id": [f"c{i:03d}" for i in range(100)]})
    orders = [in_order(table, seed)["id"].to_pylist() for seed in (None, 1, 2, 1)]
    assert orders[0] == sorted(orders[0])
    assert orders[1] == orders[3] != orders[2] != orders[0] != orders[1]


# Tars


@given(st.lists(st.binary(max_size=1500), max_size=6), st.integers(1, 700))
def test_a_tar_reads_back_and_says_where_things_are(contents: list[bytes], piece: int) -> None:
    file = io.BytesIO()
    tar = TarWriter(file)
    offsets = []
    for i, content in enumerate(contents):
        pieces = (content[start : start + piece] for start in range(0, len(content), piece))
        before = tar.n_bytes
        offsets.append(tar.add(f"{i}.mp4", len(content), pieces))
        assert tar.n_bytes - before == member_bytes(len(content))
    tar.finish()
    for offset, content in zip(offsets, contents, strict=True):
        assert file.getvalue()[offset : offset + len(content)] == content
    file.seek(0)
    with tarfile.open(fileobj=file) as read:
        members = read.getmembers()
        assert [member.name for member in members] == [f"{i}.mp4" for i in range(len(contents))]
        for member, content in zip(members, contents, strict=True):
            assert read.extractfile(member).read() == content  # type: ignore[union-attr]
            assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
            assert member.mode == 0o644


@pytest.mark.parametrize("n_bytes", [0, 1, 512, (8 << 30) - 1, 8 << 30, 1 << 40])
def test_the_header_of_a_member_of_any_size(n_bytes: int) -> None:
    found = header("a.mp4", n_bytes)
    assert len(found) == member_bytes(n_bytes) - n_bytes - -n_bytes % 512
    with tarfile.open(fileobj=io.BytesIO(found), ignore_zeros=True) as read:
        assert read.next().size == n_bytes  # type: ignore[union-attr]


@given(st.text("abcxyz0189_-.", min_size=1, max_size=110), st.integers(0, 1 << 34))
def test_headers_are_those_of_the_standard_library(name: str, n_bytes: int) -> None:
    info = tarfile.TarInfo(name)
    info.size = n_bytes
    assert header(name, n_bytes) == info.tobuf(tarfile.PAX_FORMAT)


def test_a_member_of_another_size_than_told_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"a.mp4 should have 3 bytes, but had 2"):
        TarWriter(io.BytesIO()).add("a.mp4", 3, [b"ab"])


# Bins

UNKNOWN = "resolution_unknown/aspect_ratio_unknown/duration_unknown"


@pytest.mark.parametrize(
    ("size", "n_frames", "rate", "expected"),
    [
        ((1920, 1080), 250, 25, "resolution_1080/aspect_ratio_16_9/duration_5_10"),
        ((1080, 1920), 251, 25, "resolution_1080/aspect_ratio_9_16/duration_10_30"),
        ((1280, 720), 125, 25, "resolution_720/aspect_ratio_16_9/duration_5_10"),
        ((719, 719), 750, 25, "resolution_lt_720/aspect_ratio_1_1/duration_10_30"),
        ((640, 480), 751, 25, "resolution_lt_720/aspect_ratio_4_3/duration_30_inf"),
        ((480, 640), 30_000, 29.97, "resolution_lt_720/aspect_ratio_3_4/duration_30_inf"),
        ((1920, 1080), 124, 25, "resolution_1080/aspect_ratio_16_9/duration_lt_5"),
        ((1001, 100), 250, 25, "resolution_lt_720/aspect_ratio_16_9/duration_5_10"),
        ((0, 100), 250, 25, UNKNOWN),
        (("a", 100), 250, 25, UNKNOWN),
        ((64, 64), 250, 0, UNKNOWN),
    ],
)
def test_the_bin_of_a_clip(size: tuple, n_frames: int, rate: float, expected: str) -> None:
    meta = {"width": size[0], "height": size[1], "num_frames": n_frames, "framerate": rate}
    assert BINS[bin_of(meta)] == expected


def test_a_clip_without_metadata_has_a_bin_and_there_are_61_bins() -> None:
    assert BINS[bin_of({})] == UNKNOWN
    assert len(set(BINS)) == 61


# JSON


def test_the_json_of_a_sample_carries_everything() -> None:
    meta = {
        "video": "v.mp4",
        "duration_span": [1, 2],
        "score": "mine",
        "id": "x",
        "windows": [{"c": "\u00e9\U0001f3ac"}],
    }
    found = json.loads(sample_json(meta, "x", "clips/x.mp4", 0.5, "y"))
    assert found == {
        "id": "x", "source": "clips/x.mp4", "video": "v.mp4", "start_s": 1, "end_s": 2, "score": 0.5, "max_id": "y",
        "duration_span": [1, 2], "meta_score": "mine", "windows": [{"c": "\u00e9\U0001f3ac"}],
    }  # fmt: skip


def test_the_json_of_a_clip_that_nothing_is_known_of() -> None:
    found = json.loads(sample_json({}, "x", "x.mp4", None, None))
    assert found == {
        "id": "x", "source": "x.mp4", "video": None, "start_s": None, "end_s": None, "score": None, "max_id": None,
    }  # fmt: skip


# Options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "tree"}, "layout must be one of flat, cosmos; got 'tree'"),
        ({"samples_per_shard": 0}, "samples_per_shard must be a whole number of at least 1; got 0"),
        ({"target_tar_size_mb": 0}, "target_tar_size_mb must be a number above 0; got 0"),
        ({"target_tar_size_mb": float("nan")}, "target_tar_size_mb"),
        ({"annotation_version": "../v0"}, "annotation_version must be the name of a folder; got '../v0'"),
        ({"shuffle_seed": 1.5}, "shuffle_seed must be a whole number, or None; got 1.5"),
        ({"layout": "cosmos", "with_embeddings": True}, "has no place for embeddings"),
    ],
)
def test_options_that_cannot_be(options: dict, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        ShardOptions(**options)


# What is dropped


SCORES = {"a": 0.5, "b": 1.0}


@pytest.mark.parametrize("layout", [WORKFLOW, COMMAND_LINE])
@pytest.mark.parametrize("below", [False, True])
def test_scores_are_found_in_either_layout_and_with_them_the_eps_on_record(
    tmp_path: Path, layout: Layout, below: bool
) -> None:
    root = write_scores(tmp_path / "r", SCORES, layout, extracted=0.25)
    path = Location.of(root / layout.scores if below else root)
    assert (find_drops(path, 0.1).scored, find_drops(path, 0.1).eps) == (True, 0.1)
    assert find_drops(path, None).eps == 0.25
    assert len(find_drops(path, None).files) == 3


def test_scores_without_an_eps_are_refused(tmp_path: Path) -> None:
    root = Location.of(write_scores(tmp_path / "r", SCORES))
    with pytest.raises(ParameterError, match=r"no eps is on record there. Give semantic_dedup_epsilon"):
        find_drops(root, None)
    with pytest.raises(ParameterError, match=r"eps must lie in \[0, 1\)"):
        find_drops(root, 1.5)


@pytest.mark.parametrize("below", [False, True])
def test_ids_to_drop_need_no_eps(tmp_path: Path, below: bool) -> None:
    root = write_duplicates(tmp_path / "r", ["a"], eps=0.25)
    path = Location.of(root / "duplicates" if below else root)
    found = find_drops(path, None)
    assert (found.scored, found.eps, len(found.files)) == (False, 0.25, 1)
    assert find_drops(path, 0.25) == found
    with pytest.raises(ParameterError, match=r"extracted at eps 0.25: they cannot be had for eps 0.1"):
        find_drops(path, 0.1)


def test_ids_to_drop_whose_eps_nobody_knows(tmp_path: Path) -> None:
    path = Location.of(write_duplicates(tmp_path / "r", ["a"]))
    assert find_drops(path, None).eps is None
    with pytest.raises(ParameterError, match="extracted at an eps that is not on record"):
        find_drops(path, 0.1)


def test_a_folder_that_holds_neither_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    kept = write_duplicates(tmp_path / "kept", ["a"])
    (kept / "duplicates").rename(kept / "extraction")
    (kept / "extraction" / "part-0.parquet").rename(kept / "extraction" / "unique_ids_0.01.parquet")
    for name in ("empty", "kept", "kept/extraction"):
        for eps in (None, 0.1):
            with pytest.raises(
                InputError, match=r"neither scores nor ids to drop in .*Give a result of semdedup dedup"
            ):
                find_drops(Location.of(tmp_path / name), eps)
    with pytest.raises(InputError, match="no such path"):
        find_drops(Location.of(tmp_path / "absent"), 0.1)
