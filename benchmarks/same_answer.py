"""One answer, however the work is cut: files, workers and batch sizes vary, scores and ids must not."""

import itertools
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.data import make_rows, write_files
from benchmarks.workers import local_workers
from semdedup import SemanticDeduplicationWorkflow

SIZES: dict[str, dict[str, Any]] = {
    "smoke": {"n_rows": 3_000, "dim": 24, "n_clusters": 7, "n_files": (1, 7)},
    "quick": {"n_rows": 50_000, "dim": 128, "n_clusters": 60, "n_files": (1, 2, 7)},
    "full": {"n_rows": 1_000_000, "dim": 256, "n_clusters": 1000, "n_files": (1, 2, 7)},
}
N_WORKERS, BATCH_SIZES = (1, 2), (64, 4096)


def answer(outputs: Path) -> tuple[pa.Table, pa.Table]:
    """Every score, and every id to drop, in the order of the ids."""
    return pq.read_table(outputs / "pairwise_results").sort_by("id"), pq.read_table(outputs / "duplicates").sort_by(
        "id"
    )


def compare_answers(size: str, folder: Path) -> dict[str, Any]:
    shape = SIZES[size]
    rows = make_rows(shape["n_rows"], shape["dim"], n_topics=shape["n_clusters"])
    for n_files in shape["n_files"]:
        write_files(folder / f"input-{n_files}", rows, n_files, seed=n_files)
    del rows
    answers: dict[str, Any] = {}
    first = None
    for n_workers in N_WORKERS:
        with local_workers(n_workers, "2GiB") as client:
            for n_files, batch_size in itertools.product(shape["n_files"], BATCH_SIZES):
                outputs = folder / f"output-{n_files}-{n_workers}-{batch_size}"
                workflow = SemanticDeduplicationWorkflow(
                    str(folder / f"input-{n_files}"),
                    str(outputs),
                    shape["n_clusters"],
                    eps=0.01,
                    pairwise_batch_size=batch_size,
                    verbose=False,
                )
                started = time.monotonic()
                workflow.run(client)
                seconds = time.monotonic() - started
                scores, duplicates = answer(outputs)
                shutil.rmtree(outputs)
                first = first or (scores, duplicates)
                same = scores.equals(first[0]) and duplicates.equals(first[1])
                name = f"{n_files} files, {n_workers} workers, batches of {batch_size}"
                answers[name] = {"same": same, "duplicates": len(duplicates), "seconds": seconds}
    return {**shape, "answers": answers}


def run(size: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="semdedup-benchmark-") as folder:
        found = compare_answers(size, Path(folder))
    print(f"the same answer for {found['n_rows']:,} × {found['dim']}, {found['n_clusters']} clusters:")
    for name, answer_found in found["answers"].items():
        verdict = "identical" if answer_found["same"] else "DIFFERENT"
        print(f"  {name:<44}{verdict}, {answer_found['duplicates']:,} duplicates, {answer_found['seconds']:.1f} s")
    if not all(answer_found["same"] for answer_found in found["answers"].values()):
        raise SystemExit("the answer depends on how the work was cut")
    return found
