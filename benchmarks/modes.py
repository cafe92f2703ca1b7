"""Several ways to run the dedup, one beside the other, in rounds; what `exact`, `removal` and `base` have in common."""

import shutil
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from benchmarks.workers import MemoryWatch, local_workers, pids, processor_seconds
from semdedup import SemanticDeduplicationWorkflow

WORKERS, MEMORY, N_FILES = 2, "3GiB", 20

LEAST = 0.03
"""Steps that take a smaller share of a run are not printed."""

Mode = Callable[[Path], SemanticDeduplicationWorkflow]
"""Gives the workflow that writes to a folder."""


def run_mode(mode: Mode, output: Path) -> dict[str, Any]:
    """Run on fresh workers; seconds, counts, what the result says of the pairs, and the workers' highest memory."""
    with local_workers(WORKERS, MEMORY) as client, MemoryWatch(pids(client)) as watch:
        before = processor_seconds(pids(client))
        result = mode(output).run(client)
        if not all(map(psutil.Process.is_running, watch.processes)):
            raise SystemExit("a worker died, most likely for want of memory, and was started again")
        processor = processor_seconds(pids(client)) - before
    return {
        "seconds": result.metadata["total_time"],
        "processor": processor,
        "steps": dict(result.metadata["step_seconds"]),
        "rows": result.total,
        "duplicates": result.duplicates,
        "n_clusters": result.metadata.get("n_clusters"),
        "pairs": dict(result.metadata.get("pairs") or {}),
        "peak_mib": max(watch.peaks),
    }


def beside_the_first(
    modes: Mapping[str, Mode], folder: Path, rounds: int, each: Callable[[str, Path], None] = lambda name, output: None
) -> dict[str, dict[str, Any]]:
    """All modes in rounds, every second one backwards; of each the first run's facts and the medians of its figures.

    Args:
        modes: by name; the first is what the others stand beside.
        folder: to write to; a result is gone when the next run begins.
        rounds: how often.
        each: called with the name and the folder of each result of the first round.

    Returns:
        For each mode the facts of its first run, with ``seconds``, ``processor`` (seconds of the workers' processors,
        which others on the machine disturb less) and ``peak_mib`` the medians of all rounds, and ``ratio``,
        ``processor_ratio`` and ``peak_ratio`` the medians of those to the first mode in the same round.
    """
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in modes}
    for i in range(rounds):
        for name in list(modes)[:: 1 if i % 2 == 0 else -1]:
            measured[name].append(run_mode(modes[name], folder / "output"))
            if i == 0:
                each(name, folder / "output")
            shutil.rmtree(folder / "output")
    first = measured[next(iter(modes))]
    return {name: {**runs[0], **_medians(runs, first)} for name, runs in measured.items()}


def _medians(runs: list[dict[str, Any]], first: list[dict[str, Any]]) -> dict[str, float]:
    found = {}
    for figure, ratio in (
        ("seconds", "ratio"),
        ("processor", "processor_ratio"),
        ("peak_mib", "peak_ratio"),
    ):
        found[figure] = statistics.median(run[figure] for run in runs)
        found[ratio] = statistics.median(run[figure] / one[figure] for run, one in zip(runs, first, strict=True))
    return found


def report(found: Mapping[str, Mapping[str, Any]], allowed: Mapping[str, float] | None = None) -> list[str]:
    """A line for each mode: time and memory, and their ratios to the first's; with what each is allowed."""
    lines, first = [], next(iter(found))
    for name, mode in found.items():
        beside = f" = {mode['ratio']:5.2f} × {first}" if name != first else ""
        bar = f" (at most {allowed[name]:g} ×)" if allowed and name in allowed else ""
        memory = f" ({mode['peak_ratio']:.2f} ×)" if name != first else ""
        lines.append(
            f"    {name:<24}{mode['seconds']:9.2f} s{beside}{bar}; of processors {mode['processor']:.1f} s "
            f"({mode['processor_ratio']:.2f} ×); {mode['duplicates']:,} duplicates"
        )
        lines.append(f"      most memory of a worker {mode['peak_mib']:,.0f} MiB{memory}")
        told = [f"{step} {seconds:.1f}" for step, seconds in mode["steps"].items() if seconds > LEAST * mode["seconds"]]
        lines.append(f"      steps of one run in seconds: {', '.join(told)}")
        if every := mode["pairs"].get("pairs"):
            left = (f"{fact} {number:,} ({number / every:.3g})" for fact, number in mode["pairs"].items())
            lines.append(f"      pairs in different clusters, and what each bound left: {', '.join(left)}")
    return lines
