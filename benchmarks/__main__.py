"""Run the benchmarks: ``python -m benchmarks [--size smoke|quick|full] [NAME …]``."""

import argparse
import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks import (
    base,
    client_memory,
    clustering,
    comparison,
    data_path,
    exact,
    frames,
    growth,
    overlaps,
    pairs_peer,
    paper,
    removal,
    results,
    same_answer,
    scale,
    shard,
    split,
    table,
    ten_million,
    whole,
)

BENCHMARKS = {
    "split": split,
    "overlaps": overlaps,
    "results": results,
    "shard": shard,
    "same_answer": same_answer,
    "comparison": comparison,
    "clustering": clustering,
    "data_path": data_path,
    "whole": whole,
    "growth": growth,
    "paper": paper,
    "pairs_peer": pairs_peer,
    "exact": exact,
    "removal": removal,
    "base": base,
    "frames": frames,
    "scale": scale,
    "client_memory": client_memory,
    "ten_million": ten_million,
}
IN_THE_TABLE = (
    "comparison",
    "clustering",
    "data_path",
    "whole",
    "growth",
    "pairs_peer",
    "exact",
    "removal",
    "base",
    "frames",
    "scale",
    "client_memory",
    "ten_million",
    "overlaps",
)
KEEPING = ("ten_million", "overlaps")
"""Those that keep data in `--folder`."""

PACKAGES = ("semdedup", "av", "numpy", "numkong", "scipy", "pyarrow", "dask")
PEERS = ("faiss-cpu", "semhash", "torch", "scikit-learn", "pylance")


def machine() -> dict[str, Any]:
    """What the figures were measured on; a package that is not installed is None."""
    about = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    named = [line.split(":", 1)[1].strip() for line in about.splitlines() if line.startswith("model name")]
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "processor": named[0] if named else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "amx": "amx_tile" in about.split(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
        "blas": f"{blas['name']} {blas['version']}",
        **{name: _version(name) for name in (*PACKAGES, *PEERS)},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which of {', '.join(BENCHMARKS)}; all by default")
    parser.add_argument("--size", choices=["smoke", "quick", "full"], default="quick")
    parser.add_argument("--folder", type=Path, help="where ten_million and overlaps keep their data, to go on")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--from", type=Path, dest="source", help="file of figures to take instead of measuring")
    parser.add_argument("--plot", type=Path, help="file to draw the ratios to")
    parser.add_argument("--readme", type=Path, help="file whose table, between its markers, is written anew")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    if (options.plot or options.readme) and options.names and not set(options.names) & set(IN_THE_TABLE):
        parser.error(f"--plot and --readme show {', '.join(IN_THE_TABLE)}; none of them is to run")
    if options.source:
        found = json.loads(options.source.read_text())
    else:
        found = {"machine": machine(), "size": options.size}
        print(", ".join(f"{name} {value}" for name, value in found["machine"].items()), flush=True)
        for name in options.names or BENCHMARKS:
            folder = {"folder": options.folder} if name in KEEPING else {}
            found[name] = BENCHMARKS[name].run(options.size, **folder)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    rows = [row for name in IN_THE_TABLE if name in found for row in BENCHMARKS[name].rows(found[name])]
    if options.plot:
        table.draw(options.plot, found["machine"], found["size"], rows)
    if options.readme:
        table.rewrite(options.readme, table.markdown(found["machine"], found["size"], rows))


if __name__ == "__main__":
    main()
