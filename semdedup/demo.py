"""The demo: videos with known near-duplicates are made and deduplicated on this machine.

The scenes are drawn, so that nothing is downloaded: hills that a camera pans over, and balls in front of them. Each is
written as it is, and again as copies are found in collections of videos: encoded once more, rescaled, letterboxed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from semdedup.compute.options import ClusterOptions
from semdedup.compute.progress import Reporter
from semdedup.dedup.ranking import RankingStrategy
from semdedup.display import Displayable
from semdedup.errors import InputError
from semdedup.run_result import RunResult
from semdedup.shards.card import DROPPED
from semdedup.storage.location import Location
from semdedup.storage.tables import read_table
from semdedup.video.encode import ENCODERS
from semdedup.workflow import CLIPS, DATASET, VideoDeduplicationWorkflow

N_SCENES = 6
SECONDS, RATE = 8, 24
CLIP_SECONDS = 4
WIDTH, HEIGHT = 320, 180
VIDEOS, OUT = "videos", "out"
NOTE = "_semdedup_demo.json"


@dataclass(frozen=True)
class Copy:
    """What sets a copy apart: its size, bars above and below, its quality (a larger ``crf`` is worse)."""

    name: str
    width: int = WIDTH
    height: int = HEIGHT
    bars: int = 0
    crf: int = 23


ORIGINAL = Copy("original", crf=18)
COPIES = (Copy("reencoded", crf=34), Copy("rescaled", 160, 90), Copy("letterboxed", bars=20))


@dataclass(frozen=True, repr=False)
class DemoResult(Displayable):
    """How many planted near-duplicates were found.

    Attributes:
        run: result of `VideoDeduplicationWorkflow`.
        planted: clips of copies, all of which are near-duplicates.
        found: how many of as many clips were dropped from the scenes that they belong to.
        wrong: clips dropped beyond that.
    """

    run: RunResult
    planted: int
    found: int
    wrong: int

    def to_json(self) -> dict[str, Any]:
        """Counts as JSON values, with what the run tells."""
        return {**super().to_json(), "run": self.run.to_json()}

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of each line of the table."""
        return [
            *self.run.rows(),
            ("planted copies", f"{self.planted:,}"),
            ("  found", f"{self.found:,}"),
            ("other clips dropped", f"{self.wrong:,}"),
        ]


def draw_scene(seed: int) -> Iterator[np.ndarray]:
    """The frames of a scene, (180, 320, 3) uint8, `SECONDS` of them: hills below a sky, panned over, and balls."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    palette = rng.uniform(30, 235, size=(5, 3)).astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    slope = (np.cos(angle) * x / WIDTH + np.sin(angle) * y / HEIGHT)[..., None]
    sky = palette[0] + (palette[1] - palette[0]) * (slope - slope.min()) / np.ptp(slope)
    hills = [(rng.uniform(0.4, 0.8), rng.uniform(12, 40), rng.uniform(-60, 60), rng.uniform(0, 9)) for _ in range(2)]
    balls = [
        (rng.uniform(12, 34), rng.uniform([0, 0], [WIDTH, HEIGHT]), rng.uniform(-90, 90, 2), rng.uniform(30, 235, 3))
        for _ in range(int(rng.integers(2, 5)))
    ]
    for i in range(SECONDS * RATE):
        t = i / RATE
        frame = sky.copy()
        for k, (level, swing, speed, phase) in enumerate(hills):
            along = (x[0] + speed * t) / 40 + phase
            top = HEIGHT * (level + 0.12 * k) + swing * (np.sin(along) + 0.5 * np.sin(2.3 * along + k))
            frame[y > top] = palette[2 + k]
        for radius, place, velocity, colour in balls:
            reach = np.array([WIDTH, HEIGHT])
            centre = reach - np.abs((place + velocity * t) % (2 * reach) - reach)  # it bounces from the edges
            frame[np.hypot(x - centre[0], y - centre[1]) < radius] = colour
        yield frame.astype(np.uint8)


def write_versions(folder: Path, scene: int) -> list[Path]:
    """Write a scene and its copies as MP4 files, all from one drawing; return their paths."""
    versions = (ORIGINAL, *COPIES)
    paths = [folder / f"scene{scene}_{version.name}.mp4" for version in versions]
    files = [av.open(str(path), "w") for path in paths]
    streams = []
    for version, file in zip(versions, files, strict=True):
        stream: Any = file.add_stream("libx264", rate=RATE, options={**ENCODERS["libx264"], "crf": str(version.crf)})
        stream.width, stream.height, stream.pix_fmt = version.width, version.height + 2 * version.bars, "yuv420p"
        stream.codec_context.thread_count = 1
        streams.append(stream)
    for pixels in draw_scene(scene):
        for version, file, stream in zip(versions, files, streams, strict=True):
            padded = np.pad(pixels, ((version.bars, version.bars), (0, 0), (0, 0)))
            frame = av.VideoFrame.from_ndarray(padded, format="rgb24")
            file.mux(stream.encode(frame.reformat(stream.width, stream.height, "yuv420p")))
    for file, stream in zip(files, streams, strict=True):
        file.mux(stream.encode(None))
        file.close()
    return paths


def make_videos(folder: str | Path, n_scenes: int = N_SCENES, verbose: bool = False) -> list[Path]:
    """Draw scenes, and write each as ``scene{i}_original.mp4`` and three copies of it; return the paths.

    Args:
        folder: a local folder, made if need be.
        n_scenes: how many scenes.
        verbose: show progress.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    with (
        Reporter(verbose).step("draw and encode", n_scenes, "scenes") as advance,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        for written in pool.map(lambda scene: write_versions(Path(folder), scene), range(n_scenes)):
            paths += written
            advance(1)
    return paths


def run_demo(output_path: str, cluster: ClusterOptions | None = None, verbose: bool = True) -> DemoResult:
    """Make videos in ``{output_path}/videos``, deduplicate them into ``…/out``, and count what was found.

    Raises:
        InputError: the folder holds something that is not a demo's, or is not local.
    """
    root = Location.of(output_path)
    if not root.is_local:
        raise InputError(f"the demo writes to this machine; give a local folder, not {root}")
    marked = (root / NOTE).exists()
    if root.files() and not marked:
        raise InputError(f"{root} holds files that are not the demo's; give another folder with --output-path")
    note = {"scenes": N_SCENES, "copies of each": len(COPIES)}
    if not marked or (root / NOTE).read_json() != {**note, "complete": True}:
        (root / NOTE).write_json(note)
        make_videos((root / VIDEOS).url, N_SCENES, verbose)
        (root / NOTE).write_json({**note, "complete": True})
    workflow = VideoDeduplicationWorkflow(
        (root / VIDEOS).url,
        (root / OUT).url,
        split={"fixed_stride_split_duration": float(CLIP_SECONDS)},
        dedup={"ranking_strategy": RankingStrategy.metadata_based(["bitrate"], ascending=False)},  # the best one stays
        clear_output=True,
        verbose=verbose,
    )
    run = workflow.run(cluster=cluster)
    planted = N_SCENES * len(COPIES) * (SECONDS // CLIP_SECONDS)
    found, wrong = count_found(root / OUT)
    return DemoResult(run, planted, found, wrong)


def count_found(out: Location) -> tuple[int, int]:
    """How many planted copies were dropped, and how many other clips.

    Of the versions of one span of a scene one must stay, whichever it is: any three that are dropped count as found.
    """
    embeddings = out / CLIPS / "dct3d_embd_parquet"
    dropped = set(read_table(out / DATASET / DROPPED, ["id"]).column("id").to_pylist())
    by_span: dict[tuple[str, float], int] = {}
    for file in embeddings.files():
        for row in read_table(out.at(file.url), ["id", "video", "start_s"]).to_pylist():
            key = (row["video"].split("_")[0], row["start_s"])
            by_span[key] = by_span.get(key, 0) + (row["id"] in dropped)
    found = sum(min(n, len(COPIES)) for n in by_span.values())
    return found, sum(by_span.values()) - found
