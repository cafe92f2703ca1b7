"""What importing semdedup brings along, and what it offers."""

import subprocess
import sys

import semdedup
from semdedup import errors


def test_importing_needs_no_gpu_and_none_of_its_packages() -> None:
    code = "import sys, semdedup, semdedup.cli; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"cupy", "cudf", "cuml", "dask_cuda", "dask_cudf", "raft_dask", "torch", "sklearn"}


def test_the_public_names_are_a_sorted_list_and_all_there() -> None:
    assert semdedup.__all__ == sorted(semdedup.__all__)
    assert all(hasattr(semdedup, name) for name in semdedup.__all__)


def test_every_error_has_the_one_base_and_parameter_errors_are_value_errors() -> None:
    found = [value for value in vars(errors).values() if isinstance(value, type)]
    assert len(found) > 5
    assert all(issubclass(error, semdedup.SemdedupError) for error in found)
    assert issubclass(semdedup.ParameterError, ValueError)
