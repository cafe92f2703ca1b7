"""The fit by cuML beside ours, from the same start: inertia, iterations and seconds.

python -m benchmarks.gpu.engines [ROWS [DIM [CLUSTERS]]]
"""

import sys
import tempfile
import time
from pathlib import Path

from benchmarks.gpu._input import card, write_input
from semdedup import ClusterOptions, KMeansStage
from semdedup.compute.cluster import connect
from semdedup.dedup.names import KMEANS
from semdedup.runs.record import Record
from semdedup.storage.location import Location

WITHIN = 0.01


def main(n_rows: int = 500_000, dim: int = 512, n_clusters: int = 1000) -> None:
    options, found = ClusterOptions(backend="gpu"), {}
    with tempfile.TemporaryDirectory() as name, connect(options) as client:
        folder = Path(name)
        write_input(folder / "in", n_rows, dim, 3 * n_clusters)
        print(f"{n_rows:,} x {dim}, k = {n_clusters:,}, {len(client.nthreads())} workers, {card()}")
        for engine in ("lloyd", "cuml"):
            stage = KMeansStage(
                input_path=str(folder / "in"), output_path=str(folder / engine), n_clusters=n_clusters,
                kmeans_engine=engine,
            )  # fmt: skip
            started = time.perf_counter()
            result = stage.run(client, cluster=options)
            seconds = time.perf_counter() - started
            recorded = Record(Location.of(folder / engine)).committed(KMEANS)
            assert recorded is not None
            facts = recorded["facts"]
            found[engine] = facts["inertia"]
            print(f"  {engine}: inertia {facts['inertia']:.6g}, {facts['iterations']} iterations, {seconds:.1f} s")
            print("   ", {step: round(taken, 2) for step, taken in result.steps.items()})
    ratio = found["cuml"] / found["lloyd"]
    print(f"cuML / Lloyd: {ratio:.5f}", "within 1 %" if abs(ratio - 1) <= WITHIN else "FAULT: not within 1 %")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
