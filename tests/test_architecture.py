"""The tree keeps its shape: which folder imports which, no circles, nothing too long."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "semdedup").rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}

LATER = (
    *("cluster", "compare", "threshold", "leaks", "pairs", "estimate", "results"),
    *("stage", "pipeline", "workflow"),
)
FORBIDDEN = {
    "base": ("cluster", "compare", "leaks", "results", "threshold.run", "stage", "pipeline", "workflow"),
    "frame_input": (*LATER, "input"),
    "input": LATER,
    "cluster": ("compare", "threshold", "leaks", "results", "pipeline", "workflow"),
    "compare": (
        *("cluster", "leaks", "results", "threshold.run", "threshold.stage", "threshold.extract"),
        *("pipeline", "workflow"),
    ),
    "threshold": ("cluster", "leaks", "workflow"),
    "leaks": ("cluster", "pairs", "workflow"),
    "pairs": ("cluster", "pipeline", "workflow"),
    "estimate": ("leaks", "pairs", "results", "threshold.run", "threshold.stage", "pipeline", "workflow"),
    "results": (
        *("cluster", "compare", "leaks", "threshold.run", "threshold.stage", "threshold.extract"),
        *("stage", "pipeline", "workflow"),
    ),
}
"""Parts of `semdedup.dedup` that a folder must not import: data goes one way, from the input to the results."""


def imports(name: str) -> Iterator[str]:
    """The modules of ours that a module imports, wherever in it the import stands."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in MODULES or node.module in MODULES:
                    yield inner if inner in MODULES else node.module


GRAPH = {name: set(imports(name)) - {name, "semdedup"} for name in MODULES}


def within(name: str, folder: str) -> bool:
    return name == folder or name.startswith(folder + ".")


def test_the_graph_is_not_empty() -> None:
    assert "semdedup.dedup.kernels.exact" in GRAPH["semdedup.dedup.kernels.best_match"]


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_data_goes_one_way_through_the_folders_of_dedup(folder: str) -> None:
    forbidden = [f"semdedup.dedup.{part}" for part in FORBIDDEN[folder]]
    found = [
        f"{name} imports {other}"
        for name in GRAPH
        if within(name, f"semdedup.dedup.{folder}")
        for other in sorted(GRAPH[name])
        if any(within(other, part) for part in forbidden)
    ]
    assert not found


OF_DEDUP = ("kernels", "sizes", "input.planned", "results.frames")
"""What `semdedup.overlaps` takes of `semdedup.dedup`, which comes after it: products, sizes, tables as frames."""


def test_overlaps_come_after_videos_and_before_the_dedup() -> None:
    allowed = [f"semdedup.dedup.{part}" for part in OF_DEDUP]
    own = ("cli", "workflow", "updates", "report", "shards", "exports", "dedup")
    for name in (name for name in GRAPH if within(name, "semdedup.overlaps")):
        for other in GRAPH[name]:
            later = any(within(other, f"semdedup.{part}") for part in own)
            assert not later or any(within(other, part) for part in allowed), f"{name} imports {other}"
    for name in (name for name in GRAPH if within(name, "semdedup.video")):
        assert not any(within(other, "semdedup.overlaps") for other in GRAPH[name]), name


def test_kernels_import_numpy_scipy_and_the_array_module_alone() -> None:
    ours = ("semdedup.arrays", "semdedup.errors", "semdedup.dedup.kernels")
    others = sys.stdlib_module_names | {"numpy", "numkong", "scipy"}
    for name in (name for name in GRAPH if within(name, "semdedup.dedup.kernels")):
        for node in ast.walk(TREES[name]):
            found: list[str] = []
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                found = [node.module or ""]
            for module in found:
                assert module.split(".")[0] in others or any(within(module, part) for part in ours), name


def test_no_module_imports_one_that_imports_it() -> None:
    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        rest = [start]
        while rest:
            for other in GRAPH[rest.pop()] - seen:
                seen.add(other)
                rest.append(other)
        return seen

    everything = {name: reached(name) for name in GRAPH}
    circles = {
        frozenset(other for other in everything[name] if name in everything[other])
        for name in GRAPH
        if name in everything[name]
    }
    assert not circles


def test_no_module_is_longer_than_350_lines() -> None:
    found = {name for name, path in MODULES.items() if len(path.read_text(encoding="utf-8").splitlines()) > 350}
    assert not found


def test_no_function_is_longer_than_60_lines_unless_it_says_why() -> None:
    found = {
        (name, node.name)
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > 60
        and "Length:" not in (ast.get_docstring(node) or "")
    }
    assert not found


def test_no_dataclass_has_more_than_ten_fields() -> None:
    found = {
        node.name
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)
        and sum(isinstance(item, ast.AnnAssign) for item in node.body) > 10
    }
    assert not found
