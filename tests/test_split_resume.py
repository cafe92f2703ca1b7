"""Runs of `semdedup split` that are killed: nothing half-written, nothing done twice, the bytes of a run that was not.

Some are killed from outside, with all their workers, when something appears in the folder. Others end themselves with
SIGKILL at a line that is named, so that every moment of a commit is tried, however short.
"""

import glob
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import distributed
import psutil
import pytest

from semdedup import OutputConflictError, SplitResult
from semdedup.storage.location import Location
from tests.helpers import NOWHERE, files_below, kill, stamps, wait_for
from tests.splits import (
    BASE,
    COMMIT,
    RUN,
    Death,
    DeathWhileMoving,
    assert_nothing_half_written,
    assert_same_result,
    copy_folder,
    make_folder,
    make_texture,
    result_of,
    run_to_death,
    splitter,
)

NAMES = ("a.mp4", "b.mp4", "below/c.mp4")
LONG = ("y.mp4", "z.mp4")
"""They take longer than all others, so that there is a middle to be killed in."""

ALL = {*NAMES, *LONG}

FLAGS = (
    *("--fixed-stride-split-duration", "2", "--fixed-stride-min-clip-length-s", "1"),
    *("--transcode-encoder", "libx264", "--quiet"),
)
"""What `splitter` does."""

JOURNAL = "_scratch/split-*/journal/split"


pytestmark = pytest.mark.usefixtures("kept_children")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_folder(tmp_path_factory.mktemp("videos") / "in", NAMES)
    for seed, name in enumerate(LONG):
        make_texture(folder / name, 70 + seed, 25)
    return folder


@pytest.fixture(scope="module")
def fresh(videos: Path, client: distributed.Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run that nothing happened to. Nobody may change it."""
    out = tmp_path_factory.mktemp("fresh") / "out"
    split(videos, out, client)
    return out


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos for what takes no time."""
    return make_folder(tmp_path_factory.mktemp("few") / "in", NAMES)


@pytest.fixture(scope="module")
def fresh_few(few: Path, client: distributed.Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run over the few that nothing happened to. Nobody may change it."""
    out = tmp_path_factory.mktemp("fresh-few") / "out"
    split(few, out, client)
    return out


def split(source: Path, out: Path, client: Any, **parameters: Any) -> SplitResult:
    """The same run in this process, on a cluster that is there."""
    return splitter(source, out, **parameters).run(client)


def start(source: Path, out: Path) -> subprocess.Popen:
    """Start the program with a cluster of its own, in a process group of its own."""
    out.parent.mkdir(exist_ok=True)
    places = ["--video-dir", str(source), "--output-clip-path", str(out)]
    command = [sys.executable, "-m", "semdedup.cli", "split", *places, *FLAGS]
    with open(out.parent / "log", "w") as log:
        return subprocess.Popen(
            [*command, "--n-workers", "2", "--memory-limit", "1GiB"],
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=out.parent,
        )


def split_to_death(death: Any, source: Path, out: Path, client: distributed.Client, *flags: str) -> None:
    """Run the program on a cluster that is there, until it ends itself."""
    places = ["--video-dir", str(source), "--output-clip-path", str(out)]
    run_to_death(death, ["split", *places, *FLAGS, "--scheduler", client.scheduler.address, *flags])


def noted(out: Path) -> dict[str, list[str]]:
    """Videos that a killed run was done with, and their clips."""
    entries = [json.loads(path.read_bytes()) for path in out.glob(f"{JOURNAL}/*.json")]
    return {row["video"]: row["clips"] for entry in entries for row in entry["result"]}


@pytest.fixture(scope="module")
def killed_few(few: Path, client: distributed.Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run left that was killed when all videos were done and nothing was committed. Nobody may change it."""
    out = tmp_path_factory.mktemp("killed") / "out"
    split_to_death(MOMENTS["all noted"], few, out, client)
    return out


@pytest.fixture
def killed(killed_few: Path, tmp_path: Path) -> Path:
    """A copy of it, which may be changed."""
    return copy_folder(killed_few, tmp_path / "killed")


# Killed from outside


@pytest.mark.slow
def test_killed_twice_with_all_workers_the_third_run_does_only_the_rest_and_gives_the_same_bytes(
    videos: Path, fresh: Path, client: distributed.Client, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    process = start(videos, out)
    while not set(NAMES[:2]) <= noted(out).keys():
        assert process.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.01)
    kill(process)
    assert_nothing_half_written(out)
    first, before = noted(out), stamps(out)
    assert set(NAMES[:2]) <= first.keys() < ALL
    assert {path.name for path in out.iterdir()} <= {
        *("clips", "metas", "processed_videos", "processed_clip_chunks", "_scratch"),
        *("_manifest.json", "_owner.json", "_progress.json"),
    }

    def folders() -> set[str]:
        """Where tasks make clips; `Path.glob` fails where the run that goes on renames its scratch folder meanwhile."""
        return {Path(path).name for path in glob.glob("_scratch/*/work-*", root_dir=out)}

    there = folders()  # of the first run
    process = start(videos, out)
    while folders() <= there:
        assert process.poll() is None, (tmp_path / "log").read_text()
    kill(process)
    assert_nothing_half_written(out)
    second = noted(out)
    assert first.items() <= second.items()
    assert second.keys() < ALL

    result = splitter(videos, out, verbose=True).run(client)
    said = capfd.readouterr().err
    assert f"{len(second)} of 5 videos were done by a run that was interrupted" in said
    assert f"split: {5 - len(second)}/{5 - len(second)} videos" in said
    assert result.processed == 5
    now = stamps(out)
    done = [clip for clips in first.values() for clip in clips]
    assert len(done) >= 4
    for path in [*(f"clips/{clip}.mp4" for clip in done), *(f"metas/v0/{clip}.json" for clip in done)]:
        assert now[str(out / path)] == before[str(out / path)], "what was done is not touched"
    assert_same_result(out, fresh)


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_changes_nothing(
    videos: Path, fresh: Path, mortal: Callable[[], distributed.Client], tmp_path: Path
) -> None:
    client = mortal()
    victim = psutil.Process(next(iter(client.run(os.getpid).values())))
    children: list[psutil.Process] = []

    def kill_one() -> None:
        wait_for(tmp_path / "out", f"{JOURNAL}/*.json")
        children.extend(victim.children())
        victim.kill()

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    result = split(videos, tmp_path / "out", client)
    killer.join(10)
    assert result.processed == 5
    assert_same_result(tmp_path / "out", fresh)
    assert children
    assert psutil.wait_procs(children, 10)[1] == [], "the processes that decode for a worker end with it"


@pytest.mark.slow
def test_a_worker_that_dies_while_it_puts_clips_in_place_changes_nothing(
    videos: Path, fresh: Path, mortal: Callable[[], distributed.Client], tmp_path: Path
) -> None:
    client = mortal()

    def doom() -> int:  # local, so that it travels by value
        import os
        import signal

        from semdedup.video import worker as task

        real, begun = task._put_clip, []

        def put(*arguments: Any) -> None:
            begun.append(arguments)
            if len(begun) >= 2:
                os.kill(os.getpid(), signal.SIGKILL)
            real(*arguments)

        task._put_clip = put
        return os.getpid()

    (victim,) = client.run(doom, workers=[next(iter(client.scheduler_info(n_workers=-1)["workers"]))]).values()
    split(videos, tmp_path / "out", client)
    assert not psutil.pid_exists(victim) or psutil.Process(victim).status() == psutil.STATUS_ZOMBIE
    assert_same_result(tmp_path / "out", fresh)


# Killed at a line

MOMENTS = {
    "begun": Death(BASE, "begin", 1, "after"),
    "all noted": Death(BASE, "commit", 1),
    "new files made": Death("semdedup.video.run", "_write_tables", 1, "after"),
    "ordered": Death(RUN, "carry_out", 1),
    "some moved": DeathWhileMoving(2),
    "all moved": Death(COMMIT, "delete_files", 1),
    "on record": Death(Location, "remove_tree", 1),
}
"""The moments of a commit in their order."""


@pytest.mark.slow
def test_killed_at_every_moment_of_a_commit_it_ends_with_the_same_bytes(
    few: Path, fresh_few: Path, client: distributed.Client, tmp_path: Path
) -> None:
    out, clips = tmp_path / "out", {}
    for moment, death in MOMENTS.items():
        split_to_death(death, few, out, client)
        assert_nothing_half_written(out)
        status = json.loads((out / "_manifest.json").read_bytes())["steps"]["split"]["status"]
        assert status == ("committed" if moment == "on record" else "begun"), moment
        assert (out / "clips").exists() == (moment != "begun")
        if moment == "all noted":
            clips = stamps(out / "clips")
    result = split(few, out, NOWHERE)
    assert result.processed == 0
    assert stamps(out / "clips") == clips, "no clip was made twice"
    assert_same_result(out, fresh_few)


@pytest.mark.parametrize("moment", ["ordered", "some moved"])
def test_what_was_ordered_is_completed_before_anything_else_is_done(
    moment: str, killed: Path, few: Path, client: distributed.Client, tmp_path: Path
) -> None:
    """The video that was added since is another commit."""
    split_to_death(MOMENTS[moment], few, killed, client)
    source = copy_folder(few, tmp_path / "in")
    make_texture(source / "e.mp4", 700, 2)
    assert split(source, killed, client).processed == 1
    split(source, tmp_path / "fresh", client)
    assert told(killed, few, source) == told(tmp_path / "fresh", source)


@pytest.mark.parametrize("now", ["the same parameters", "other parameters"])
@pytest.mark.parametrize(
    "death",
    [Death(Location, "remove", 12), pytest.param(Death(Location, "remove_if_empty", 1), marks=pytest.mark.slow)],
    ids=["some", "clips"],
)
def test_killed_while_it_clears_what_is_left_never_passes_for_complete(
    death: Death, now: str, few: Path, fresh_few: Path, client: distributed.Client, tmp_path: Path
) -> None:
    out = copy_folder(fresh_few, tmp_path / "out")
    split_to_death(death, few, out, client, "--limit-clips", "1", "--overwrite")
    left = files_below(out)
    assert 0 < len(set(left) - {"_owner.json"}) < len(files_below(fresh_few)), "it was killed in the middle"
    assert_nothing_half_written(out)
    if now == "the same parameters":
        assert split(few, out, client).processed == 3
        assert_same_result(out, fresh_few)
    else:
        with pytest.raises(OutputConflictError, match="limit_clips: 0 there, 1 now"):
            split(few, out, NOWHERE, limit_clips=1)
        split(few, out, client, limit_clips=1, clear_output=True)
        split(few, tmp_path / "fresh", client, limit_clips=1)
        assert_same_result(out, tmp_path / "fresh")


# Other videos, other parameters


def told(out: Path, *sources: Path) -> dict[str, Any]:
    """The result, without the folders that the videos came from."""
    found = {}
    for name, content in result_of(out).items():
        for source in sources:
            folder: Any = str(source) if isinstance(content, str) else str(source).encode()
            content = content.replace(folder, folder[:0])
        if name == "_videos.parquet":  # metadata name the folder, so that their size depends on it; they are compared
            content = re.sub(r"\{'name': 'metas/[^}]*\}", "", content)
        found[name] = content
    return found


def change(source: Path, now: str) -> None:
    """Make something else of the first video."""
    if now == "gone":
        (source / "a.mp4").unlink()
    elif now == "another name":
        (source / "a.mp4").rename(source / "a2.mp4")
    elif now == "broken":
        (source / "a.mp4").write_bytes(b"broken")
    else:
        make_texture(source / "a.mp4", 1234, {"other content": 4, "shorter": 2, "too short": 0.5}[now])


@pytest.mark.parametrize("now", ["other content", "shorter", "too short", "broken", "gone", "another name"])
def test_a_video_that_changed_after_the_kill_leaves_nothing_of_what_it_was(
    now: str, killed: Path, few: Path, client: distributed.Client, tmp_path: Path
) -> None:
    source = copy_folder(few, tmp_path / "in")
    assert len(noted(killed)["a.mp4"]) == 2
    change(source, now)
    split(source, killed, client)
    split(source, tmp_path / "fresh", client)
    assert files_below(killed) == files_below(tmp_path / "fresh")
    assert told(killed, few, source) == told(tmp_path / "fresh", source)


def test_after_a_kill_other_parameters_are_refused_with_the_difference(killed: Path, few: Path) -> None:
    before = stamps(killed)
    with pytest.raises(OutputConflictError, match=r"fixed_stride_split_duration: 2\.0 there, 3\.0 now") as caught:
        split(few, killed, NOWHERE, fixed_stride_split_duration=3)
    assert "--overwrite" in str(caught.value)
    assert stamps(killed) == before


def test_what_a_run_leaves_that_is_killed_before_it_begins_goes_with_the_next(
    few: Path, fresh_few: Path, client: distributed.Client, tmp_path: Path
) -> None:
    split_to_death(Death(Location, "remove", 1), few, tmp_path / "out", client)
    (probe,) = {name.split("-w")[0] for name in files_below(tmp_path / "out") if name != "_owner.json"}
    assert probe.startswith("_probe-")
    split(few, tmp_path / "out", client)
    assert_same_result(tmp_path / "out", fresh_few)


@pytest.mark.parametrize("now", ["the same", "gone"])
def test_after_a_kill_other_parameters_may_clear_and_nothing_of_the_old_is_left(
    now: str, killed: Path, few: Path, client: distributed.Client, tmp_path: Path
) -> None:
    source = copy_folder(few, tmp_path / "in")
    if now == "gone":
        change(source, now)
    (killed / "notes.txt").write_text("mine")
    parameters = {"fixed_stride_split_duration": 3, "clear_output": True}
    split(source, killed, client, **parameters)
    split(source, tmp_path / "fresh", client, **parameters)
    assert (killed / "notes.txt").read_text() == "mine"
    (killed / "notes.txt").unlink()
    assert not (killed / "_scratch").exists()
    assert_same_result(killed, tmp_path / "fresh")


def test_a_killed_run_may_be_followed_by_one_with_a_limit(
    killed: Path, few: Path, fresh_few: Path, client: distributed.Client
) -> None:
    counts = []
    for _ in range(3):
        result = split(few, killed, client, limit=2)
        counts.append((result.processed, result.left_out))
    assert counts == [(2, 1), (1, 0), (0, 0)]
    assert_same_result(killed, fresh_few)
