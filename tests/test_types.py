"""A type checker sees the types of the package: the right script passes, and a word that does not exist is found."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import semdedup

RIGHT = """
import pandas as pd

from semdedup import (
    KMeansStage, Pipeline, RankingStrategy, SemanticDeduplicationWorkflow, __version__, deduplicate, load
)

workflow = SemanticDeduplicationWorkflow("in", "out", eps=0.1, which_to_keep="easy", distance_metric="l2")
rows: int = workflow.run().total
pipeline = Pipeline(name="dedup")
pipeline.add_stage(KMeansStage(n_clusters=10, input_path="in", output_path="out", input_filetype="jsonl"))
best = RankingStrategy.metadata_based(["height"], ascending=False)
frame = pd.DataFrame({"id": [1], "embedding": [[1.0]]})
kept: pd.DataFrame = deduplicate(frame, 0.1, n_clusters=2)
similar: pd.DataFrame = load("out").pairs(0.1, n=3)
for group in load("out").groups(0.1):
    print(group.cluster, __version__, rows, best)
"""

WRONG = """
from semdedup import SemanticDeduplicationWorkflow

SemanticDeduplicationWorkflow("in", "out", which_to_keep="hrad")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for both scripts: what mypy caches for the first, which takes a while, serves the second."""
    pytest.importorskip("mypy", reason="mypy is not installed: pip install 'semdedup[dev]'")
    return tmp_path_factory.mktemp("scripts")


def check(script: Path, text: str) -> subprocess.CompletedProcess[str]:
    """What mypy says of a script that stands elsewhere, and finds the package as any other that is installed."""
    script.write_text(text)
    # In development a package may be installed by an import hook, which type checkers do not see.
    environment = {**os.environ, "PYTHONPATH": str(Path(semdedup.__file__).parent.parent)}
    command = [sys.executable, "-m", "mypy", "--strict", script.name]
    return subprocess.run(command, cwd=script.parent, env=environment, capture_output=True, text=True)


def test_a_users_script_passes_strictly(folder: Path) -> None:
    done = check(folder / "right.py", RIGHT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_word_that_is_no_choice_is_found(folder: Path) -> None:
    done = check(folder / "wrong.py", WRONG)
    assert done.returncode == 1, done.stdout + done.stderr
    assert '"which_to_keep"' in done.stdout
    assert "\"Literal['hrad']\"" in done.stdout
