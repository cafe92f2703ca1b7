"""Stretches that videos share: how many of those that were planted are found, what is told of strangers, what it costs.

The sources are films that are drawn, and the videos of the folder that ``SEMDEDUP_VIDEOS`` names, no two of which may
show the same. Planted videos are kept in ``--folder``, so that a run after a change does not make them again.
"""

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.compute as pc
import pyarrow.dataset as ds

from benchmarks.overlap_scores import lines, score
from benchmarks.overlap_tracks import bare_product_s, making_s, write_tracks
from benchmarks.planted_videos import CHANGES, Video, plant
from benchmarks.split import make_video
from benchmarks.table import Row
from benchmarks.workers import MemoryWatch, local_workers, pids
from semdedup import VideoSplitWorkflow, find_overlaps
from semdedup.dedup.threshold.recommended import recommended_eps
from semdedup.storage.location import Location

DRAWN_S = (12, 14, 16, 12, 18, 13, 15, 20, 12, 14, 16, 24)
SIZES: dict[str, dict[str, Any]] = {
    "smoke": {
        "drawn_s": (6, 6),
        "width": 96,
        "changes": ("low_quality", "letterbox", "pillarbox", "shift_1"),
        "rounds": 1,
        "large": (320, 180),
        "joined_s": (200,),
    },
    "quick": {
        "drawn_s": DRAWN_S,
        "width": 320,
        "changes": (*CHANGES,),
        "rounds": 5,
        "large": (1280, 720),
        "joined_s": (20_000,),
    },
    "full": {
        "drawn_s": DRAWN_S,
        "width": 320,
        "changes": (*CHANGES,),
        "rounds": 8,
        "large": (1280, 720),
        "joined_s": (20_000, 200_000, 1_000_000),
    },
}
GIVEN = "SEMDEDUP_VIDEOS"
BARRED = ("source", "letterbox", "pillarbox")
COST_SOURCES = 6
"""About so many of the sources are split again and again to see what tracks cost."""

LEAST_BITS = 1_000_000
"""Bits a second of video, of whose bytes a track may take one in a hundred."""


def link(place: Path, videos: Sequence[Video], inputs: Path) -> None:
    """Make a folder of some of the videos in a place, and of nothing else that was planted there before."""
    inputs.mkdir()
    for video in videos:
        (inputs / video.name).symlink_to((place / "videos" / video.name).absolute())


def measure_planted(place: Path, work: Path, answers: dict[str, Any], verbose: bool) -> dict[str, Any]:
    """Score what is found, with and without mirror images; and what the embedding `dct3d` alone finds of bars."""
    videos = [Video.of(each) for each in answers["videos"]]
    inputs = work / "inputs"
    link(place, videos, inputs)
    found: dict[str, Any] = {
        "sources": sum(video.change == "source" for video in videos),
        "videos": len(videos),
        "video_s": sum(video.duration_s for video in videos),
        "skipped": len(answers["skipped"]),
    }
    clips = work / "planted-clips"
    with local_workers(2) as client:
        VideoSplitWorkflow(str(inputs), str(clips), upload_clips=False, verbose=verbose).run(client)
        for mirror in (False, True):
            name = "mirrored" if mirror else "plain"
            started = time.monotonic()
            find_overlaps(str(clips), str(work / name), mirror=mirror, client=client, verbose=verbose)
            rows = ds.dataset(work / name / "overlaps", format="parquet").to_table().to_pylist()
            found[name] = score(videos, answers["planted"], rows, mirror) | {"seconds": time.monotonic() - started}
    found["dct3d"] = score_dct3d(clips / "dct3d_embd_parquet", videos)
    return found


def score_dct3d(embeddings: Path, videos: Sequence[Video]) -> dict[str, Any]:
    """Copies with bars whose clips are all found by the embedding alone, and pairs of clips of strangers."""
    source = {video.name: video.source for video in videos if video.change in BARRED}
    change = {video.name: video.change for video in videos}
    eps = recommended_eps(list(map(Location.of, sorted(map(str, embeddings.glob("*.parquet"))))))
    assert eps is not None
    table = ds.dataset(embeddings, format="parquet").to_table(columns=["video", "start_s", "embedding"])
    rows = [row for row in table.to_pylist() if row["video"] in source]
    vectors = np.array([row["embedding"] for row in rows], dtype=np.float32)
    near = vectors @ vectors.T >= 1 - eps
    numbers = {name: i for i, name in enumerate(sorted(set(source.values())))}
    of = np.array([numbers[source[row["video"]]] for row in rows])
    strangers = np.triu(of[:, None] != of[None, :], 1)
    place = {(row["video"], row["start_s"]): i for i, row in enumerate(rows)}
    found: dict[str, Any] = {"eps": eps, "strangers": int(strangers.sum()), "false": int((near & strangers).sum())}
    for wanted in BARRED[1:]:
        clips: dict[str, list[bool]] = {}
        for (name, start_s), i in place.items():
            original = place.get((f"{source[name]}.mp4", start_s))
            if change[name] == wanted and original is not None:
                clips.setdefault(name, []).append(bool(near[i, original]))
        found[wanted] = {
            "copies": len(clips),
            "found": sum(map(all, clips.values())),
            "clips": sum(map(len, clips.values())),
            "clips_found": sum(map(sum, clips.values())),
        }
    return found


def cost_inputs(place: Path, work: Path, answers: dict[str, Any], size: tuple[int, int]) -> dict[str, Path]:
    """Folders of videos whose split is timed: some of the sources, which are small, and two large ones."""
    sources = [Video.of(each) for each in answers["videos"] if each["change"] == "source"]
    small, large = work / "sources", work / "large"
    link(place, sources[:: max(1, len(sources) // COST_SOURCES)], small)
    large.mkdir()
    for seed in range(2):
        make_video(large / f"{seed}.mp4", size, 12, seed)
    return {"sources": small, "x".join(map(str, size)): large}


def measure_costs(inputs: Path, work: Path, rounds: int) -> dict[str, Any]:
    """What tracks cost a split, in time and in bytes.

    Three times are measured: by the clock; of the processor, which what else the machine does changes less; and of the
    making of tracks alone, which is not the difference of two large numbers. Other work changes them to the worse only,
    so the least of the rounds is taken.
    """
    times: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    with local_workers(2) as client:
        watched = [psutil.Process(pid) for pid in pids(client)]
        for number in range(-1, rounds):  # the first round warms up
            for tracks in (True, False) if number % 2 else (False, True):
                output = work / f"{inputs.name}-{number}-{tracks}"
                workflow = VideoSplitWorkflow(str(inputs), str(output), transcode_encoder="libx264", verbose=False)
                workflow.kind = replace(workflow.kind, tracks=tracks)
                before = sum(map(_processor_s, watched))
                seconds = workflow.run(client).seconds["split"]
                if number >= 0:
                    times[tracks].append((seconds, sum(map(_processor_s, watched)) - before))
        last = work / f"{inputs.name}-{rounds - 1}-True"
        result = VideoSplitWorkflow(str(inputs), str(last), transcode_encoder="libx264", verbose=False).run(client)
    footage = sum(row["duration_s"] for row in result.videos)
    sizes = {name: sum(path.stat().st_size for path in (last / name).iterdir()) for name in ("clips", "fingerprints")}
    making = min(making_s(sorted(inputs.iterdir())) for _ in range(rounds))
    least = {tracks: [min(each) for each in zip(*measured, strict=True)] for tracks, measured in times.items()}
    return {
        "footage_s": footage,
        "with_s": least[True][0],
        "without_s": least[False][0],
        "ratio": least[True][0] / least[False][0],
        "processor_ratio": least[True][1] / least[False][1],
        "making_s": making,
        "making_ratio": making / least[False][1],
        "rounds": {"with": times[True], "without": times[False]},
        "bytes_per_s": sizes["fingerprints"] / footage,
        "of_clips": sizes["fingerprints"] / sizes["clips"],
    }


def _processor_s(process: psutil.Process) -> float:
    """Seconds that a process and those below it have run for, of those too that have ended."""
    times = process.cpu_times()
    below = (child.cpu_times() for child in process.children(recursive=True))
    return sum(times[:4]) + sum(each.user + each.system for each in below)


def measure_speed(work: Path, seconds: int) -> dict[str, Any]:
    """How fast tracks are joined by two workers of 1 GiB, beside the bare product of their rows."""
    root = work / f"tracks-{seconds}"
    rows, planted = write_tracks(root, seconds)
    with local_workers(2, "1GiB") as client:
        bare = bare_product_s(client, rows)
        with MemoryWatch(pids(client)) as watch:
            started = time.monotonic()
            find_overlaps(str(root), str(work / f"joined-{seconds}"), client=client, verbose=False)
            taken = time.monotonic() - started
    told = ds.dataset(work / f"joined-{seconds}" / "overlaps", format="parquet").to_table(
        columns=["video_a", "video_b"]
    )
    return {
        "video_s": seconds,
        "rows": rows,
        "planted": planted,
        "found": pc.sum(pc.not_equal(told["video_a"], told["video_b"])).as_py() or 0,
        "join_s": taken,
        "bare_s": bare,
        "hours_per_s": seconds / 3600 / taken,
        "peak_mib": watch.largest,
    }


def report(found: dict[str, Any]) -> list[str]:
    """Everything that was measured, in lines of text."""
    planted = found["planted"]
    text = [
        f"{planted['sources']} sources, {planted['videos']} videos, {planted['video_s'] / 3600:.2f} hours; "
        f"{planted['skipped']} copies left out, for they would share less than 4 s"
    ]
    for name in ("plain", "mirrored"):
        text += [f"find_overlaps, {name}: {planted[name]['seconds']:.1f} s", *lines(planted[name])]
    alone = planted["dct3d"]
    text += [
        f"dct3d alone at eps {alone['eps']:.4f}, {change}: {alone[change]['found']} of {alone[change]['copies']} "
        f"copies, {alone[change]['clips_found']} of {alone[change]['clips']} clips"
        for change in BARRED[1:]
    ]
    text.append(f"  {alone['strangers']:,} pairs of clips of different sources, {alone['false']} of them found")
    for name, costs in found["costs"].items():
        text += [
            f"split of {costs['footage_s']:.0f} s of video, {name}: tracks cost {costs['ratio'] - 1:+.1%} of the time "
            f"({costs['with_s']:.1f} s beside {costs['without_s']:.1f} s), {costs['processor_ratio'] - 1:+.1%} of the "
            f"processor's; to make them takes {costs['making_s'] / costs['footage_s'] * 1e3:.1f} ms of a core a second "
            f"of video, {costs['making_ratio']:.1%} of the processor's time",
            f"  {costs['bytes_per_s']:.0f} bytes a second, of {LEAST_BITS / 8 / 100:.0f} that they may take; "
            f"{costs['of_clips']:.2%} of the clips' bytes",
        ]
    text += [
        f"{each['video_s']:,} s of video joined in {each['join_s']:.1f} s: {each['hours_per_s']:.2f} hours a second, "
        f"{each['join_s'] / each['bare_s']:.2f} x the bare product ({each['bare_s']:.1f} s); "
        f"{each['found']} overlaps of two videos, {each['planted']} planted; "
        f"peak memory of a worker {each['peak_mib']:.0f} MiB"
        for each in found["speed"]
    ]
    return text


def rows(found: dict[str, Any]) -> list[Row]:
    """What goes into the table."""
    return [
        *(
            Row(
                "split with tracks",
                f"{costs['footage_s']:.0f} s of video, {name}",
                f"{costs['with_s']:.1f} s",
                "split without them",
                costs["ratio"],
            )
            for name, costs in found["costs"].items()
        ),
        *(
            Row(
                "joining tracks",
                f"{each['video_s']:,} s of video",
                f"{each['join_s']:.1f} s",
                "bare product of their rows",
                each["join_s"] / each["bare_s"],
            )
            for each in found["speed"]
        ),
    ]


def run(size: str, folder: Path | None = None) -> dict[str, Any]:
    """Measure and print; return the figures."""
    shape, verbose = SIZES[size], size != "smoke"
    with tempfile.TemporaryDirectory(prefix="semdedup-benchmark-") as temporary:
        work = Path(temporary)
        place, given = (folder or work) / "planted", os.environ.get(GIVEN)
        others = Path(given) if given else None
        answers = plant(place, shape["drawn_s"], shape["width"], shape["changes"], others, verbose)
        planted = measure_planted(place, work, answers, verbose)
        inputs = cost_inputs(place, work, answers, shape["large"])
        found = {
            "planted": planted,
            "costs": {name: measure_costs(videos, work, shape["rounds"]) for name, videos in inputs.items()},
            "speed": [measure_speed(work, seconds) for seconds in shape["joined_s"]],
        }
    print("\n".join(report(found)), flush=True)
    return found
