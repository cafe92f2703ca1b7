"""Which hashes of ids stand in files more than once, by reads of the ranges that the writing tasks have told."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semdedup.dedup import sizes
from semdedup.dedup.input import hashes
from semdedup.dedup.input.hashes import HashFiles, check_reads, find_repeated, write_hashes
from semdedup.storage.location import Location

HASHES = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 2**54 - 1, 2**54, 2**63, 2**64 - 1]))


def in_turn(name: str, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    return [function(item) for item in items]


def written(folder: Location, files: Sequence[Sequence[int]]) -> HashFiles:
    arrays = [np.array(values, dtype=np.uint64) for values in files]
    return HashFiles(folder, [write_hashes(folder, number, [array]) for number, array in enumerate(arrays)])


@pytest.mark.parametrize("merged", [False, True])
@settings(max_examples=25)
@given(
    ours=st.lists(st.lists(HASHES, max_size=12), max_size=5), theirs=st.lists(st.lists(HASHES, max_size=12), max_size=3)
)
def test_what_stands_in_two_places_is_found_however_it_is_cut(
    merged: bool,
    ours: list[list[int]],
    theirs: list[list[int]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = Location.of(tmp_path_factory.mktemp("hashes"))
    files = [written(folder / "ours", ours), written(folder / "theirs", theirs)]
    counts = Counter(value for values in [*ours, *theirs] for value in values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashes, "HASHES_PER_RANGE", 7)
        patch.setattr(sizes, "MANY_READS", 0 if merged else 1000)
        found, number = find_repeated(in_turn, folder, files)
    assert sorted(found) == sorted(value for value, count in counts.items() if count > 1)
    assert number == len(found)


@pytest.mark.parametrize(("many", "n_reads"), [(1000, 40 * 12), (400, 40 + 12 * 12)])
def test_ranges_and_merged_files_are_read_as_often_as_the_formula_says(
    rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: int, n_reads: int
) -> None:
    folder, n_files, n = Location.of(tmp_path), 40, 40 * 300
    files = written(folder, np.array_split(rng.integers(2**64, size=n, dtype=np.uint64), n_files))  # type: ignore[arg-type]
    monkeypatch.setattr(hashes, "HASHES_PER_RANGE", 1000)
    monkeypatch.setattr(sizes, "MANY_READS", many)
    asked: list[Any] = []
    read = Location.read_into
    monkeypatch.setattr(
        Location,
        "read_into",
        lambda self, start, memory: asked.append((start, start + len(memory))) or read(self, start, memory),
    )
    assert find_repeated(in_turn, folder, [files]) == ([], 0)
    assert check_reads(n_files, n) == n_reads
    assert n_reads <= len(asked) <= 1.2 * n_reads
    assert sum(end - start for start, end in asked) == 8 * n * (2 if n_reads < 400 else 1)


def test_the_reads_of_a_check_do_not_grow_with_the_square_of_the_input() -> None:
    assert check_reads(115, 10_000_000) == 230
    assert check_reads(11_445, 1_000_000_000) < 30_000
