"""The benchmarks run, at their smallest size, so that they are not found broken on the day they are needed."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_benchmarks_run_and_print_ratios(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--size", "smoke", "--json", str(tmp_path / "found.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert "everything that is neither" in done.stdout
    assert "DIFFERENT" not in done.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["whole"]["duplicates"] > 0
    assert all(answer["same"] for answer in found["same_answer"]["answers"].values())
