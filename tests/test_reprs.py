"""How workflows, stages, pairs and groups are shown, in a terminal and in a notebook."""

import re

import numpy as np
import pytest

from semdedup import (
    Group,
    KMeansStage,
    Pair,
    PairwiseStage,
    Pipeline,
    SemanticDeduplicationWorkflow,
    ShardWorkflow,
    VideoDeduplicationWorkflow,
    VideoSplitWorkflow,
)

SECRET = {"storage_options": {"secret": "hunter2"}}


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (SemanticDeduplicationWorkflow("in", "out", 10, eps=0.1, n_init=1), "'in', output_path='out', n_clusters=10"),
        (KMeansStage(10, input_path="in", output_path="out"), "n_clusters=10, input_path='in', output_path='out'"),
        (VideoSplitWorkflow("in", "out", upload_clips=False), "'in', output_path='out', upload_clips=False"),
        (VideoDeduplicationWorkflow("in", "out", eps=0.5), "'in', output_path='out', eps=0.5"),
        (ShardWorkflow("clips", "dataset"), "'clips', output_dataset_path='dataset'"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_was_given_is_shown_and_nothing_else(shown: object, text: str) -> None:
    assert re.fullmatch(rf"{type(shown).__name__}\(.*\)", repr(shown))
    assert text in repr(shown)
    assert "n_init" not in repr(shown)
    for name in re.findall(r"(\w+)=", repr(shown)):
        assert f"<th>{name}</th>" in shown._repr_html_()  # type: ignore[attr-defined]


def test_no_secret_is_shown_and_no_frame_is_asked_for_its_rows() -> None:
    rows = np.zeros((5, 3))
    shown = SemanticDeduplicationWorkflow(rows, "out", read_kwargs=SECRET, write_kwargs=SECRET)
    pipeline = Pipeline("dedup").add_stage(PairwiseStage(input_path="a", output_path="b", read_kwargs=SECRET))
    for text in (repr(shown), shown._repr_html_(), repr(pipeline), repr(shown.pipeline)):
        assert "hunter2" not in text
    assert "input_path=<ndarray (5, 3)>" in repr(shown)


def test_long_groups_are_cut_and_ids_are_escaped() -> None:
    pairs = tuple(Pair(f"<b>{i}", "<i>kept", 0.9, 3) for i in range(25))
    group = Group("<i>kept", pairs, 3)
    for text in (str(group), repr(group), group._repr_html_()):
        assert "15 more" in text
        assert len(text) < 2000
    assert "<b>" not in group._repr_html_() + pairs[0]._repr_html_()
    assert str(pairs[0]) == "<b>0 is most like <i>kept: score 0.900000, cluster 3"
