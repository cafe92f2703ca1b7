"""What importing semdedup brings along, and what it offers."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import semdedup
from semdedup import errors

HEAVY = {"cupy", "cudf", "cuml", "dask_cuda", "dask_cudf", "raft_dask", "torch", "sklearn"}


def test_importing_needs_no_gpu_and_none_of_its_packages() -> None:
    modules = "semdedup, semdedup.cli, semdedup.demo, semdedup.doctor"
    code = f"import sys, {modules}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & HEAVY
    assert not done.stderr


def test_the_public_names_are_a_sorted_list_and_all_there() -> None:
    assert semdedup.__all__ == sorted(set(semdedup.__all__))
    assert all(hasattr(semdedup, name) for name in semdedup.__all__)


def test_the_version_is_listed_and_types_are_marked() -> None:
    assert {*semdedup.__all__, "__version__"} <= set(dir(semdedup))
    assert Path(semdedup.__file__).with_name("py.typed").exists()


def test_the_list_is_the_same_for_type_checkers_and_at_run_time() -> None:
    stub = ast.parse(Path(semdedup.__file__).with_suffix(".pyi").read_text())
    (listed,) = (ast.literal_eval(node.value) for node in stub.body if isinstance(node, ast.Assign))
    imported = [alias.name for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert listed == sorted(imported) == semdedup.__all__


def test_the_process_that_decodes_imports_little() -> None:
    code = "import sys, semdedup.video.child, semdedup.video.cut; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"dask", "distributed", "pandas", "pyarrow", "scipy", "matplotlib"}


def test_every_public_name_says_what_it_is() -> None:
    assert all(inspect.getdoc(getattr(semdedup, name)) for name in semdedup.__all__)


def test_every_error_has_the_one_base_is_public_and_parameter_errors_are_value_errors() -> None:
    found = [value for value in vars(errors).values() if isinstance(value, type)]
    assert all(issubclass(error, semdedup.SemdedupError) for error in found)
    assert {error.__name__ for error in found} == {name for name in semdedup.__all__ if name.endswith("Error")}
    assert issubclass(semdedup.ParameterError, ValueError)
    assert [error for error in found if issubclass(error, ValueError)] == [semdedup.ParameterError]
