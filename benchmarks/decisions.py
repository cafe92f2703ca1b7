"""Which rows go and which pairs are listed, on one thread: the time of everybody, and what each misses or flips.

Three questions about the rows of one cluster, best-ranked first: which match a better-ranked one (`any`), which match
one that stays (`witness`), and which pairs match (`pairs`). The exact answer is that of `answers`, in float64 by NumPy.
Rows are planted ones, rows like real ones, and embeddings of clips of the videos in the folder that ``SEMDEDUP_VIDEOS``
names, cut every few frames.

What somebody makes of the rows before the comparison (an index of Lance, rows in float16) is no part of its time.
"""

import os
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.dataset as ds

from benchmarks.answers import Answer, Difference, difference_of_pairs, difference_of_rows, exact_answer
from benchmarks.data import make_rows
from benchmarks.peers import ANY, PAIRS, WITNESS, Prepare, those_installed
from benchmarks.real_like import real_like_rows
from benchmarks.table import Row
from benchmarks.timing import process, seconds_of
from benchmarks.workers import local_workers
from semdedup import VideoSplitWorkflow, max_similarity
from semdedup.dedup.kernels.bounds import short_rows
from semdedup.dedup.kernels.exact import unit_rows
from semdedup.dedup.kernels.greedy import removal_in_rank_order
from semdedup.dedup.kernels.join import Side
from semdedup.dedup.pairs.match import choose_width, every_match
from semdedup.dedup.threshold.recommended import recommended_eps
from semdedup.storage.location import Location

SIZES: dict[str, dict[str, Any]] = {
    "smoke": {"rows": 1_000, "dim": 48, "clips": 100, "rounds": 1},
    "quick": {"rows": 5_000, "dim": 512, "clips": 2_000, "rounds": 1},
    "full": {"rows": 20_000, "dim": 512, "clips": 5_000, "rounds": 2},
}
GIVEN = "SEMDEDUP_VIDEOS"
OURS = "semdedup"
ONCE_ABOVE_S = 5
"""What takes longer is measured once."""

SAMPLE = 8192
"""Rows that the axes of the short product are taken from, as `find_pairs` does."""

CLIP_S, SHORTEST_STRIDE_S = 1.0, 0.05


def any_here(rows: np.ndarray, eps: float, folder: Path) -> Callable[[], np.ndarray]:
    return lambda: max_similarity(rows)[0] >= np.float32(1 - eps)


def witness_here(rows: np.ndarray, eps: float, folder: Path) -> Callable[[], np.ndarray]:
    least = np.float32(1 - eps)
    return lambda: removal_in_rank_order(rows, *max_similarity(rows), least).witness >= 0


def pairs_here(rows: np.ndarray, eps: float, folder: Path) -> Callable[[], np.ndarray]:
    """What `find_pairs` computes of rows that one task holds."""
    least = np.float32(1 - eps)

    def find() -> np.ndarray:
        _, axes = choose_width(rows[:: max(1, len(rows) // SAMPLE)], least)
        side = Side(rows, short_rows(rows, axes) if axes.shape[1] else rows, np.array([0, len(rows)]), None)
        found = [np.stack([each.left, each.right], axis=1) for each in every_match(side, side, least, Counter())]
        return np.concatenate([np.empty((0, 2), dtype=np.int64), *found])

    return find


QUESTIONS: dict[str, tuple[str, Prepare, dict[str, tuple[str, Prepare]], Callable[..., Difference]]] = {
    "any": ("rows that go, `any`", any_here, ANY, difference_of_rows),
    "witness": ("rows that go, `witness`", witness_here, WITNESS, difference_of_rows),
    "pairs": ("all pairs", pairs_here, PAIRS, difference_of_pairs),
}
"""By the name of the exact answer: what the table says, who answers here and elsewhere, and how answers differ."""


def video_rows(videos: Path, most: int) -> tuple[np.ndarray, float]:
    """Embeddings of about so many clips of a second of the videos of a folder, and the eps recommended for them."""
    lengths = [_seconds(path) for path in sorted(videos.iterdir())]
    stride = max(SHORTEST_STRIDE_S, sum(lengths) / most)
    with tempfile.TemporaryDirectory(prefix="semdedup-benchmark-") as name, local_workers(2) as client:
        workflow = VideoSplitWorkflow(
            str(videos),
            name,
            upload_clips=False,
            fixed_stride_split_duration=CLIP_S,
            fixed_stride_stride_s=stride,
            fixed_stride_min_clip_length_s=CLIP_S,
            verbose=False,
        )
        workflow.run(client)
        files = sorted(map(str, Path(name).glob("*_embd_parquet/*.parquet")))
        eps = recommended_eps(list(map(Location.of, files)))
        table = ds.dataset(files).sort_by([("video", "ascending"), ("start_s", "ascending")]).to_table()
        column = table["embedding"].combine_chunks()
    assert eps is not None
    return unit_rows(column.flatten().to_numpy().reshape(len(column), -1)), eps


def _seconds(path: Path) -> float:
    with av.open(str(path)) as container:
        return (container.duration or 0) / av.time_base


def data_sets(shape: dict[str, Any]) -> dict[str, tuple[np.ndarray, float]]:
    """Rows (n, d) float32 of length 1 in an order without meaning, and the eps to ask at, by name."""
    n, d = shape["rows"], shape["dim"]
    found = {
        "planted copies": (unit_rows(make_rows(n, d, n_topics=20)), 0.01),
        "like real rows": (real_like_rows(n, d), 0.1),
    }
    if given := os.environ.get(GIVEN):
        found["clips of real videos"] = video_rows(Path(given), shape["clips"])
    shuffle = np.random.default_rng(0).permutation
    return {name: (np.ascontiguousarray(rows[shuffle(len(rows))]), eps) for name, (rows, eps) in found.items()}


def measure(folder: Path, rows: np.ndarray, eps: float, rounds: int) -> dict[str, Any]:
    """For each question everybody's seconds and differences from the exact answer; in a process of one thread."""
    exact, found = exact_answer(rows, eps), {}
    for question in QUESTIONS:
        found[question] = answer(question, folder, rows, eps, exact, rounds)
    return {"rows": len(rows), "dim": rows.shape[1], "eps": eps, "questions": found}


def answer(
    question: str, folder: Path, rows: np.ndarray, eps: float, exact: Answer, rounds: int
) -> dict[str, dict[str, Any]]:
    """Seconds, and ratio of ours to them, each the median of the rounds, and what is missed and wrong, of how many."""
    _, here, peers, difference = QUESTIONS[question]
    installed = those_installed(peers)
    everybody = {OURS: here, **installed}
    for prepare in everybody.values():  # so that nothing is loaded while it is timed
        folder.joinpath("warm").mkdir(exist_ok=True)
        prepare(np.ascontiguousarray(rows[:300]), eps, folder / "warm")()
    calls = {name: prepare(rows, eps, folder) for name, prepare in everybody.items()}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    ratios: dict[str, list[float]] = {name: [] for name in calls}
    differences: dict[str, Difference] = {}
    for _ in range(rounds):
        for name, call in calls.items():
            if seconds[name] and seconds[name][0] > ONCE_ABOVE_S:
                continue
            answers: list[np.ndarray] = []
            seconds[name].append(seconds_of(lambda call=call, answers=answers: answers.append(call())))
            ratios[name].append(seconds[OURS][-1] / seconds[name][-1])
            differences[name] = difference(answers[0], getattr(exact, question))
    return {
        name: {
            "seconds": statistics.median(seconds[name]),
            "ratio": statistics.median(ratios[name]),
            **differences[name]._asdict(),
        }
        for name in calls
    }


def report(name: str, found: dict[str, Any]) -> list[str]:
    """The figures of one set of rows in lines of text."""
    lines = [f"{name}: {found['rows']:,} × {found['dim']}, eps {found['eps']:g}; missed / wrong of the exact answer"]
    for question, everybody in found["questions"].items():
        lines.append(f"  {QUESTIONS[question][0]}")
        for who, figures in everybody.items():
            beside = "" if who == OURS else f", {1 / figures['ratio']:.1f} × as long"
            lines.append(f"    {who:<44}{figures['seconds']:9.3f} s  {_difference(figures)}{beside}")
    return lines


def _difference(figures: dict[str, Any]) -> Difference:
    return Difference(figures["missed"], figures["wrong"], figures["of"])


def run(size: str) -> dict[str, Any]:
    """Measure and print; return the figures."""
    shape, found = SIZES[size], {}
    print("decisions on one thread", flush=True)
    for name, (rows, eps) in data_sets(shape).items():
        with tempfile.TemporaryDirectory(prefix="semdedup-benchmark-") as folder, process() as call:
            found[name] = call(measure, Path(folder), rows, eps, shape["rounds"])
        print("\n".join(report(name, found[name])), flush=True)
        for question, everybody in found[name]["questions"].items():
            if everybody[OURS]["missed"] or everybody[OURS]["wrong"]:
                raise SystemExit(f"the answer here to {question} is not exact: {_difference(everybody[OURS])}")
    if GIVEN not in os.environ:
        print(f"  {GIVEN} names no folder: no clips of real videos")
    return {"data": found}


def rows(found: dict[str, Any]) -> list[Row]:
    """Every peer beside us on every set of rows, with what it misses and flips."""
    lines = []
    for name, each in found["data"].items():
        size = f"{each['rows']:,} × {each['dim']}, {name}, eps {each['eps']:.2g}"
        for question, everybody in each["questions"].items():
            what, ours = QUESTIONS[question][0], f"{everybody[OURS]['seconds']:.3g} s"
            lines += [
                Row(what, size, ours, who, figures["ratio"], peer=True, missed=str(_difference(figures)))
                for who, figures in everybody.items()
                if who != OURS
            ]
    return lines
