"""Clusters larger than a task: how their work is cut, and that no answer depends on it."""

from collections import Counter
from pathlib import Path

import distributed
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semdedup import extract
from semdedup.dedup import sizes
from semdedup.dedup.compare import edges, spans
from semdedup.dedup.compare.edges import load_edges, merge_forests, merged_in_rounds, packs, save_edges
from semdedup.dedup.compare.lay_out import rows_file
from semdedup.dedup.compare.spans import (
    Tiles,
    block_tasks,
    blocks_per_task,
    cut_evenly,
    tile_bytes,
    tile_spans,
    tile_tasks,
    tiles_per_task,
)
from semdedup.dedup.input.ids import HASHED_AT_A_TIME, hash_ids
from semdedup.dedup.kernels.exact import unit_rows
from semdedup.dedup.kernels.forest import spanning_forest
from semdedup.dedup.kernels.greedy import stays_in_rank_order
from semdedup.dedup.kernels.matches import Pairs
from semdedup.dedup.threshold.large import cut_rest
from semdedup.dedup.threshold.settle import Rest, settle, stays_file, tiles_per_band
from semdedup.storage.arrays import load_array, load_rows, save_array
from semdedup.storage.location import Location
from tests.helpers import (
    STORAGES,
    assert_same_answer,
    location_in,
    near_duplicates,
    read_answer,
    read_folder,
    set_task_work,
    workflow,
    write_embeddings,
)

# Arithmetic

ROWS, BASE, PER_TILE, DIM = st.integers(1, 120), st.integers(0, 120), st.integers(1, 50), st.sampled_from([2, 768])


@settings(deadline=None)
@given(ROWS, BASE, PER_TILE)
def test_tiles_hold_every_rank_once_and_rows_of_a_base_apart(own: int, n_base: int, per_tile: int) -> None:
    tiles = Tiles(7, n_base + own, per_tile, n_base)
    assert [number for tile in tiles for number in range(tile.start, tile.stop)] == list(range(n_base + own))
    assert all(0 < tile.stop - tile.start <= per_tile for tile in tiles)
    assert [tile.of_base for tile in tiles] == [tile.stop <= n_base for tile in tiles]
    assert list(tiles.own) == [tile.number for tile in tiles if not tile.of_base]


@settings(deadline=None)
@given(ROWS, BASE, PER_TILE, DIM, st.integers(10, 40))
def test_every_pair_of_tiles_is_compared_once_in_tasks_of_bounded_work(
    own: int, n_base: int, per_tile: int, dim: int, work: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sizes, "WORK_PER_TASK", 1 << work)
        per_tile = min(per_tile, sizes.rows_compared(4 * dim * per_tile, dim))
        tiles = Tiles(0, n_base + own, per_tile, n_base)
        found = tile_spans(tiles, dim)
        pairs = Counter((span.number, other) for span in found for other in range(span.first, span.last))
        assert pairs == Counter((number, other) for number in tiles.own for other in range(number + 1))
        lengths = [span.last - span.first for span in found]
        assert lengths == sorted(lengths, reverse=True)
        assert all(2 * per_tile**2 * dim * length <= sizes.WORK_PER_TASK for length in lengths if length > 1)
        assert 2 * per_tile**2 * dim <= sizes.WORK_PER_TASK or per_tile == 1
        assert tile_tasks(tiles.n_rows, per_tile, dim, tiles.n_base) == len(found)
        read = sum(1 + len(set(range(span.first, span.last)) - {span.number}) for span in found)
        assert tile_bytes(tiles.n_rows, per_tile, dim, tiles.n_base) == 4 * dim * per_tile * read
        band = tiles_per_band(per_tile, dim)
        assert band == 1 or band * (band + 1) // 2 * 2 * per_tile**2 * dim <= sizes.WORK_PER_TASK


@given(st.integers(0, 500), st.integers(1, 50))
def test_parts_of_a_range_follow_each_other_and_are_of_nearly_equal_length(n: int, most: int) -> None:
    parts = list(cut_evenly(n, most))
    assert [i for start, stop in parts for i in range(start, stop)] == list(range(n))
    lengths = {stop - start for start, stop in parts}
    assert len(parts) == -(-n // most)
    assert not lengths or max(lengths) <= min(most, min(lengths) + 1)


def test_a_last_tile_of_ten_million_rows_is_many_tasks_of_half_an_hour() -> None:
    rows = sizes.rows_compared(sizes.LARGEST_TASK, 512)
    tiles = Tiles(0, 10_000_000, rows)
    assert (len(tiles), tiles_per_task(rows, 512)) == (81, 4)
    assert sum(span.number == tiles.own[-1] for span in tile_spans(tiles, 512)) == 21
    assert len(tile_spans(tiles, 512)) == tile_tasks(10_000_000, rows, 512) == 861
    few = sizes.rows_compared(sizes.LARGEST_TASK, 16)  # which a task holds many of
    assert few < sizes.rows_per_task(sizes.LARGEST_TASK, 16)
    assert 2 * few**2 * 16 <= sizes.WORK_PER_TASK


def test_blocks_are_compared_in_at_most_a_million_tasks() -> None:
    rows = sizes.rows_compared(sizes.LARGEST_TASK, 512)
    assert blocks_per_task(763, rows, 512) == 4
    assert block_tasks(763, rows, 512) == sum(-(-n // 4) for n in range(1, 764))  # of 100 M rows
    assert block_tasks(7630, rows, 512) <= spans.MOST_BLOCK_TASKS + 7630


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 60))
def test_the_rest_of_all_tiles_is_put_together_in_order(counts: list[int], per_tile: int) -> None:
    made = cut_rest(counts, per_tile)
    assert [(tile, row) for part in made for tile, a, b in part for row in range(a, b)] == [
        (tile, row) for tile, count in enumerate(counts) for row in range(count)
    ]
    held = [sum(b - a for _, a, b in part) for part in made]
    assert held[:-1] == [per_tile] * (len(made) - 1)


# Forests


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=20), st.integers(1, 60))
def test_files_are_merged_in_rounds_until_one_is_left_of_each_list(counts: list[int], most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edges, "EDGES_PER_TASK", most)
        last: dict[int, tuple[str, int]] = {}

        def merge(_: int, items: list[tuple[int, tuple[str, ...], bool]]) -> list[tuple[str, int]]:
            made = []
            for index, files, is_last in items:
                n_edges = sum(int(name.split("-")[-1]) for name in files)
                assert n_edges <= most or len(files) <= 2
                made.append((f"{index}-{n_edges}", n_edges))
                if is_last:
                    assert index not in last
                    last[index] = made[-1]
            return made

        lists = [[(f"{i}-{n}", n) for n in some] for i, some in enumerate((counts, counts[::2], []))]
        merged_in_rounds(lists, merge)
        assert last == {i: (f"{i}-{total}", total) for i, total in enumerate([sum(counts), sum(counts[::2]), 0])}
    assert packs([("a", 5), ("b", 9), ("c", 1)], 3) == [("a", "b"), ("c",)]


@settings(deadline=None, max_examples=60)
@given(st.integers(3, 80), st.integers(1, 600), st.integers(1, 4), st.integers(0, 10_000))
def test_there_is_one_forest_whatever_parts_it_is_merged_of(n: int, p: int, levels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(n, size=(2, p))
    a, b = np.minimum(a, b)[a != b], np.maximum(a, b)[a != b]
    keys = np.minimum(a, b) * n + np.maximum(a, b)
    score = np.random.default_rng(1).integers(1, levels + 1, size=n * n)[keys].astype(np.float32) / 4  # many are equal
    whole = spanning_forest(a, b, score, n)
    wanted = {(int(a[i]), int(b[i])) for i in whole}
    part = rng.integers(3, size=len(a))
    chosen = np.concatenate(
        [np.flatnonzero(part == k)[spanning_forest(a[part == k], b[part == k], score[part == k], n)] for k in range(3)]
    )
    chosen = rng.permutation(chosen)
    merged = chosen[spanning_forest(a[chosen], b[chosen], score[chosen], n)]
    assert {(int(a[i]), int(b[i])) for i in merged} == wanted


def test_forests_on_storage_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edges, "EDGES_PER_TASK", 30)
    rng, place = np.random.default_rng(0), Location.of(tmp_path)
    parts = []
    for number in range(7):
        left = rng.integers(0, 99, size=20)
        right = rng.integers(left + 1, 100)
        parts.append(Pairs(left, right, rng.random(20).astype(np.float32)))
        save_edges(place / f"cluster_3/edges/{number}.npy", parts[-1])
    names = [(f"edges/{number}.npy", 20) for number in range(7)]
    merge_forests(lambda _, function, items: [function(item) for item in items], place, [(3, 100, names)])
    found, every = load_edges(place / "cluster_3" / edges.FOREST), Pairs.together(parts)
    chosen = spanning_forest(every.left, every.right, every.score, 100)
    assert sorted(zip(*found, strict=True)) == sorted(zip(*(end[chosen] for end in every), strict=True))


# Rows in rank order


@pytest.mark.parametrize("tiles", [1, 2, 6])
def test_rows_that_are_settled_in_bands_are_those_taken_one_by_one(
    tiles: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    per_tile, dim = 23, 5
    monkeypatch.setattr(sizes, "WORK_PER_TASK", tiles * 2 * per_tile**2 * dim)
    steps = list[str]()

    def each(name: str, function, items):  # type: ignore[no-untyped-def]
        steps.append(name)
        return [function(item) for item in items]

    rests, wanted = [], []
    for number, n_rows in enumerate((200, 60, 0)):
        rows = unit_rows(np.random.default_rng(number).normal(size=(n_rows, dim)).astype(np.float32))
        parts = [rows[start : start + per_tile] for start in range(0, n_rows, per_tile)]
        for tile, part in enumerate(parts):
            save_array(rows_file(Location.of(tmp_path) / str(number), tile), part)
        rests.append(Rest(Location.of(tmp_path) / str(number), len(parts), np.float32(0.8), "cpu"))
        wanted.append(np.flatnonzero(stays_in_rank_order(rows, 0.8)))
    settle(each, rests, per_tile, dim)
    for rest, expected in zip(rests, wanted, strict=True):
        found = [load_array(stays_file(rest.folder, tile)) + per_tile * tile for tile in range(rest.n_tiles)]
        assert np.array_equal(np.concatenate([np.empty(0, np.int64), *found]), expected)
    assert 0 < len(wanted[0]) < 200
    assert len(steps) == 2 * -(-9 // tiles_per_band(per_tile, dim))


# Reading


@pytest.fixture(params=STORAGES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    return location_in(request, tmp_path, "arrays")


def test_a_range_of_rows_of_an_array(folder: Location) -> None:
    table = np.zeros(9, dtype=[("witness", np.int64), ("score", np.float32)])
    table["witness"] = np.arange(9)
    for number, array in enumerate((np.arange(60, dtype=np.float32).reshape(12, 5), np.arange(7) > 3, table)):
        save_array(folder / f"{number}.npy", array)
        for start, stop in ((0, len(array)), (2, 5), (3, 3)):
            assert np.array_equal(load_rows(folder / f"{number}.npy", start, stop), array[start:stop])


def test_an_array_is_read_as_it_was_written(folder: Location) -> None:
    table = np.zeros(3, dtype=[("witness", np.int64), ("score", np.float32)])
    rows = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    for number, array in enumerate((rows, rows.T, rows[0][:, ::2], np.empty((0, 4)), np.float32(7), table)):
        save_array(folder / f"{number}.npy", array)
        found = load_array(folder / f"{number}.npy")
        assert np.array_equal(found, array)
        assert found.dtype == array.dtype
        assert found.flags.writeable


def test_an_array_of_pickles_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError, match="unpickled"):
        load_array(Location.of(tmp_path / "a.npy"))


def test_ids_are_hashed_in_parts_as_all_at_once() -> None:
    ids = [None if i == 5 else f"clip-{i}" for i in range(HASHED_AT_A_TIME + 9)]
    words = pd.util.hash_array(np.array([value or "" for value in ids], dtype=object), categorize=False)
    found = hash_ids(pa.chunked_array([pa.array(ids[:9]), pa.array(ids[9:])]), 3)
    assert np.array_equal(found, hash_ids(pa.array(ids, pa.large_string()), 3))
    order = np.argsort(words)
    assert np.array_equal(words[order][1:] == words[order][:-1], found[order][1:] == found[order][:-1])
    assert hash_ids(pa.array(["a"]), 3)[0] == hash_ids(pa.array(["b", "a"]), 3)[1]


# From end to end


def test_scores_forests_and_removals_are_those_of_a_cluster_in_one_task(
    client: distributed.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(8)
    ids, rows = near_duplicates(rng, 150, 8)
    for at in rng.permutation(150)[:70]:
        rows[at] = rows[(at + 1) % 150] + rng.normal(scale=0.2, size=8)
    rows[7] = np.nan
    given = {"low_information": [i % 9 == 4 for i in range(150)]}
    source = write_embeddings(tmp_path / "in", ids, rows, 3, **given)
    chosen = {"n_clusters": 1, "eps": 0.05, "removal": "witness", "which_to_keep": "random", "count_at": [0.2]}
    whole = workflow(source, tmp_path / "whole", **chosen).run(client)
    set_task_work(monkeypatch, 1000, 8, tiles=1)
    monkeypatch.setattr(edges, "EDGES_PER_TASK", 40)
    cut = workflow(source, tmp_path / "cut", **chosen).run(client)
    assert_same_answer(tmp_path / "cut", read_answer(tmp_path / "whole"))
    assert (cut.quarantined, cut.metadata["removed_at"]) == (whole.quarantined, whole.metadata["removed_at"])
    for name in ("witnesses", "_forest", "_quarantine"):
        tables = [pq.read_table(tmp_path / out / name).to_pandas() for out in ("whole", "cut")]
        pd.testing.assert_frame_equal(*tables, check_exact=True)
    for out in ("whole", "cut"):  # beyond the forest: compared again
        extract(
            str(tmp_path / out), 0.3, str(tmp_path / f"{out}-x"), removal="components", client=client, verbose=False
        )
    found = [read_folder(tmp_path / f"{out}-x" / "witnesses") for out in ("whole", "cut")]
    pd.testing.assert_frame_equal(*found, check_exact=True)
