"""Writing shards beside ``tar cf`` of the same files; and the memory of a worker, whatever the size of a shard."""

import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import distributed
import numpy as np

from benchmarks.workers import MemoryWatch, local_workers, pids
from semdedup.shards.workflow import ShardWorkflow

MIB = 1 << 20
SIZES: dict[str, dict[str, Any]] = {
    "smoke": {"clips": 40, "clip_kib": 32, "rounds": 1, "memory_mib": (1,)},
    "quick": {"clips": 500, "clip_kib": 1024, "rounds": 3, "memory_mib": (64, 1024)},
    "full": {"clips": 4000, "clip_kib": 1024, "rounds": 5, "memory_mib": (64, 1024)},
}


def make_clips(folder: Path, n: int, n_bytes: int) -> Path:
    """Files of random bytes: a tar does not look into them. With metadata, as `split` writes it."""
    rng = np.random.default_rng(0)
    content = rng.bytes(n_bytes)
    for name in ("clips", "metas/v0"):
        (folder / name).mkdir(parents=True)
    for i in range(n):
        (folder / "clips" / f"clip-{i:06d}.mp4").write_bytes(i.to_bytes(8, "big") + content[8:])
        (folder / "metas" / "v0" / f"clip-{i:06d}.json").write_text(f'{{"video": "{i}.mp4", "windows": []}}')
    return folder


def tar_all(files: list[list[str]], inputs: Path, folder: Path) -> float:
    """Seconds of one ``tar cf`` for each list of files, all at once: as many processes as there are workers."""
    started = time.monotonic()
    running = [
        subprocess.Popen(
            ["tar", "cf", str(folder / f"{i}.tar"), "-C", str(inputs), "-T", "-"], stdin=subprocess.PIPE, text=True
        )
        for i in range(len(files))
    ]
    for process, names in zip(running, files, strict=True):
        process.communicate("\n".join(names) + "\n")
    if any(process.returncode for process in running):
        raise RuntimeError("tar failed")
    return time.monotonic() - started


def measure_speed(client: distributed.Client, folder: Path, shape: dict[str, Any], verbose: bool) -> dict[str, Any]:
    """Both with two processes, one beside the other in each round, for the speed of a machine drifts."""
    inputs = make_clips(folder / "in", shape["clips"], shape["clip_kib"] << 10)
    paths = sorted(path for path in inputs.rglob("*") if path.is_file())
    n_bytes = sum(path.stat().st_size for path in paths)
    names = [str(path.relative_to(inputs)) for path in paths]
    halves = [names[0::2], names[1::2]]
    bare, shards, whole = [], [], []
    tar_all(halves, inputs, folder)  # the files are in memory from here on
    for i in range(shape["rounds"]):
        bare.append(tar_all(halves, inputs, folder))
        out = folder / f"out-{i}"
        run = ShardWorkflow(str(inputs), str(out), samples_per_shard=max(1, shape["clips"] // 8), verbose=verbose).run(
            client
        )
        shards.append(run.seconds["write shards"])
        whole.append(run.seconds["total"])
        shutil.rmtree(out)
    return {
        "clips": shape["clips"],
        "bytes": n_bytes,
        "tar_s": statistics.median(bare),
        "write_s": statistics.median(shards),
        "whole_s": statistics.median(whole),
        "write_ratio": statistics.median(a / b for a, b in zip(shards, bare, strict=True)),
        "whole_ratio": statistics.median(a / b for a, b in zip(whole, bare, strict=True)),
    }


def measure_memory(folder: Path, shape: dict[str, Any], verbose: bool) -> list[dict[str, Any]]:
    """The peak of one worker that writes one shard, of many clips and of a single one."""
    found = []
    for mib in shape["memory_mib"]:
        for n_clips in sorted({min(mib, 64), 1}, reverse=True):
            place = folder / f"memory-{mib}-{n_clips}"
            inputs = make_clips(place / "in", n_clips, mib * MIB // n_clips)
            with local_workers(1) as client, MemoryWatch(pids(client), tree=True) as watch:
                ShardWorkflow(str(inputs), str(place / "out"), target_tar_size_mb=2 * mib, verbose=verbose).run(client)
            (before,), (peak,) = watch.start_mib, watch.peaks
            found.append({"shard_mib": mib, "clips": n_clips, "idle_mib": before, "peak_mib": peak})
            shutil.rmtree(place)
    return found


def report(found: dict[str, Any]) -> list[str]:
    speed = found["speed"]

    def line(name: str, seconds: float) -> str:
        return f"  {name:<44}{seconds:8.3f} s   {speed['bytes'] / seconds / MIB:8.0f} MiB/s"

    lines = [
        f"shards of {speed['clips']:,} clips, {speed['bytes'] / MIB:,.0f} MiB, two workers",
        line("tar cf, two processes", speed["tar_s"]),
        line("shard: writing the tars, with SHA-256", speed["write_s"]),
        line("shard: all of it", speed["whole_s"]),
        f"  writing takes {speed['write_ratio']:.2f} x the time of tar, all of it {speed['whole_ratio']:.2f} x",
    ]
    for memory in found["memory"]:
        lines.append(
            f"  peak memory of a worker, a shard of {memory['shard_mib']:,} MiB of {memory['clips']} clips: "
            f"{memory['peak_mib']:.0f} MiB, of which {memory['idle_mib']:.0f} MiB before it began"
        )
    return lines


def run(size: str) -> dict[str, Any]:
    shape, verbose = SIZES[size], size == "full"
    with tempfile.TemporaryDirectory(prefix="semdedup-benchmark-") as text:
        folder = Path(text)
        with local_workers(2) as client:
            speed = measure_speed(client, folder, shape, verbose)
        shutil.rmtree(folder / "in")
        found = {"speed": speed, "memory": measure_memory(folder, shape, verbose)}
    print("\n".join(report(found)), flush=True)
    return found
