"""The demo: videos with known near-duplicates are made and deduplicated on this machine.

The scenes are drawn, so that nothing is downloaded: hills that a camera pans over, and balls in front of them. Each is
written as it is, and again as copies are found in collections of videos: encoded once more, rescaled, letterboxed, cut
out, sped up. A retake shows the same hills and other balls, and is no copy.
"""

from __future__ import annotations

import itertools
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from semdedup.compute.options import ClusterOptions
from semdedup.compute.progress import Reporter
from semdedup.display import Displayable
from semdedup.errors import InputError
from semdedup.run_result import RunResult
from semdedup.shards.card import DROPPED
from semdedup.shards.drops import DUPLICATE, OVERLAP
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
class Version:
    """A video of a scene: the size of its picture, bars above and below, its quality (a larger ``crf`` is worse), which
    seconds of the scene it shows, and how fast."""

    name: str
    width: int = WIDTH
    height: int = HEIGHT
    bars: int = 0
    crf: int = 23
    start_s: int = 0
    end_s: int = SECONDS
    speed: int = 1

    @property
    def n_clips(self) -> int:
        """Clips that it is cut into."""
        return math.ceil((self.end_s - self.start_s) / self.speed / CLIP_SECONDS)

    def shows(self, frame: int) -> bool:
        """Whether it has this frame of the scene."""
        since = frame - self.start_s * RATE
        return 0 <= since < (self.end_s - self.start_s) * RATE and since % self.speed == 0


ORIGINAL = Version("original", crf=18)
COPIES = (
    Version("reencoded", crf=34),
    Version("rescaled", 160, 90),
    Version("letterboxed", 240, 136, bars=22),
    Version("excerpt", crf=28, start_s=2, end_s=6),
    Version("timelapse", 240, 136, crf=28, end_s=4, speed=2),
)
"""Each is worse than the original. The search for overlaps finds all but the timelapse, which is too short for it, and
faster than it looks for; the embeddings do not find the excerpt, which begins elsewhere."""

RETAKE = Version("retake", crf=26, end_s=4)
RETAKEN = 0
"""Seed of the balls in retakes: near enough to the originals to be looked at, and no near-duplicates."""


@dataclass(frozen=True, repr=False)
class DemoResult(Displayable):
    """How many planted near-duplicates were found.

    Attributes:
        run: result of `VideoDeduplicationWorkflow`.
        planted: clips of copies, all of which are near-duplicates.
        by_overlap: how many of these were dropped because a better video shows them.
        by_embedding: how many others of these, because a better clip is like them.
        wrong: other clips that were dropped: of originals or retakes.
    """

    run: RunResult
    planted: int
    by_overlap: int
    by_embedding: int
    wrong: int

    @property
    def found(self) -> int:
        """How many of the planted copies were dropped."""
        return self.by_overlap + self.by_embedding

    def to_json(self) -> dict[str, Any]:
        """Counts as JSON values, with what the run tells."""
        return {**super().to_json(), "run": self.run.to_json()}

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of each line of the table."""
        return [
            *self.run.rows(),
            ("planted copies", f"{self.planted:,}"),
            ("  found by overlap", f"{self.by_overlap:,}"),
            ("  found by embedding", f"{self.by_embedding:,}"),
            ("other clips dropped", f"{self.wrong:,}"),
        ]


def draw_scene(seed: int, retake: bool = False) -> Iterator[np.ndarray]:
    """The frames of a scene, (180, 320, 3) uint8, `SECONDS` of them: hills below a sky, panned over, and balls.

    Args:
        seed: of the scene.
        retake: the same hills and sky, with other and larger balls.
    """
    rng = np.random.default_rng(seed)
    y, x = np.arange(HEIGHT, dtype=np.float32)[:, None], np.arange(WIDTH, dtype=np.float32)
    palette = rng.uniform(30, 235, size=(5, 3)).astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    slope = (np.cos(angle) * x / WIDTH + np.sin(angle) * y / HEIGHT)[..., None]
    sky = (palette[0] + (palette[1] - palette[0]) * (slope - slope.min()) / np.ptp(slope)).astype(np.uint8)
    hills = [(rng.uniform(0.4, 0.8), rng.uniform(12, 40), rng.uniform(-60, 60), rng.uniform(0, 9)) for _ in range(2)]
    sizes, least = ((24, 48), 3) if retake else ((12, 34), 2)
    rng = np.random.default_rng([RETAKEN, seed]) if retake else rng
    reach = np.array([WIDTH, HEIGHT])
    balls = [
        (rng.uniform(*sizes), rng.uniform([0, 0], reach), rng.uniform(-90, 90, 2), rng.uniform(30, 235, 3))
        for _ in range(int(rng.integers(least, 5)))
    ]
    for i in range(SECONDS * RATE):
        t = i / RATE
        frame = sky.copy()
        for k, (level, swing, speed, phase) in enumerate(hills):
            along = (x + speed * t) / 40 + phase
            top = HEIGHT * (level + 0.12 * k) + swing * (np.sin(along) + 0.5 * np.sin(2.3 * along + k))
            frame[y > top] = palette[2 + k]
        for radius, place, velocity, colour in balls:
            centre = reach - np.abs((place + velocity * t) % (2 * reach) - reach)  # it bounces from the edges
            frame[(x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2] = colour
        yield frame


def write_versions(folder: Path, scene: int) -> list[Path]:
    """Write a scene, its copies and its retake as MP4 files; return their paths."""
    paths = _write(folder, scene, draw_scene(scene), (ORIGINAL, *COPIES))
    return paths + _write(folder, scene, draw_scene(scene, retake=True), (RETAKE,))


def _write(folder: Path, scene: int, frames: Iterator[np.ndarray], versions: Sequence[Version]) -> list[Path]:
    """Write versions of a scene, all from one drawing."""
    paths = [folder / f"scene{scene}_{version.name}.mp4" for version in versions]
    files = [av.open(str(path), "w") for path in paths]
    streams = []
    for version, file in zip(versions, files, strict=True):
        stream: Any = file.add_stream("libx264", rate=RATE, options={**ENCODERS["libx264"], "crf": str(version.crf)})
        stream.width, stream.height, stream.pix_fmt = version.width, version.height + 2 * version.bars, "yuv420p"
        stream.codec_context.thread_count = 1
        streams.append(stream)
    for i, pixels in enumerate(itertools.islice(frames, RATE * max(version.end_s for version in versions))):
        for version, file, stream in zip(versions, files, streams, strict=True):
            if version.shows(i):
                file.mux(stream.encode(_framed(pixels, version)))
    for file, stream in zip(files, streams, strict=True):
        file.mux(stream.encode(None))
        file.close()
    return paths


def _framed(pixels: np.ndarray, version: Version) -> av.VideoFrame:
    """A frame in the size of a version, with its bars."""
    picture = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(version.width, version.height)
    padded: Any = np.pad(picture.to_ndarray(), ((version.bars, version.bars), (0, 0), (0, 0)))
    return av.VideoFrame.from_ndarray(padded, format="rgb24").reformat(format="yuv420p")


def make_videos(folder: str | Path, n_scenes: int = N_SCENES, verbose: bool = False) -> list[Path]:
    """Draw scenes, and write each as ``scene{i}_original.mp4``, five copies of it, and a retake; return the paths.

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
    versions = [version.name for version in (ORIGINAL, *COPIES, RETAKE)]
    note = {"scenes": N_SCENES, "versions of each": versions}
    if not marked or (root / NOTE).read_json() != {**note, "complete": True}:
        (root / NOTE).write_json(note)
        make_videos((root / VIDEOS).url, N_SCENES, verbose)
        (root / NOTE).write_json({**note, "complete": True})
    workflow = VideoDeduplicationWorkflow(
        (root / VIDEOS).url,
        (root / OUT).url,
        split={"fixed_stride_split_duration": float(CLIP_SECONDS)},
        clear_output=True,
        verbose=verbose,
    )
    run = workflow.run(cluster=cluster)
    planted = N_SCENES * sum(copy.n_clips for copy in COPIES)
    return DemoResult(run, planted, *count_dropped(root / OUT))


def count_dropped(out: Location) -> tuple[int, int, int]:
    """How many clips of copies were dropped by overlap, and as near-duplicates, and how many clips of other videos."""
    copies = {copy.name for copy in COPIES}
    dropped = read_table(out / DATASET / DROPPED, ["id", "reason"]).to_pylist()
    reasons = {row["id"]: row["reason"] for row in dropped}
    counts: Counter[str] = Counter()
    for file in (out / CLIPS / "dct3d_embd_parquet").files():
        for row in read_table(out.at(file.url), ["id", "video"]).to_pylist():
            if row["id"] in reasons:
                is_copy = Path(row["video"]).stem.partition("_")[2] in copies
                counts[reasons[row["id"]] if is_copy else "wrong"] += 1
    return counts[OVERLAP], counts[DUPLICATE], counts["wrong"]
