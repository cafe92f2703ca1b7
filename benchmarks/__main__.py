"""Run the benchmarks: ``python -m benchmarks [--size smoke|quick|full] [NAME …]``."""

import argparse
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

from benchmarks import results, same_answer, shard, split, whole

BENCHMARKS = {
    "split": split.run,
    "results": results.run,
    "shard": shard.run,
    "whole": whole.run,
    "same_answer": same_answer.run,
}


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    packages = ("semdedup", "av", "numpy", "pyarrow", "dask")
    return {
        "cpus": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which of {', '.join(BENCHMARKS)}; all by default")
    parser.add_argument("--size", choices=["smoke", "quick", "full"], default="quick")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    facts = machine()
    print(", ".join(f"{name} {value}" for name, value in facts.items()), flush=True)
    found = {name: BENCHMARKS[name](options.size) for name in options.names or BENCHMARKS}
    if options.json:
        options.json.write_text(json.dumps({"machine": facts, "size": options.size, **found}, indent=1))


if __name__ == "__main__":
    main()
