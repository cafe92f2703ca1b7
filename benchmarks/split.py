"""Cutting and embedding videos, beside the bare cost of decoding and encoding each once; what scores add; memory."""

import os
import shutil
import statistics
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import distributed
import numpy as np

from benchmarks.workers import MemoryWatch, local_workers, pids
from semdedup import VideoSplitWorkflow
from semdedup.video.clip_file import CONTAINER_OPTIONS
from semdedup.video.encode import make_encoder
from semdedup.video.options import SCORES

CLIP_S = 10
SIZES: dict[str, dict[str, Any]] = {
    "smoke": {"footage_s": 8, "size": (160, 120), "rounds": 1, "memory": ((160, 120), (4,))},
    "quick": {"footage_s": 80, "size": (640, 360), "rounds": 2, "memory": ((1280, 720), (20, 60))},
    "full": {"footage_s": 240, "size": (1280, 720), "rounds": 3, "memory": ((1920, 1080), (60, 600))},
}


def make_video(path: Path, size: tuple[int, int], seconds: int, seed: int, rate: int = 25) -> None:
    """A texture that moves and changes, as hard to encode as a quiet film."""
    width, height = size
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (height // 8 + 40, width // 8 + 40), dtype=np.uint8)
    texture = np.kron(coarse, np.ones((8, 8), dtype=np.uint8))
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "g": "50"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(seconds * rate):
            x, y = (i * 2) % 200, (i * 3) % 200
            grey = texture[y : y + height, x : x + width]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(grey), format="gray")
            frame.pts = i
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def repeat_video(source: Path, path: Path, times: int) -> None:
    """The same packets again and again: a long video is made in no time."""
    with av.open(str(path), "w") as target:
        with av.open(str(source)) as first:
            stream = target.add_stream_from_template(first.streams.video[0])
            length = first.streams.video[0].duration
        for i in range(times):
            with av.open(str(source)) as container:
                for packet in container.demux(video=0):
                    if packet.size:
                        packet.pts, packet.dts = packet.pts + i * length, packet.dts + i * length
                        packet.stream = stream
                        target.mux(packet)


def decode_and_encode(path: str) -> None:
    """What nobody can do without: decode each frame once, encode each once, in one thread."""
    with tempfile.TemporaryDirectory() as folder, av.open(path) as source:
        video = source.streams.video[0]
        video.codec_context.thread_count = 1
        base = video.time_base or Fraction(1, 90_000)
        targets: list[tuple[Any, Any]] = []

        def finish() -> None:
            if targets:
                target, stream = targets[-1]
                target.mux(stream.encode(None))
                target.close()

        for frame in source.decode(video):
            if float((frame.pts or 0) * base) >= len(targets) * CLIP_S:
                finish()
                target = av.open(str(Path(folder, f"{len(targets)}.mp4")), "w", options=CONTAINER_OPTIONS)
                size = frame.width & ~1, frame.height & ~1
                targets.append(
                    (target, make_encoder(target, "libx264", Fraction(video.average_rate or 25), size, base, False))
                )
            frame.pict_type = 0
            target, stream = targets[-1]
            target.mux(stream.encode(frame))
        finish()


def measure_speed(client: distributed.Client, folder: Path, shape: dict[str, Any], verbose: bool) -> dict[str, Any]:
    given = os.environ.get("SEMDEDUP_BENCHMARK_VIDEOS")
    inputs = folder / "videos"
    inputs.mkdir()
    if given:
        sources = sorted(path for path in Path(given).iterdir() if path.suffix == ".mp4")
    else:
        sources = [folder / f"source-{seed}.mp4" for seed in range(4)]
        for seed, path in enumerate(sources):
            make_video(path, shape["size"], max(2, shape["footage_s"] // 8), seed)
    footage, count = 0.0, 0
    lengths = [_seconds(path) for path in sources]
    while footage < shape["footage_s"]:
        for path, seconds in zip(sources, lengths, strict=True):
            shutil.copy(path, inputs / f"{path.stem}-{count}.mp4")
            footage += seconds
        count += 1
    paths = sorted(str(path) for path in inputs.iterdir())
    bare, split, rest, scored = [], [], [], []
    client.gather(client.map(decode_and_encode, paths[:2], pure=False))
    for i in range(shape["rounds"]):  # one beside the other, for the speed of a machine drifts
        started = time.monotonic()
        client.gather(client.map(decode_and_encode, paths, pure=False))
        bare.append(time.monotonic() - started)
        output = str(folder / f"out-{i}")
        options: dict[str, Any] = {"transcode_encoder": "libx264", "verbose": verbose}
        result = VideoSplitWorkflow(str(inputs), output, **options).run(client)
        split.append(result.seconds["split"])
        rest.append(result.seconds["total"] - result.seconds["split"])
        with_scores = VideoSplitWorkflow(str(inputs), f"{output}-scored", clip_scores=SCORES, **options).run(client)
        scored.append(with_scores.seconds["split"])
    workers = len(client.scheduler_info(n_workers=-1)["workers"])
    ratios = [a / b for a, b in zip(split, bare, strict=True)]
    return {
        "videos": "given" if given else "made",
        "footage_s": footage,
        "files": len(paths),
        "clips": result.clips,
        "workers": workers,
        "bare_s": statistics.median(bare),
        "split_s": statistics.median(split),
        "scored_s": statistics.median(scored),
        "scored_ratio": statistics.median(a / b for a, b in zip(scored, split, strict=True)),
        "start_and_commit_s": statistics.median(rest),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
    }


def _seconds(path: Path) -> float:
    with av.open(str(path)) as container:
        return (container.duration or 0) / av.time_base


def measure_memory(folder: Path, shape: dict[str, Any], verbose: bool) -> list[dict[str, Any]]:
    size, lengths = shape["memory"]
    first = folder / "first.mp4"
    make_video(first, size, lengths[0] // 2, 0)
    found = []
    for seconds in lengths:
        inputs = folder / f"long-{seconds}"
        inputs.mkdir()
        repeat_video(first, inputs / "video.mp4", seconds // (lengths[0] // 2))
        with local_workers(1) as client, MemoryWatch(pids(client), tree=True) as watch:
            result = VideoSplitWorkflow(str(inputs), str(folder / f"memory-{seconds}"), verbose=verbose).run(client)
        found.append({"seconds": seconds, "size": size, "clips": result.clips, "peak_mib": watch.peaks[0]})
    return found


def report(found: dict[str, Any]) -> list[str]:
    speed = found["speed"]
    each = speed["footage_s"] / speed["workers"]

    def line(name: str, seconds: float) -> str:
        return f"  {name:<44}{seconds:8.2f} s   {each / seconds:6.1f} x real time per core"

    lines = [
        f"split + embed of {speed['footage_s']:.0f} s of video ({speed['files']} files, {speed['videos']}, "
        f"{speed['clips']} clips), {speed['workers']} workers",
        line("decode once + encode once, PyAV in a loop", speed["bare_s"]),
        line("split", speed["split_s"]),
        line(f"split with clip scores {', '.join(SCORES)}", speed["scored_s"])
        + f", {speed['scored_ratio'] - 1:+.1%} beside split (median of rounds)",
        f"  everything else: {speed['ratio'] - 1:.0%} of the bare cost "
        f"(rounds: {', '.join(f'{ratio - 1:.0%}' for ratio in speed['ratios'])}); "
        f"and {speed['start_and_commit_s']:.2f} s to check, begin and commit the run",
    ]
    for memory in found["memory"]:
        width, height = memory["size"]
        lines.append(
            f"  peak memory of a worker and its decoding process, {memory['seconds']} s of {width}x{height}: "
            f"{memory['peak_mib']:.0f} MiB"
        )
    return lines


def run(size: str) -> dict[str, Any]:
    shape, verbose = SIZES[size], size != "smoke"
    with tempfile.TemporaryDirectory(prefix="semdedup-benchmark-") as text:
        folder = Path(text)
        with local_workers(2) as client:
            speed = measure_speed(client, folder, shape, verbose)
        found = {"speed": speed, "memory": measure_memory(folder, shape, verbose)}
    print("\n".join(report(found)), flush=True)
    return found
