"""Which packages of RAPIDS can be imported here, and how long each takes."""

import importlib
import time

PACKAGES = (
    "rmm", "pylibcudf", "cudf", "dask_cudf", "pylibraft.common", "cuml", "cuml.cluster", "ucxx", "dask_cuda",
    "raft_dask.common", "cuml.dask.cluster",
)  # fmt: skip


def main() -> None:
    for name in PACKAGES:
        started = time.perf_counter()
        try:
            importlib.import_module(name)
        except Exception as error:  # a package that is broken may raise anything, and the others are asked too
            print("FAIL", name, type(error).__name__, str(error).replace("\n", " ")[:230])
        else:
            print("OK  ", name, f"{time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
