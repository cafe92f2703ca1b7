"""The two ways to Slurm, on a real one that this machine runs: a job script, and workers that are jobs."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import distributed
import pytest

from semdedup import VideoDeduplicationWorkflow
from tests.helpers import wait_until
from tests.runs import compared
from tests.slurm import Slurm, lacking, slurm
from tests.splits import make_folder, make_texture

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.skipif(bool(lacking()), reason=lacking())]

RECIPES = Path(__file__).parent.parent / "deploy" / "slurm"


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with slurm(tmp_path_factory.mktemp("slurm")) as made:
        yield made


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight videos and a poorer copy of one of them."""
    folder = make_folder(tmp_path_factory.mktemp("videos"), [f"{letter}.mp4" for letter in "abcdefgh"])
    make_texture(folder / "copy.mp4", sum(b"a.mp4"), options={"crf": "32"})
    return folder


@pytest.fixture(scope="module")
def expected(videos: Path, inside: distributed.Client, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("expected") / "out"
    result = VideoDeduplicationWorkflow(str(videos), str(out), verbose=False).run(inside)
    assert (result.shard.clips, result.shard.kept) == (9, 8)
    return compared(out)


def test_a_job_of_two_nodes_that_is_requeued_in_the_middle_gives_the_same(
    queue: Slurm, videos: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    asked = ["--nodes=2", "--cpus-per-task=1", "--mem-per-cpu=1G"]
    run = ["run", f"--video-dir={videos}", f"--output-path={tmp_path / 'out'}", "--quiet"]
    job = queue.call("sbatch", "--parsable", *asked, RECIPES / "semdedup.sbatch", *run, cwd=tmp_path)
    wait_until(lambda: any((tmp_path / "out").rglob("*.mp4")), "the first clip", 300)
    queue.call("scontrol", "requeue", job)
    wait_until(lambda: not queue.jobs(), "the end of the job", 400)

    log = (tmp_path / f"slurm-{job}.out").read_text()
    shown = queue.shown(job)
    assert (shown["JobState"], shown["Restarts"], shown["NumNodes"]) == ("COMPLETED", "1", "2"), log
    assert compared(tmp_path / "out") == expected
    of_dask = (tmp_path / f"dask-{job}.log").read_text()
    assert of_dask.count("Register worker") == 4, "of each node one, both times"
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"dask-{job}.log", "out", f"slurm-{job}.out"]


def test_workers_that_are_jobs_may_be_cancelled_and_are_replaced(
    queue: Slurm, videos: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    pytest.importorskip("dask_jobqueue", reason="pip install '.[deploy]'")
    command = [sys.executable, RECIPES / "jobqueue.py", videos, tmp_path / "out"]
    asked = ["--jobs=2", "--cores=1", "--memory=1GiB", "--walltime=00:10:00"]
    before = set(queue.jobs("all"))
    soon = {"DASK_DISTRIBUTED__DEPLOY__LOST_WORKER_TIMEOUT": "1s"}  # 15 s, in which the rest of the run is done
    with open(tmp_path / "log", "w") as log:
        run = subprocess.Popen(
            [*map(str, command), *asked], cwd=tmp_path, stdout=log, stderr=log, env=queue.environment | soon
        )
    try:
        wait_until(lambda: any((tmp_path / "out").rglob("*.mp4")), "the first clip", 300)
        queue.call("scancel", queue.jobs("running")[0])
        assert run.wait(400) == 0, (tmp_path / "log").read_text()
    finally:
        run.kill()
        run.wait()
    assert compared(tmp_path / "out") == expected
    assert "near-duplicates" in (tmp_path / "log").read_text()
    wait_until(lambda: not queue.jobs(), "the workers go with the run")
    assert len(set(queue.jobs("all")) - before) > 2, "another job was asked for"
