"""Whichever operation of storage fails, or is the last of a killed process: one more run gives the same answer."""

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

import distributed
import numpy as np
import pytest

from semdedup import SemdedupError, StorageError
from tests.faults import COMMANDS, cluster_inside, counting, failing, killed_at
from tests.helpers import files_below, near_duplicates, write_embeddings
from tests.shards import make_clips, score_of, write_scores
from tests.splits import make_folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands read: embeddings, one of them without a length; clips and their scores; videos."""
    place = tmp_path_factory.mktemp("source")
    ids, rows = near_duplicates(np.random.default_rng(5), 60)
    rows[7] = 0
    write_embeddings(place / "emb", ids, rows, 2)
    clips = [f"clip-{i:02d}" for i in range(12)]
    make_clips(place / "clips", clips)
    write_scores(place / "scores", {clip: score_of(clip) for clip in clips})
    make_folder(place / "videos", ["a.mp4", "b.mp4"], 3)
    return place


@pytest.fixture(scope="module")
def inside(kept_children: None) -> Iterator[distributed.Client]:
    with cluster_inside() as client:
        yield client


Known = dict[str, tuple[dict[str, bytes], int]]


@pytest.fixture(scope="module")
def known(source: Path, inside: distributed.Client, tmp_path_factory: pytest.TempPathFactory) -> Known:
    """For each command that was asked for: what it writes when nothing happens to it, and in how many operations."""
    return {}


def answer(out: Path) -> dict[str, bytes]:
    """Every file with its bytes, but those about the run itself."""
    names = [name for name in files_below(out) if not (name.startswith("_") and name.endswith(".json"))]
    return {name: (out / name).read_bytes() for name in names}


def expected(known: Known, command: str, source: Path, inside: distributed.Client) -> tuple[dict[str, bytes], int]:
    if command not in known:
        out = source / f"{command}-out"
        with counting() as n_operations:
            COMMANDS[command](source, out, inside)
            known[command] = answer(out), n_operations()
    return known[command]


def assert_ends_alike(command: str, source: Path, out: Path, client: distributed.Client, known: Known) -> None:
    """One more run, with nothing in its way, ends with the same answer and leaves nothing else."""
    COMMANDS[command](source, out, client)
    files, _ = expected(known, command, source, client)
    found = answer(out)
    assert found.keys() == files.keys()
    assert [name for name in files if found[name] != files[name]] == []
    assert not (out / "_owner.json").exists()
    assert not (out / "_scratch").exists()
    shutil.rmtree(out)


def fail_at(
    n: int, error: int, command: str, source: Path, out: Path, client: distributed.Client, lasting: bool = False
) -> bool:
    """Run with a fault at operation n; whether it ended well all the same."""
    try:
        with failing(n, error, lasting):
            COMMANDS[command](source, out, client)
    except SemdedupError as found:
        if not isinstance(found, StorageError) and "every worker must read the input" not in str(found):
            raise AssertionError(f"operation {n} of {command}: {found!r}") from found
        return False
    return True


def spread(total: int, n: int) -> list[int]:
    """n operations from the first to the last, so that each part of a run is met."""
    return sorted({max(1, round(total * (i + 0.5) / n)) for i in range(n)})


@pytest.mark.parametrize("command", COMMANDS)
def test_a_fault_that_passes_changes_nothing_or_ends_in_a_run_that_goes_on(
    command: str, source: Path, inside: distributed.Client, known: Known, tmp_path: Path
) -> None:
    _, total = expected(known, command, source, inside)
    for n in spread(total, 2):
        fail_at(n, errno.EIO, command, source, tmp_path / "out", inside)
        assert_ends_alike(command, source, tmp_path / "out", inside, known)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_ends_a_run_that_then_goes_on(
    command: str, source: Path, inside: distributed.Client, known: Known, tmp_path: Path
) -> None:
    _, total = expected(known, command, source, inside)
    for n in spread(total, 2):
        fail_at(n, errno.ENOSPC, command, source, tmp_path / "out", inside, lasting=True)
        assert_ends_alike(command, source, tmp_path / "out", inside, known)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_that_is_killed_goes_on(
    command: str, source: Path, inside: distributed.Client, known: Known, tmp_path: Path
) -> None:
    _, total = expected(known, command, source, inside)
    assert killed_at(command, source, tmp_path / "out", total - total // 4)
    assert_ends_alike(command, source, tmp_path / "out", inside, known)


ALL = [2**i for i in range(14)]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, None], ids=["EIO", "ENOSPC", "killed"])
def test_whichever_operation_it_is(
    error: int | None, command: str, source: Path, inside: distributed.Client, known: Known, tmp_path: Path
) -> None:
    _, total = expected(known, command, source, inside)
    for n in [n for n in ALL if n <= total] + spread(total, 3):
        if error is None:
            killed_at(command, source, tmp_path / "out", n)
        else:
            fail_at(n, error, command, source, tmp_path / "out", inside)
        assert_ends_alike(command, source, tmp_path / "out", inside, known)
