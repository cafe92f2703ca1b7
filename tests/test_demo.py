"""The demo: what it plants, it finds."""

import json
import re
from pathlib import Path

import distributed
import pytest
from click.testing import CliRunner

from semdedup import InputError, cli, demo
from semdedup.demo import draw_scene, make_videos, run_demo
from tests.helpers import contents
from tests.shards import read_samples
from tests.videos import probe


def test_the_demo_finds_what_it_planted_and_nothing_else_and_runs_again(
    client: distributed.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "N_SCENES", 1)
    scheduler = ["--scheduler", str(client.scheduler.address)]
    for _ in range(2):
        done = CliRunner().invoke(cli.main, ["demo", "--quiet", "--output-path", str(tmp_path / "demo"), *scheduler])
        assert done.exit_code == 0, done.output
        assert "found 8 of 8 planted copies: 7 by overlap, 1 by embedding; 0 other clips dropped" in done.output
        assert f"report: {tmp_path}/demo/out/report.html" in done.output
        assert f"shards: {tmp_path}/demo/out/dataset" in done.output
        page = (tmp_path / "demo" / "out" / "report.html").read_text()
        data = json.loads(re.search(r'id="data">(.*?)</script>', page)[1])  # type: ignore[index]
        assert len(data["judge"]) >= 2, "pairs to judge: a copy, and a retake that is none"
        assert page.count("data:image/jpeg") > 10
        assert (tmp_path / "demo" / "out" / "dataset" / "00000.tar").exists()
        kept = set((tmp_path / "demo" / "videos").iterdir())
        assert len(kept) == 7
    names = [sample["json"]["video"] for sample in read_samples(tmp_path / "demo" / "out" / "dataset")]
    best = ["scene0_original.mp4", "scene0_original.mp4", "scene0_retake.mp4"]
    assert sorted(names) == best, "of copies the best one stays, and what is no copy"


def test_the_demo_writes_only_to_a_local_folder_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not the demo's"):
        run_demo(str(tmp_path), verbose=False)
    with pytest.raises(InputError, match="give a local folder"):
        run_demo("s3://bucket/demo", verbose=False)
    done = CliRunner().invoke(cli.main, ["demo", "--dry-run", "--output-path", str(tmp_path / "none")])
    assert done.exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.slow
def test_the_videos_are_the_same_every_time_and_what_their_names_say(tmp_path: Path) -> None:
    first, again = (make_videos(tmp_path / name, 1) for name in ("first", "again"))
    assert contents(tmp_path / "first") == contents(tmp_path / "again")
    assert [path.name for path in first] == [path.name for path in again]
    sizes = {path.stem.split("_")[1]: (probe(path)["width"], probe(path)["height"]) for path in first}
    wide, high = demo.WIDTH, demo.HEIGHT
    assert sizes == {
        "original": (wide, high),
        "reencoded": (wide, high),
        "rescaled": (wide // 2, high // 2),
        "letterboxed": (240, 180),
        "excerpt": (wide, high),
        "timelapse": (240, 136),
        "retake": (wide, high),
    }
    frames = {path.stem.split("_")[1]: probe(path)["n_frames"] for path in first}
    assert (frames["original"], frames["excerpt"], frames["timelapse"]) == (192, 96, 48)
    for version in demo.COPIES:
        assert sizes[version.name][0] * sizes[version.name][1] <= wide * high, "none is larger than the original"
    n_bytes = {path.stem.split("_")[1]: path.stat().st_size for path in first}
    assert n_bytes["reencoded"] < n_bytes["original"] / 2


def test_scenes_differ_and_move() -> None:
    frames = [[frame for _, frame in zip(range(30), draw_scene(seed), strict=False)] for seed in (0, 1)]
    assert (frames[0][0] != frames[1][0]).mean() > 0.5
    assert (frames[0][0] != frames[0][29]).mean() > 0.02
