"""The benchmarks run, at their smallest size, so that they are not found broken on the day they are needed."""

import importlib
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from benchmarks import gpu, peers, table
from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.answers import Difference, difference_of_pairs, difference_of_rows, exact_answer
from benchmarks.data import make_rows
from benchmarks.loops import Loop, curator_1_3, curator_1_4
from semdedup.dedup.kernels.exact import unit_rows

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_benchmarks_run_and_print_ratios(tmp_path: Path) -> None:
    figures, plot, readme = tmp_path / "found.json", tmp_path / "plot.png", tmp_path / "README.md"
    readme.write_text(f"before\n\n{table.BEGIN}\nold\n{table.END}\n\nafter\n")
    outputs = ["--json", str(figures), "--plot", str(plot), "--readme", str(readme)]
    command = [sys.executable, "-m", "benchmarks", *BENCHMARKS, "--size", "smoke", *outputs]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=560, check=False)
    assert done.returncode == 0, done.stderr
    assert "all products in float32" in done.stdout
    assert "DIFFERENT" not in done.stdout
    found = json.loads(figures.read_text())
    assert found["machine"]["cores"] >= 1
    assert found["whole"]["duplicates"] > 0
    assert all(case["completes"] for case in found["scale"].values())
    assert "hours in all" in done.stdout
    assert all(answer["same"] for answer in found["same_answer"]["answers"].values())
    overlaps = found["overlaps"]["planted"]["plain"]
    assert {each["planted"] for each in overlaps["changes"].values()} == {2}
    assert overlaps["strangers"] > 0
    measured = {
        *found["clustering"]["cases"][0]["fits"],
        *(who for everybody in found["decisions"]["data"]["planted copies"]["questions"].values() for who in everybody),
    }
    for name, (package, _) in {**peers.ANY, **peers.WITNESS, **peers.PAIRS, **peers.CLUSTERING}.items():
        assert name in done.stdout, f"{name} was neither measured nor said to be missing"
        assert (name in measured) == (find_spec(package) is not None)
    assert matplotlib.image.imread(plot).shape[0] > 100
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert text.count("\n| ") > 8
    again = tmp_path / "again.md"
    again.write_text(f"{table.BEGIN}{table.END}")
    main(["--from", str(figures), "--readme", str(again)])
    assert again.read_text() in text


def test_the_exact_answer_of_rows_in_a_plane_is_the_one_drawn_on_paper() -> None:
    angles = np.radians([0, 8, 16, 90, 24, 91])  # within 10 degrees: a chain of four, and a pair
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    answer = exact_answer(rows, float(1 - np.cos(np.radians(10))))
    assert answer.pairs.tolist() == [[0, 1], [1, 2], [2, 4], [3, 5]]
    assert answer.any.tolist() == [False, True, True, False, True, True]
    assert answer.witness.tolist() == [False, True, False, False, True, True]


def test_differences_tell_what_is_missed_from_what_is_wrong() -> None:
    goes, exact = np.array([True, True, False, False]), np.array([True, False, True, True])
    assert difference_of_rows(goes, exact) == Difference(missed=2, wrong=1, of=3)
    pairs = np.array([[1, 0], [0, 1], [4, 5]])
    assert difference_of_pairs(pairs, np.array([[0, 1], [2, 3]])) == Difference(missed=1, wrong=1, of=2)
    assert str(Difference(1, 0, 2000)) == "1 / 0 of 2,000"


@pytest.mark.parametrize("loop", [curator_1_3, curator_1_4])
@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-6), ("float16", 2e-3)])
def test_the_loops_of_peers_find_the_best_of_the_better_ranked_rows(loop: Loop, dtype: str, error: float) -> None:
    rows = unit_rows(make_rows(300, 24, n_topics=3))
    exact = np.triu(rows.astype(np.float64) @ rows.T.astype(np.float64), 1)
    score, index = loop(np, rows.astype(dtype), 128)
    assert score.dtype == dtype
    assert np.abs(score - exact.max(axis=0)).max() < error
    assert (exact[index, np.arange(300)] >= exact.max(axis=0) - 2 * error).all()
    assert (score[0], index[0]) == (0, 0)


def test_figures_of_a_file_are_not_measured_again_and_those_of_another_size_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures, readme = tmp_path / "found.json", tmp_path / "README.md"
    readme.write_text(f"{table.BEGIN}{table.END}")
    for name in ("decisions", "removal"):
        monkeypatch.setitem(BENCHMARKS, name, _Stub(name))
    main(["decisions", "--size", "smoke", "--json", str(figures)])
    main(["removal", "--size", "smoke", "--json", str(figures), "--readme", str(readme)])
    assert list(json.loads(figures.read_text())["seconds"]) == ["decisions", "removal"]
    assert "taken from" in capsys.readouterr().out
    assert readme.read_text().count("| 1 / 2 of 3 |") == 2
    with pytest.raises(SystemExit, match="another size"):
        main(["removal", "--size", "quick", "--json", str(figures)])


class _Stub:
    """A benchmark that takes no time."""

    def __init__(self, name: str) -> None:
        self.name = name

    def run(self, size: str) -> dict[str, str]:
        return {"name": self.name, "size": size}

    def rows(self, found: dict[str, str]) -> list[table.Row]:
        return [table.Row(found["name"], found["size"], "1 s", "a peer", 0.5, True, str(Difference(1, 2, 3)))]


def test_peers_that_are_not_installed_are_left_out_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    listed = {"somebody": ("no_such_package_anywhere", print), "NumPy": ("numpy", print)}
    assert list(peers.those_installed(listed)) == ["NumPy"]
    assert "somebody" in capsys.readouterr().out


def test_a_readme_without_markers_is_refused(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("no markers")
    with pytest.raises(SystemExit, match="markers"):
        table.rewrite(readme, "table")
    assert readme.read_text() == "no markers"


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "benchmarks" / "gpu").glob("[!_]*.py")))
def test_what_is_for_the_gpu_can_be_imported_without_one_and_is_listed(name: str) -> None:
    assert callable(importlib.import_module(f"benchmarks.gpu.{name}").main)
    assert f"benchmarks.gpu.{name}" in (gpu.__doc__ or "")
