"""What importing semdedup brings along, and what it offers."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

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


KERNELS = sorted((Path(semdedup.__file__).parent / "dedup" / "kernels").glob("*.py"))
OF_KERNELS = {"numpy", "numkong", "semdedup.arrays", "semdedup.errors"}


def imported_modules(tree: ast.AST) -> set[str]:
    """Names of all modules that are imported anywhere in it."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("file", KERNELS, ids=lambda file: file.name)
def test_kernels_import_arrays_alone_and_are_short(file: Path) -> None:
    text = file.read_text()
    tree = ast.parse(text)
    other = {name for name in imported_modules(tree) if name.split(".")[0] not in sys.stdlib_module_names}
    ours = ("semdedup.dedup.kernels.", "scipy.")
    assert {name for name in other if not name.startswith(ours)} <= OF_KERNELS
    called = {node.func.attr for node in ast.walk(tree) if isinstance(node, ast.Call) and hasattr(node.func, "attr")}
    assert not called & {"import_module", "__import__"}
    assert len(text.splitlines()) <= 350
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert {node.name for node in functions if (node.end_lineno or 0) - node.lineno >= 60} == set()


def test_what_kernels_import_of_semdedup_imports_nothing_more_of_it() -> None:
    for name in ("arrays/__init__", "errors"):
        tree = ast.parse((Path(semdedup.__file__).parent / f"{name}.py").read_text())
        assert not {module for module in imported_modules(tree) if module.startswith("semdedup")}
