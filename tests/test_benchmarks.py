"""The benchmarks run, at their smallest size, so that they are not found broken on the day they are needed."""

import importlib
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import matplotlib.image
import pytest

from benchmarks import gpu, peers, table
from benchmarks.__main__ import main

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_benchmarks_run_and_print_ratios(tmp_path: Path) -> None:
    figures, plot, readme = tmp_path / "found.json", tmp_path / "plot.png", tmp_path / "README.md"
    readme.write_text(f"before\n\n{table.BEGIN}\nold\n{table.END}\n\nafter\n")
    outputs = ["--json", str(figures), "--plot", str(plot), "--readme", str(readme)]
    command = [sys.executable, "-m", "benchmarks", "--size", "smoke", *outputs]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=560, check=False)
    assert done.returncode == 0, done.stderr
    assert "everything that is neither" in done.stdout
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
        *found["comparison"]["shapes"][0]["found"],
        *found["clustering"]["cases"][0]["fits"],
        *found["pairs_peer"]["seconds"],
    }
    for name, (package, _) in {**peers.COMPARISON, **peers.CLUSTERING, **peers.PAIRS}.items():
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
