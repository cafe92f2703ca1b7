"""Run the benchmarks: ``python -m benchmarks [--size smoke|quick|full] [NAME …]``."""

import argparse
import json
import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import psutil

from benchmarks import (
    base,
    captions,
    client_memory,
    clustering,
    comparison,
    data_path,
    decisions,
    embedders,
    exact,
    frames,
    growth,
    overlaps,
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

IN_THE_TABLE: dict[str, ModuleType] = {
    "comparison": comparison,
    "decisions": decisions,
    "clustering": clustering,
    "data_path": data_path,
    "whole": whole,
    "growth": growth,
    "exact": exact,
    "removal": removal,
    "base": base,
    "frames": frames,
}
"""What ``--readme`` and ``--plot`` measure where nothing is named: at ``--size full`` within half an hour."""

LONGER: dict[str, ModuleType] = {
    "scale": scale,
    "client_memory": client_memory,
    "ten_million": ten_million,
    "overlaps": overlaps,
    "split": split,
    "embedders": embedders,
    "results": results,
    "shard": shard,
    "captions": captions,
    "same_answer": same_answer,
    "paper": paper,
}
"""The others; the table has those of them that are named, or that are in the file of figures already."""

BENCHMARKS = {**IN_THE_TABLE, **LONGER}
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


def begin(size: str, file: Path | None) -> dict[str, Any]:
    """Figures without a benchmark, or those of the file, if it has the size and was measured on a machine like this."""
    found = {"machine": machine(), "size": size, "seconds": {}}
    if file is None or not file.exists():
        return found
    before = json.loads(file.read_text())
    for what in ("machine", "size"):
        if before.get(what) != found[what]:
            raise SystemExit(f"{file} has another {what} than this run; name another file, or remove it")
    return before


def measure(found: dict[str, Any], names: list[str], folder: Path | None, file: Path | None) -> None:
    """Run the named benchmarks, and write the figures to the file after each."""
    for name in names:
        started = time.monotonic()
        kept = {"folder": folder} if name in KEEPING else {}
        found[name] = BENCHMARKS[name].run(found["size"], **kept)
        found["seconds"][name] = round(time.monotonic() - started, 1)
        if file:
            file.write_text(json.dumps(found, indent=1))
    print("seconds:", ", ".join(f"{name} {found['seconds'][name]:.0f}" for name in names), flush=True)


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    given = f"which of {', '.join(BENCHMARKS)}; by default all, or for --readme and --plot {', '.join(IN_THE_TABLE)}"
    parser.add_argument("names", nargs="*", help=given)
    parser.add_argument("--size", choices=["smoke", "quick", "full"], default="quick")
    parser.add_argument("--folder", type=Path, help="where ten_million and overlaps keep their data, to go on")
    written = (
        "file for the figures, written after each benchmark; what is in it already is measured only if it is named"
    )
    parser.add_argument("--json", type=Path, help=written)
    parser.add_argument("--from", type=Path, dest="source", help="file of figures to take instead of measuring")
    parser.add_argument("--plot", type=Path, help="file to draw the ratios to")
    parser.add_argument("--readme", type=Path, help="file whose table, between its markers, is written anew")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    if options.readme:
        table.check(options.readme)
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parsed(arguments)
    if options.source:
        found = json.loads(options.source.read_text())
    else:
        found = begin(options.size, options.json)
        print(", ".join(f"{name} {value}" for name, value in found["machine"].items()), flush=True)
        if there := [name for name in BENCHMARKS if name in found and name not in options.names]:
            print(f"taken from {options.json}: {', '.join(there)}", flush=True)
        everything = IN_THE_TABLE if options.plot or options.readme else BENCHMARKS
        names = options.names or [name for name in everything if name not in found]
        measure(found, names, options.folder, options.json)
    shown = [(module, found[name]) for name, module in BENCHMARKS.items() if name in found and hasattr(module, "rows")]
    rows = [row for module, figures in shown for row in module.rows(figures)]
    if options.plot:
        table.draw(options.plot, found["machine"], found["size"], rows)
    if options.readme:
        table.rewrite(options.readme, table.markdown(found["machine"], found["size"], rows))


if __name__ == "__main__":
    main()
