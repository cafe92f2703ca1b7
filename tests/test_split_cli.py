"""`semdedup split` and `semdedup embed` as a user types them: flags, exit statuses, what is printed and where."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import distributed
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from semdedup import cli
from semdedup.video.options import ENCODERS
from semdedup.video.steps.embed.providers import NAMES as EMBEDDERS
from tests.helpers import contents, files_below, stamps
from tests.splits import (
    assert_same_result,
    copy_folder,
    make_folder,
    make_texture,
    read_metas,
    read_rows,
    read_videos,
    splitter,
)
from tests.videos import flat, make_video, probe, scenes

NAMES = ("a.mp4", "below/b.mp4")
CUT = "--fixed-stride-split-duration 2 --fixed-stride-min-clip-length-s 1 --transcode-encoder libx264"
"""What `splitter` does."""

SPLIT = f"split --video-dir videos --output-clip-path out {CUT}"
EMBED = "embed --input-clip-path done"

Run = Callable[..., Result]


pytestmark = pytest.mark.usefixtures("kept_children")


@pytest.fixture(scope="module")
def place(client: distributed.Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with videos, and what a split of them wrote."""
    place = tmp_path_factory.mktemp("place")
    make_folder(place / "videos", NAMES)
    splitter(place / "videos", place / "done").run(client)
    return place


@pytest.fixture
def here(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the commands run in: ``videos`` and ``done``, which may be changed."""
    folder = copy_folder(place, tmp_path / "here")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def run(here: Path, client: distributed.Client) -> Run:
    """Run a command line there, on the cluster of the tests."""

    def invoke(line: str, *, on_cluster: bool = True) -> Result:
        args = shlex.split(line)
        scheduler = ["--scheduler", client.scheduler.address] if on_cluster else []
        return CliRunner().invoke(cli.main, [args[0], *scheduler, *args[1:]])

    return invoke


def table_of(text: str) -> dict[str, str]:
    """The table at the end: name and value of each row."""
    told: dict[str, str] = {}
    for line in text.splitlines():
        if "│" in line:
            name, value = (cell.strip() for cell in line.split("│")[1:3])
            if name:
                told[name] = value
            else:  # a long value goes on
                told[list(told)[-1]] += value
    return told


# The program


def test_the_documented_command_runs_as_it_stands_and_tells_what_became_of_every_video(here: Path) -> None:
    make_texture(here / "videos" / "short.mp4", 1, 0.5)
    make_video(here / "videos" / "black.mp4", pictures=flat(20), rate=10)
    (here / "videos" / "broken.mp4").write_bytes(b"nothing")
    (here / "videos" / "below" / "empty.mkv").write_bytes(b"")
    command = f"""{shlex.quote(sys.executable)} -m semdedup.cli split \\
    --video-dir videos \\
    --output-clip-path out \\
    --splitting-algorithm fixed_stride \\
    --fixed-stride-split-duration 2 \\
    --fixed-stride-min-clip-length-s 1 \\
    --embedding-algorithm dct3d \\
    --transcode-encoder libx264 \\
    --limit 0 --limit-clips 0 --n-workers 1 --memory-limit 1GiB --verbose"""
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 3, done.stderr
    told = table_of(done.stdout)
    assert (
        told.items()
        >= {
            "videos": "6",
            "done": "3",
            "too short": "1",
            "in quarantine": "2",
            "unreadable": "2",
            "processed by this run": "6",
            "clips": "5 (10.0 s)",
            "with embedding": "5",
            "low information": "1",
            "quarantine": str(here / "out" / "_quarantine/videos.parquet"),
        }.items()
    )
    assert "quarantine: broken.mp4: unreadable: " in done.stderr
    assert "quarantine: below/empty.mkv: unreadable: " in done.stderr
    assert "short.mp4" not in done.stderr, "it is listed, and nothing is wrong with it"
    assert "split: 6/6 videos" in done.stderr
    assert "Traceback" not in done.stderr
    summary = json.loads((here / "out" / "summary.json").read_bytes())
    assert summary["quarantined_by_reason"] == {"unreadable": 2}
    assert summary["too_short_videos"] == ["short.mp4"]
    assert len(read_rows(here / "out")) == 5


@pytest.mark.parametrize("command", ["split", "embed"])
def test_help_has_an_example_and_every_choice(command: str) -> None:
    done = CliRunner().invoke(cli.main, [command, "--help"])
    assert done.exit_code == 0
    example = done.output.partition("Example:")[2]
    assert f"semdedup {command} --" in example
    assert "|".join(EMBEDDERS) in re.sub(r"\s+", "", done.output)
    assert ("|".join(ENCODERS) in re.sub(r"\s+", "", done.output)) == (command == "split")


# Flags


def test_the_older_names_of_the_folders_mean_the_same(run: Run, here: Path) -> None:
    done = run(f"split --input-video-path videos --output-path out {CUT}")
    assert done.exit_code == 0, done.output
    assert contents(here / "out" / "clips") == contents(here / "done" / "clips")
    assert read_rows(here / "out").equals(read_rows(here / "done"))


@pytest.mark.parametrize(
    "sources", ["one two", "one,two", "one --video-dir two", "one/a.mp4 two/below/b.mp4", "'one/*.mp4' 'two/below/*'"]
)
def test_several_folders_files_and_patterns_are_one_input(sources: str, run: Run, here: Path) -> None:
    for folder, name in zip(("one", "two"), NAMES, strict=True):
        (here / folder / name).parent.mkdir(parents=True)
        (here / "videos" / name).rename(here / folder / name)
    done = run(f"split --video-dir {sources} --output-path out --no-upload-clips --limit-clips 1 {CUT}")
    assert done.exit_code == 0, done.output
    names = set(read_videos(here / "out").index)
    assert names == ({"a.mp4", "b.mp4"} if "/" in sources else set(NAMES))


def test_without_clips_nothing_is_encoded_and_the_embeddings_are_the_same(run: Run, here: Path) -> None:
    done = run(f"{SPLIT} --no-upload-clips --generate-previews")
    assert done.exit_code == 0, done.output
    assert not [name for name in files_below(here / "out") if name.endswith((".mp4", ".webp"))]
    assert "clip files" not in table_of(done.stdout)
    assert read_rows(here / "out").equals(read_rows(here / "done"))


def test_without_embeddings_the_clips_are_the_same(run: Run, here: Path) -> None:
    done = run(f"{SPLIT} --no-generate-embeddings")
    assert done.exit_code == 0, done.output
    assert contents(here / "out" / "clips") == contents(here / "done" / "clips")
    assert not list((here / "out").glob("*_embd_parquet"))
    assert table_of(done.stdout)["with embedding"] == "0"


def test_a_limit_of_videos_is_told_and_the_next_run_goes_on(run: Run, here: Path) -> None:
    told = []
    for _ in range(3):
        done = run(f"{SPLIT} --limit 1")
        assert done.exit_code == 0, done.output
        row = table_of(done.stdout)
        told.append((row["videos"], row["processed by this run"], row.get("left for another run")))
    assert told == [("1", "1", "1"), ("2", "1", None), ("2", "0", None)]
    assert "all complete already, nothing to do" in done.stderr
    assert_same_result_but_for_the_folder(here)


def assert_same_result_but_for_the_folder(here: Path) -> None:
    """What was done beforehand was done to other copies of the videos, whose place stands in the metadata."""
    for name, content in contents(here / "out").items():
        if not name.startswith(("metas", "_videos")):
            assert (here / "done" / name).read_bytes() == content, name
    assert files_below(here / "out") == files_below(here / "done")


def test_a_limit_of_clips_takes_the_first_of_each_video(run: Run, here: Path) -> None:
    assert run(f"{SPLIT} --limit-clips 1").exit_code == 0
    rows = read_rows(here / "out")
    assert rows[["video", "start_s"]].values.tolist() == [[name, 0.0] for name in NAMES]


def test_a_stride_that_differs_from_the_duration_gives_clips_that_overlap(run: Run, here: Path) -> None:
    assert run(f"{SPLIT} --fixed-stride-stride-s 1 --no-upload-clips").exit_code == 0
    rows = read_rows(here / "out")
    spans = rows[rows["video"] == "a.mp4"][["start_s", "end_s"]].values.tolist()
    assert spans == [[0, 2], [1, 3], [2, 4], [3, 4]]


def test_scenes_are_cut_where_the_picture_changes(run: Run, here: Path) -> None:
    make_video(here / "cuts" / "a.mp4", pictures=scenes((1, 2, 3), (20, 30, 25)), rate=10)
    line = "split --video-dir cuts --output-path out --splitting-algorithm scene --transcode-encoder libx264"
    done = run(f"{line} --scene-min-length-s 1 --scene-max-length-s 10")
    assert done.exit_code == 0, done.output
    rows = read_rows(here / "out")
    assert rows[["start_s", "end_s"]].round(3).values.tolist() == [[0, 2], [2, 5], [5, 7.5]]


def test_other_encoders_ids_and_previews_are_those_asked_for(run: Run, here: Path) -> None:
    line = SPLIT.replace("libx264", "libvpx-vp9")
    done = run(f"{line} --generate-previews --clip-id-scheme nemo --limit-clips 1 --limit 1")
    assert done.exit_code == 0, done.output
    (clip,) = (here / "out" / "clips").iterdir()
    assert probe(clip)["codec"] == "vp9"
    assert clip.stem not in set(read_rows(here / "done")["id"])
    with Image.open(here / "out" / "previews" / f"{clip.stem}.webp") as preview:
        assert preview.n_frames > 1  # type: ignore[attr-defined]


def test_a_copied_cut_keeps_the_packets_and_takes_no_encoder(run: Run, here: Path) -> None:
    done = run(f"{SPLIT.replace('--transcode-encoder libx264', '')} --cut copy")
    assert done.exit_code == 0, done.output
    steps = json.loads((here / "out" / "_manifest.json").read_bytes())["steps"]
    assert steps["split"]["parameters"]["transcode_encoder"] is None
    assert {meta["video_codec"] for meta in read_metas(here / "out").values()} == {"h264"}


@pytest.mark.parametrize(("flag", "reason"), [("--max-pixels 1000", "too_large"), ("--max-frames 15", "too_large")])
def test_limits_on_a_video_put_it_in_quarantine(flag: str, reason: str, run: Run) -> None:
    done = run(f"{SPLIT} {flag}")
    assert done.exit_code == 3, done.output
    assert table_of(done.stdout)[reason] == "2"
    assert f"quarantine: a.mp4: {reason}: " in done.stderr


def test_a_quarantine_that_was_there_before_is_told_again(run: Run, here: Path) -> None:
    (here / "videos" / "broken.mp4").write_bytes(b"nothing")
    assert run(SPLIT).exit_code == 3
    before = stamps(here / "out")
    again = run(SPLIT, on_cluster=False)
    assert again.exit_code == 3
    assert "quarantine: broken.mp4: unreadable" in again.stderr
    assert stamps(here / "out") == before


def test_quiet_leaves_nothing_but_the_table(run: Run) -> None:
    done = run(f"{SPLIT} --quiet")
    assert done.stderr == ""
    assert table_of(done.stdout)["clips"] == "4 (8.0 s)"


def test_a_folder_of_any_name_is_told_as_it_is(run: Run, here: Path) -> None:
    done = run(f"split --video-dir videos --output-path 'o [red]:cat:' --no-upload-clips --limit 1 {CUT}")
    assert done.exit_code == 0, done.output
    assert table_of(done.stdout)["summary"] == str(here / "o [red]:cat:" / "summary.json")


# A dry run


@pytest.mark.parametrize("flags", ["", "--no-upload-clips", "--generate-previews --overwrite"])
def test_a_dry_run_prints_the_plan_and_writes_nothing_at_all(flags: str, run: Run, here: Path) -> None:
    make_texture(here / "videos" / "short.mp4", 1, 0.5)
    (here / "videos" / "broken.mp4").write_bytes(b"nothing")
    before = stamps(here)
    done = run(f"{SPLIT} --dry-run {flags}")
    assert done.exit_code == 0, done.output
    assert stamps(here) == before, "no folder either"
    lines = done.stdout.splitlines()
    assert lines[:2] == ["input: 4 videos; 0 complete or left out, 4 to do", f"would write to {here}/out"]
    assert "  a.mp4: 4.00 s, 2 clips: 0-2, 2-4" in lines
    assert "  short.mp4: 0.50 s, too short" in lines
    assert any(line.startswith("  broken.mp4: quarantine: unreadable") for line in lines)
    assert lines[-1] == "4 clips of 8.0 s in all"


def test_a_dry_run_obeys_the_limits(run: Run) -> None:
    lines = run(f"{SPLIT} --dry-run --limit 1 --limit-clips 1").stdout.splitlines()
    assert lines[2:] == ["  a.mp4: 4.00 s, 1 clips: 0-2", "1 clips of 2.0 s in all"]


def test_a_dry_run_of_embed_writes_nothing(run: Run, here: Path) -> None:
    before = stamps(here)
    done = run(f"{EMBED} --output-path new --dry-run")
    assert done.exit_code == 0, done.output
    assert stamps(here) == before
    assert done.stdout.splitlines()[0] == "input: 4 clips; 0 complete or left out, 4 to do"
    assert done.stdout.splitlines()[-1] == "4 clips of 8.0 s in all"


# Embed


def test_embed_writes_the_embeddings_of_a_split_that_had_none(run: Run, here: Path) -> None:
    assert run(f"{SPLIT} --no-generate-embeddings").exit_code == 0
    done = run("embed --input-clip-path out")
    assert done.exit_code == 0, done.output
    told = table_of(done.stdout)
    assert told["with embedding"] == "4"
    assert told["embeddings"] == str(here / "out" / "dct3d_embd_parquet")
    assert set(read_rows(here / "out")["id"]) == set(read_rows(here / "done")["id"])


def test_embed_says_which_clips_are_bad_and_ends_with_3(run: Run, here: Path) -> None:
    (here / "done" / "clips" / "bad.mp4").write_bytes(b"bad")
    done = run(f"{EMBED} --output-path new")
    assert done.exit_code == 3, done.output
    assert "quarantine: bad.mp4: unreadable" in done.stderr
    assert table_of(done.stdout).items() >= {"videos": "5", "in quarantine": "1", "with embedding": "4"}.items()


# Faults

FAULTS = {
    "no such path": (SPLIT.replace("videos", "nowhere"), 1, "no such path: .*nowhere"),
    "no videos": (SPLIT.replace("videos", "empty"), 1, "no videos in .*empty"),
    "other parameters": (
        f"split --video-dir videos --output-path done {CUT} --limit-clips 1",
        1,
        r"limit_clips: 0 there, 1 now\n(.|\n)*--overwrite",
    ),
    "nobody answers": (f"{SPLIT} --scheduler tcp://127.0.0.1:1", 1, "no Dask scheduler answers at tcp://127.0.0.1:1"),
    "clips of somebody else": (SPLIT.replace("out ", "theirs "), 1, r"theirs/clips holds 1 files .*x\.mp4"),
    "minimum above the duration": (f"{SPLIT} --fixed-stride-min-clip-length-s 3", 2, "fixed_stride_min_clip_length_s"),
    "a duration of nothing": (f"{SPLIT} --fixed-stride-split-duration 0", 2, "fixed_stride_split_duration"),
    "not a number": (f"{SPLIT} --fixed-stride-split-duration long", 2, "long"),
    "no such algorithm": (f"{SPLIT} --splitting-algorithm random", 2, "splitting_algorithm must be one of .*'random'"),
    "no such embedder": (f"{SPLIT} --embedding-algorithm resnet", 2, "embedding_algorithm must be one of .*'resnet'"),
    "no such encoder": (f"{SPLIT} --transcode-encoder x264", 2, "transcode_encoder must be one of .*'x264'"),
    "a model without its folder": (f"{SPLIT} --embedding-algorithm hf", 2, r"--model-dir|pip install .*'torch>="),
    "a limit below nothing": (f"{SPLIT} --limit -1", 2, "--limit"),
    "no input": ("split --output-path out", 2, "--video-dir"),
    "no output": ("split --video-dir videos", 2, "--output-clip-path"),
    "options that are no JSON": (f"{SPLIT} --storage-options {{secret", 2, "not valid JSON"),
    "no such flag": (f"{SPLIT} --frobnicate", 2, "--frobnicate"),
    "embed nothing": ("embed --input-clip-path nowhere", 1, "no such path: .*nowhere"),
    "embed what is embedded": (EMBED, 1, r"dct3d_embd_parquet holds 1 files .*not deleted"),
    "embed without input": ("embed", 2, "--input-clip-path"),
}


@pytest.mark.parametrize(("line", "status", "message"), FAULTS.values(), ids=FAULTS)
def test_faults_end_in_one_clear_message_on_stderr_and_a_status(
    line: str, status: int, message: str, run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semdedup.compute.cluster.SECONDS_TO_WAIT_FOR_SCHEDULER", 0.5)
    (here / "empty").mkdir()
    (here / "theirs" / "clips").mkdir(parents=True)
    (here / "theirs" / "clips" / "x.mp4").write_text("theirs")
    before = stamps(here)
    done = run(line, on_cluster=False)
    assert done.exit_code == status, done.output
    assert re.search(message, done.stderr)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert len(re.findall(r"^[Ee]rror: ", done.stderr, re.MULTILINE)) == 1
    assert "secret" not in done.output
    assert stamps(here) == before


def test_an_encoder_that_is_not_there_names_those_that_are(run: Run, here: Path) -> None:
    done = run(SPLIT.replace("libx264", "h264_nvenc"))
    assert done.exit_code == 2
    assert re.search(r"error: .*h264_nvenc does not open .* there are: .*libx264", done.stderr)
    assert not (here / "out").exists()


def test_overwrite_clears_a_split_with_other_parameters(run: Run, here: Path) -> None:
    line = f"split --video-dir videos --output-path done {CUT} --limit-clips 1"
    assert run(line, on_cluster=False).exit_code == 1
    done = run(f"{line} --overwrite")
    assert done.exit_code == 0, done.output
    assert run(SPLIT + " --limit-clips 1").exit_code == 0
    assert_same_result(here / "done", here / "out")


def test_secrets_given_as_storage_options_are_never_shown(run: Run) -> None:
    secret = {"key": "canary-key", "secret": "canary-0451", "client_kwargs": {"endpoint_url": "http://127.0.0.1:1"}}
    options = (
        f"--storage-options {shlex.quote(json.dumps(secret | {'config_kwargs': {'retries': {'max_attempts': 0}}}))}"
    )
    for line in (
        f"split --video-dir s3://b/videos --output-path out {options}",
        f"split --video-dir s3://b/videos --output-path out {options} --dry-run",
        f"embed --input-clip-path s3://b/clips {options}",
    ):
        done = run(line)
        assert done.exit_code == 1
        assert "127.0.0.1:1" in done.stderr
        assert "canary" not in done.output + repr(done.exception)
    broken = run(f"{SPLIT} --storage-options '{{\"secret\": canary-0451}}'")
    assert broken.exit_code == 2
    assert "canary" not in broken.output
