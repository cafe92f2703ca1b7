"""Memory of the client: an input of many files listed, and `shard` planned for many clips, each in its own process.

Files are real and empty but for a byte. Clips are those of a bucket that answers from a counter, so that there may be
ten million: what asks it, and all that follows, is what a run does.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec

from benchmarks.table import Row

SIZES: dict[str, dict[str, Any]] = {
    "smoke": {"n_files": 2_000, "n_folders": 20, "n_clips": 5_000},
    "quick": {"n_files": 100_000, "n_folders": 100, "n_clips": 1_000_000},
    "full": {"n_files": 1_000_000, "n_folders": 1_000, "n_clips": 10_000_000},
}
MOST_OF_FILES, MOST_OF_CLIPS = 220 * 2**20, 2.5 * 2**30
"""Bytes that 1,000,000 listed files may add to a client, and bytes that a client may take for 10,000,000 clips."""

BUCKET, PAGE = "bucket", 1_000


class Counter(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """A bucket of clips and metadata, as far as listings ask for it. Keys are made of numbers, in their order."""

    protocol = "s3"
    version_aware = False
    req_kw: Mapping[str, Any] = {}

    def __init__(self, n_clips: int, with_metas: bool, **_: Any) -> None:
        super().__init__()
        self.folders = {"clips/": (n_clips, ".mp4"), "metas/v0/": (n_clips * with_metas, ".json")}

    def connect(self) -> None:
        """As s3fs does it."""

    def split_path(self, url: str) -> tuple[str, str, None]:
        """As s3fs does it."""
        bucket, _, key = url.removeprefix("s3://").partition("/")
        return bucket, key, None

    def call_s3(self, method: str, *, Prefix: str, ContinuationToken: str = "0", **_: Any) -> dict[str, Any]:
        """One page of a listing."""
        assert method == "list_objects_v2"
        n, ending = self.folders.get(Prefix, (0, ""))
        first = int(ContinuationToken)
        last = min(first + PAGE, n)
        found = [
            {
                "Key": f"{Prefix}{i:08x}-7c1d-4e5f-8a9b-{i:012x}{ending}",
                "Size": 1_000_000 + i % 1_000,
                "ETag": f'"{i:032x}"',
            }
            for i in range(first, last)
        ]
        return {"Contents": found, "IsTruncated": last < n, "NextContinuationToken": str(last)}

    def exists(self, url: str, **_: Any) -> bool:
        """Whether a folder is there; the bucket holds no other files that anybody asks for."""
        return self.isdir(url)

    def isdir(self, url: str) -> bool:
        """Whether there are keys below."""
        key = self.split_path(url)[1]
        return any(folder.startswith(f"{key}/" if key else "") and n for folder, (n, _) in self.folders.items())

    def info(self, url: str, **_: Any) -> dict[str, Any]:
        """No file is there."""
        raise FileNotFoundError(url)


def peak_bytes() -> int:
    """The most memory that this process has held."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def list_files(folder: str) -> dict[str, Any]:
    """List an input as `dedup` does, and identify it."""
    import semdedup.workflow  # noqa: F401
    from semdedup.dedup.input.files import find_files
    from semdedup.runs.identity import fingerprint
    from semdedup.storage.location import Location

    idle, started = peak_bytes(), time.monotonic()
    files = find_files([Location.of(folder)], "parquet", recorded=True)
    seconds = time.monotonic() - started
    identity = fingerprint(files)
    return {"n": len(files), "idle": idle, "peak": peak_bytes(), "seconds": seconds, "bytes": identity["bytes"]}


def plan_clips(n_clips: int, with_metas: bool, seed: int | None) -> dict[str, Any]:
    """List clips as `shard` does, identify them, and cut them into partitions."""
    from semdedup.runs.identity import fingerprint_of
    from semdedup.shards.inputs import find_inputs
    from semdedup.shards.plan import plan_once
    from semdedup.shards.workflow import ShardWorkflow  # noqa: F401
    from semdedup.storage.location import Location

    idle, started = peak_bytes(), time.monotonic()
    fsspec.register_implementation("s3", Counter, clobber=True)
    root = Location(f"s3://{BUCKET}", {"n_clips": n_clips, "with_metas": with_metas})
    inputs = find_inputs(root, Location("/nowhere"), "v0", False)
    listed, identity = time.monotonic() - started, fingerprint_of([inputs.clips, inputs.metas])
    with tempfile.TemporaryDirectory(prefix="semdedup-benchmark-") as scratch:
        plan = plan_once(Location(scratch), inputs, None, seed)
    return {
        **{"n": len(inputs.clips), "idle": idle, "peak": peak_bytes(), "listed": listed},
        **{"seconds": time.monotonic() - started, "partitions": len(plan.bounds), "bytes": identity["bytes"]},
    }


CALLS = {"files": list_files, "clips": plan_clips}


def in_a_process(name: str, *args: Any) -> dict[str, Any]:
    """What one of `CALLS` tells of itself, called in a process of its own."""
    call = [sys.executable, "-m", "benchmarks.client_memory", name, json.dumps(args)]
    found: dict[str, Any] = json.loads(subprocess.run(call, check=True, capture_output=True).stdout)
    return found


def make_files(top: Path, n_files: int, n_folders: int) -> None:
    """Files of a byte, in folders."""
    for folder in range(n_folders):
        (top / f"part-{folder:05d}").mkdir()
    for i in range(n_files):
        place = os.open(top / f"part-{i % n_folders:05d}" / f"embeddings-{i:09d}.parquet", os.O_CREAT | os.O_WRONLY)
        os.write(place, b"x")
        os.close(place)


def run(size: str) -> dict[str, Any]:
    """Measure and print; return the figures."""
    shape = SIZES[size]
    with tempfile.TemporaryDirectory(prefix="semdedup-benchmark-") as name:
        make_files(Path(name), shape["n_files"], shape["n_folders"])
        found = {"files": in_a_process("files", name)}
    found["clips"] = in_a_process("clips", shape["n_clips"], False, None)
    found["clips with metadata"] = in_a_process("clips", shape["n_clips"], True, None)
    found["clips with metadata, shuffled"] = in_a_process("clips", shape["n_clips"], True, 1)
    print("\n".join(report(found)), flush=True)
    return found


def report(found: dict[str, Any]) -> list[str]:
    """The figures in lines of text."""
    lines = ["memory of the client, MiB"]
    for name, each in found.items():
        grown = each["peak"] - each["idle"]
        lines.append(
            f"  {each['n']:>12,} {name:<32}{each['idle'] / 2**20:>8,.0f} idle{grown / 2**20:>8,.0f} more"
            f"{grown / each['n']:>8,.0f} bytes each{each['seconds']:>8,.1f} s"
        )
    return lines


def rows(found: dict[str, Any]) -> list[Row]:
    """What a file and a clip take, beside what they may."""
    files, clips = found["files"], found["clips with metadata, shuffled"]
    grown = files["peak"] - files["idle"]
    return [
        Row(
            "a client that lists files",
            f"{files['n']:,} files",
            f"{grown / 2**20:,.0f} MiB",
            "220 MiB a million",
            grown / files["n"] / (MOST_OF_FILES / 1e6),
        ),
        Row(
            "a client that plans shards",
            f"{clips['n']:,} clips",
            f"{clips['peak'] / 2**20:,.0f} MiB",
            "2.5 GiB for ten million",
            clips["peak"] / clips["n"] / (MOST_OF_CLIPS / 1e7),
        ),
    ]


if __name__ == "__main__":
    print(json.dumps(CALLS[sys.argv[1]](*json.loads(sys.argv[2]))))
