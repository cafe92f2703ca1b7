"""A type checker sees the types of the package: right scripts pass, and a word that does not exist is found."""

import os
import re
import subprocess
import sys
from inspect import isfunction
from pathlib import Path
from typing import get_type_hints

import pytest

import semdedup
from semdedup import SemanticDeduplicationWorkflow
from semdedup.dedup.keywords import DedupKeywords
from semdedup.settings.shared import SharedKeywords

CONFIG = """
[mypy]
strict = true
follow_imports = skip
[mypy-semdedup.*,dask.*,numpy.*,pandas.*]
follow_imports = normal
"""
"""Of what the package imports, only what stands in its signatures is read: all of it takes ten times as long."""

SCRIPT = """
from collections.abc import Mapping

import numpy as np
import pandas as pd
import semdedup
from semdedup import (
    ClusterOptions, CrossStage, IdentifyDuplicatesStage, KMeansStage, Limits, PairsStage, PairwiseStage, Pipeline,
    PlanOptions, RankingStrategy, SemanticDeduplicationWorkflow, SemdedupError, ShardWorkflow,
    VideoCaptionWorkflow,
    VideoDeduplicationWorkflow, VideoEmbedWorkflow, VideoSplitWorkflow, __version__, calibrate, deduplicate, estimate,
    export, extract, find_leaks, find_overlaps, find_pairs, frames, load, max_similarity, plot_curve, read_clusters,
    read_duplicates, read_embeddings, read_scores, read_witnesses, show_pairs, write_report,
)

workflow = SemanticDeduplicationWorkflow("in", "out", eps=0.1, which_to_keep="easy", distance_metric="l2")
result = workflow.run(cluster=ClusterOptions(n_workers=2, backend="cpu"))
rows: int = result.total
pipeline = Pipeline(name="dedup")
pipeline.add_stage(KMeansStage(n_clusters="auto", input_path="in", output_path="out", input_filetype="jsonl"))
pipeline.add_stage(PairwiseStage(output_path="out", ranking_strategy=RankingStrategy.random(7)))
pipeline.add_stage(IdentifyDuplicatesStage(0.1, output_path="out", removal="witness"))
facts: Mapping[str, object] = pipeline.run()[-1].facts
best = RankingStrategy.metadata_based(["height"], ascending=False)
held = pd.DataFrame({"id": [1], "embedding": [[1.0]]})
kept: pd.DataFrame = deduplicate(held, 0.1, n_clusters=2)
similar: pd.DataFrame = load("out").pairs(0.1, n=3)
for group in load("out").groups(0.1):
    print(f"{group.kept}.mp4", [pair.score + 1 for pair in group.dropped], __version__, rows, best)
result.show(3)
result.show(3, 0.1, borderline=True, clips=["clips", "more"])
show_pairs(load("out"), 0.1, n=2, clips="clips", storage_options={"profile": "video"})
split = VideoSplitWorkflow("videos", "clips", fixed_stride_split_duration=5, limits={"timeout_s": 60.0}).run()
split = VideoEmbedWorkflow("clips", embedding_algorithm="hf", model_dir="model").run("tcp://10.0.0.1:8786")
split = VideoCaptionWorkflow("clips", captioning_model="model", captioning_prompt="What is seen?").run()
whole = VideoDeduplicationWorkflow(["a", "b"], "out", eps=0.1, split={"limit": 3}, drop_when="both").run()
whole.show(2)
whole.dedup.show(2)
shards = ShardWorkflow("clips", "dataset", input_semantic_dedup_path="out").run()
Pipeline(name="more").add_stage(PairsStage(0.1, "in", "out")).add_stage(CrossStage("a", "b", "out"))
try:
    page: str = write_report("out", clips=["clips"], eps=0.1)
    curve: str = plot_curve("out", "curve.png")
except (semdedup.InputError, semdedup.ParameterError, semdedup.StorageError, SemdedupError) as error:
    print(error)
rows_only = frames.normalize(held, id_field="id")
clustered = frames.assign_clusters(rows_only, np.eye(1, dtype=np.float32))
scored = frames.score_clusters(clustered, {"metadata_cols": ["height"], "ascending": [False]}, keep_columns=True)
reveal_type(frames.drop(scored, 0.1))  # pandas.*DataFrame
reveal_type(frames.rejected(held))  # pandas.*DataFrame
reveal_type(load("out").borderline(3, 0.1))  # list\\[.*Pair\\]
reveal_type(calibrate("out", {"format": "…"}, min_precision=0.9).precision.low)  # float
reveal_type(calibrate("out", "verdicts.json").figures)  # pandas.*DataFrame
reveal_type(find_overlaps("clips", "out", mirror=True).longest(3))  # pandas.*DataFrame
reveal_type(find_overlaps("clips", "out").frame())  # dask.*DataFrame
reveal_type(split.quarantined)  # Mapping\\[.*str.*int\\]
reveal_type(whole.overlaps)  # RunOverlaps.* None
reveal_type(whole.dedup)  # DedupResult
reveal_type(shards.dropped)  # Mapping\\[.*str.*int\\]
reveal_type(export("out", "hf", format="parquet").counts)  # Mapping\\[.*str.*int\\]
reveal_type(PlanOptions().stride)  # float
reveal_type(Limits().max_pixels)  # int
reveal_type(semdedup.get_output_path_clips("out"))  # str
for frame in (read_clusters("out"), read_embeddings("in"), read_scores("out", backend="gpu"), read_duplicates("out")):
    reveal_type(frame)  # dask.*DataFrame
reveal_type(read_witnesses("out"))  # dask.*DataFrame
reveal_type(result.witnesses_frame())  # dask.*DataFrame
reveal_type(max_similarity(np.eye(3, dtype=np.float32)))  # (float32|_32Bit).*(int64|_64Bit)
reveal_type(result.explain("a").pair.max_id)  # str \\| .*int
reveal_type(find_pairs("in", 0.1, "out").pairs)  # int
reveal_type(find_leaks("a", "b", "out").pairs())  # list\\[.*Pair\\]
reveal_type(estimate("in", n_clusters=10, which_to_keep="easy").shares)  # pandas.*DataFrame
reveal_type(extract("out", 0.1).kept)  # int
reveal_type(ClusterOptions().backend)  # 'auto'.*'cpu'.*'gpu'
SemanticDeduplicationWorkflow("in", "out", which_to_keep="hrad")  # error: "which_to_keep".*Literal\\['hrad'\\]
SemanticDeduplicationWorkflow("in", "out", removal="all")  # error: "removal"
SemanticDeduplicationWorkflow("in", "out", distance_metric="l1")  # error: "distance_metric"
SemanticDeduplicationWorkflow("in", "out", kmeans_engine="faiss")  # error: "kmeans_engine"
SemanticDeduplicationWorkflow("in", "out", input_filetype="csv")  # error: "input_filetype"
SemanticDeduplicationWorkflow("in", "out", init="zeros")  # error: "init"
SemanticDeduplicationWorkflow("in", "out", n_clusters="many")  # error: "n_clusters"
SemanticDeduplicationWorkflow("in", "out", verbos=True)  # error: "verbos"
KMeansStage(kmeans_engine="faiss")  # error: "kmeans_engine"
PairwiseStage(sim_metric="l1")  # error: "sim_metric"
IdentifyDuplicatesStage(removal="all")  # error: "removal"
ClusterOptions(backend="tpu")  # error: "backend"
read_scores("out", backend="tpu")  # error: "backend"
find_pairs("in", 0.1, "out", input_filetype="csv")  # error: "input_filetype"
extract("out", 0.1, removal="all")  # error: "removal"
estimate("in", which_to_keep="hrad")  # error: "which_to_keep"
estimate("in", nclusters=3)  # error: "nclusters"
result.rethreshold(0.1, removal="all")  # error: "removal"
result.show("3")  # error: "show"
find_overlaps("clips", "out", mirrored=True)  # error: "mirrored"
calibrate("out", 0.1)  # error: "calibrate"
export("out", "hf", format="csv")  # error: "format"
VideoDeduplicationWorkflow("in", "out", drop_when="neither")  # error: "drop_when"
"""
"""Lines of a user. A comment says what the type checker reveals there, or the error that it finds."""


def test_keywords_that_are_handed_on_are_those_of_the_workflow() -> None:
    """In names and types."""
    handed = get_type_hints(DedupKeywords)
    own = get_type_hints(SemanticDeduplicationWorkflow.__init__)
    shared = get_type_hints(SharedKeywords)
    apart = {"input_path", "output_path", "eps", "random_state", "base", "withdraw", "layout", "shared", "return"}
    assert handed == {name: kind for name, kind in own.items() if name not in apart} | shared


def test_the_script_calls_every_function_workflow_and_stage() -> None:
    ends = ("Workflow", "Stage", "Options")
    called = {name for name in semdedup.__all__ if name.endswith(ends) or isfunction(getattr(semdedup, name))}
    folders = {name for name in called if name.startswith("get_output_path_")}  # all alike
    assert {name for name in called - folders if f"{name}(" not in SCRIPT} == set()


@pytest.fixture(scope="module")
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """What mypy says of the script, by line. What it learns of other packages serves the next run of the tests too."""
    pytest.importorskip("mypy", reason="mypy is not installed: pip install '.[dev]'")
    folder = tmp_path_factory.mktemp("scripts")
    (folder / "mypy.ini").write_text(CONFIG)
    (folder / "script.py").write_text(SCRIPT)
    # In development a package may be installed by an import hook, which type checkers do not see.
    environment = {**os.environ, "PYTHONPATH": str(Path(semdedup.__file__).parent.parent)}
    kept = getattr(request.config, "cache", None)  # none where pytest is told to keep nothing
    cache = f"--cache-dir={kept.mkdir('mypy') if kept else tmp_path_factory.mktemp('mypy')}"
    command = [sys.executable, "-m", "mypy", cache, "--no-error-summary", "--hide-error-codes", "script.py"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    said: dict[int, str] = {}
    for line in done.stdout.splitlines():
        match = re.fullmatch(r"script\.py:(\d+): (.*)", line)
        assert match, done.stdout + done.stderr
        said[int(match[1])] = f"{said.get(int(match[1]), '')}{match[2]}\n"
    return said


LINES = dict(enumerate(SCRIPT.splitlines(), 1))
WRONG = {number: line for number, line in LINES.items() if "# error" in line}
REVEALED = {number: line for number, line in LINES.items() if "reveal_type" in line}


def test_right_lines_pass_strictly(found: dict[int, str]) -> None:
    assert {number: said for number, said in found.items() if number not in {*WRONG, *REVEALED}} == {}


def test_nothing_public_is_of_any_type(found: dict[int, str]) -> None:
    for number, line in REVEALED.items():
        assert re.search(line.partition("  # ")[2], found[number]), (line, found[number])
        assert '"Any"' not in found[number]


@pytest.mark.parametrize("number", WRONG, ids=lambda number: LINES[number].partition("  #")[0])
def test_a_word_that_is_no_choice_is_found(number: int, found: dict[int, str]) -> None:
    line = LINES[number]
    assert "error:" in found.get(number, ""), line
    assert re.search(line.partition("# error: ")[2], found[number])
