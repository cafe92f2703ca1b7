"""What the tests of `split` and `embed` share: folders of small videos, the workflows, and what stands in an output."""

import importlib
import itertools
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from semdedup import VideoEmbedWorkflow, VideoSplitWorkflow, cli
from semdedup.runs.commit import FINAL
from semdedup.storage.location import Location
from tests.helpers import contents, files_below
from tests.videos import make_video, read_frames, texture

RATE = 10
CLIP_S = 2

OWN = {"fixed_stride_split_duration": CLIP_S, "fixed_stride_min_clip_length_s": 1.0, "transcode_encoder": "libx264"}
"""Short clips, and an encoder that does not depend on the machine."""

BRIEF_S = 2.0
BRIEF = {**OWN, "fixed_stride_split_duration": 1.0, "fixed_stride_min_clip_length_s": 0.5}
"""Two clips of a video of `BRIEF_S`, which is too short to share a stretch of time with another: near-duplicates are
left to the dedup."""


def make_texture(path: Path, seed: int, seconds: float = 4, size: tuple[int, int] = (64, 48), **options: Any) -> Path:
    """Write a video that moves, whose seed tells it from others."""
    pictures = texture(seed, round(seconds * RATE), size, RATE)
    return make_video(path, pictures=pictures, rate=RATE, **options)


def make_folder(folder: Path, names: Iterable[str], seconds: float = 4) -> Path:
    """Write videos that differ. Their seeds come from their names."""
    for name in names:
        make_texture(folder / name, sum(name.encode()), seconds)
    return folder


def splitter(source: Any, output: Any, **parameters: Any) -> VideoSplitWorkflow:
    """The workflow without progress, with clips of two seconds."""
    given = [str(path) for path in source] if isinstance(source, list) else str(source)
    return VideoSplitWorkflow(given, str(output), **{"verbose": False, **OWN, **parameters})


def embedder(source: Any, output: Any = None, **parameters: Any) -> VideoEmbedWorkflow:
    """The workflow without progress."""
    return VideoEmbedWorkflow(str(source), None if output is None else str(output), verbose=False, **parameters)


def read_rows(output: Path, folder: str = "dct3d_embd_parquet") -> pd.DataFrame:
    """The embeddings of an output, in the order of their files."""
    return pq.read_table(output / folder).to_pandas()


def read_tracks(output: Path) -> dict[str, np.ndarray]:
    """The fingerprint track of each video, (n, 64) int8, after checking how its rows stand."""
    found: dict[str, np.ndarray] = {}
    for path in sorted((output / "fingerprints").glob("*.parquet")):
        rows = pq.read_table(path).to_pandas()
        for video, own in rows.groupby("video", sort=False):
            assert video not in found, "rows of one video are in one file"
            assert np.diff(own.index).tolist() == [1] * (len(own) - 1)
            assert own["t_s"].tolist() == [(i + 0.5) / 2 for i in range(len(own))]
            found[video] = np.stack(own["fingerprint"].to_list())
        assert rows["video"].is_monotonic_increasing
    return found


def assert_same_tracks(found: Path, expected: Path) -> None:
    """Assert that two outputs have the same tracks of the same videos."""
    left, right = read_tracks(found), read_tracks(expected)
    assert left.keys() == right.keys()
    for video, track in left.items():
        np.testing.assert_array_equal(track, right[video])


def read_videos(output: Path) -> pd.DataFrame:
    """The table of videos, by their names."""
    return pq.read_table(output / "_videos.parquet").to_pandas().set_index("video")


def read_metas(output: Path) -> dict[str, dict[str, Any]]:
    """What is written of each clip, by its id."""
    return {path.stem: json.loads(path.read_bytes()) for path in (output / "metas" / "v0").glob("*.json")}


def matrix(rows: pd.DataFrame) -> np.ndarray:
    """The embeddings as (n, d)."""
    return np.stack(rows["embedding"].to_list())


def result_of(output: Path) -> dict[str, Any]:
    """Everything that a result consists of: the bytes of the files, and the table of videos without stamps of files.

    That of a run that was interrupted, or came in parts, must be that of one run over all.
    """
    found: dict[str, Any] = contents(output)
    found.pop("_videos.parquet")
    return found | {"_videos.parquet": read_videos(output).drop(columns="stamp").to_csv()}


def assert_same_result(found: Path, expected: Path) -> None:
    """Assert that two outputs are the same to the last byte."""
    left, right = result_of(found), result_of(expected)
    assert left.keys() == right.keys()
    assert [name for name in left if left[name] != right[name]] == []


def assert_nothing_half_written(output: Path) -> None:
    """Assert that every file outside of the scratch folder can be read whole."""
    for name in files_below(output):
        path = output / name
        if name.startswith("_scratch/"):
            continue
        if name.endswith(".mp4"):
            assert read_frames(path), name
        elif name.endswith(".json"):
            json.loads(path.read_bytes())
        elif name.endswith(".parquet"):
            pq.read_table(path)
        else:
            assert name.endswith(".webp"), name


def copy_folder(source: Path, target: Path) -> Path:
    """A copy whose files have the stamps of the originals."""
    return Path(shutil.copytree(source, target, copy_function=shutil.copy2))


class Death(NamedTuple):
    """Where a program ends itself: before or after the nth call of a function of a class or, by name, of a module."""

    owner: Any
    name: str
    call: int
    when: str = "before"

    def arrange(self) -> None:
        """Make it so, in this process."""
        owner = importlib.import_module(self.owner) if isinstance(self.owner, str) else self.owner
        real, calls = getattr(owner, self.name), itertools.count(1)

        def dying(*arguments: Any, **options: Any) -> Any:
            mine = next(calls) == self.call
            if mine and self.when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*arguments, **options)
            if mine:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(owner, self.name, dying)


class DeathWhileMoving(NamedTuple):
    """It ends itself before the nth file is moved to its place."""

    call: int

    def arrange(self) -> None:
        """Make it so, in this process."""
        move_into = Location.move_into

        def moving(place: Location, *arguments: Any) -> None:
            if place.name == FINAL:  # not where a scratch folder gets the name of another run
                Death(os, "replace", self.call).arrange()
            move_into(place, *arguments)

        Location.move_into = moving  # type: ignore[method-assign]


RUN, BASE, COMMIT = "semdedup.runs.run", "semdedup.video.base", "semdedup.runs.commit"
"""Modules in which runs of `split` and `embed` are ended."""

PROGRAMS = multiprocessing.get_context("forkserver")
PROGRAMS.set_forkserver_preload(["tests.splits"])


def _die(death: Death | DeathWhileMoving, command: list[str]) -> None:
    death.arrange()
    cli.main(command)


def run_to_death(death: Death | DeathWhileMoving, command: list[str]) -> None:
    """Run the program, in a process of its own, until it ends itself there."""
    program = PROGRAMS.Process(target=_die, args=(death, command))
    program.start()
    program.join(60)
    assert program.exitcode == -signal.SIGKILL
