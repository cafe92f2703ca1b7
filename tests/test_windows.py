"""Windows of clips, their captions in metadata, and what metadata of others may hold."""

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from semdedup.report.cards import Cards, Outcome
from semdedup.report.strips import ClipStrip
from semdedup.shards.layouts import LAYOUTS
from semdedup.shards.sample import sample_json
from semdedup.video.clip_meta import parse_meta
from semdedup.video.steps.caption.windows import captions_in, frames_of, plan_windows, with_captions


@given(st.integers(0, 5000), st.integers(4, 300), st.integers(0, 300))
def test_windows_tile_a_clip_and_only_the_last_differs(n_frames: int, size: int, remainder: int) -> None:
    windows = plan_windows(n_frames, size, remainder)
    covered = [frame for window in windows for frame in range(window.start, window.end + 1)]
    assert covered == (list(range(n_frames)) if n_frames >= 4 else [])
    lengths = [window.end - window.start + 1 for window in windows]
    assert all(length == size for length in lengths[:-1])
    if len(lengths) > 1 and lengths[-1] != size:
        assert min(remainder, size) <= lengths[-1] < size or size < lengths[-1] < size + remainder


@given(st.integers(4, 3000), st.integers(1, 600), st.integers(4, 300))
def test_each_sample_is_in_the_window_that_it_is_shown_in(n_frames: int, n_samples: int, size: int) -> None:
    windows = plan_windows(n_frames, size, size // 2)
    shown = (np.arange(n_samples) + 0.5) * n_frames // n_samples
    for window in windows:
        chosen = shown[frames_of(window, n_frames, n_samples)]
        inside = shown[(shown >= window.start) & (shown <= window.end)]
        assert len(chosen) >= 1
        assert not len(inside) or chosen.tolist() == inside.tolist()


def test_a_model_adds_its_captions_and_replaces_its_own() -> None:
    first = [{"start_frame": 0, "end_frame": 9, "a_caption": "One."}]
    both = with_captions(first, "b", [{"start_frame": s, "end_frame": s + 4, "b_caption": "B."} for s in (0, 5)])
    assert [(c.window, c.model, c.text) for c in captions_in({"windows": both})] == [
        ((0, 4), "b", "B."),
        ((0, 9), "a", "One."),
        ((5, 9), "b", "B."),
    ]
    assert with_captions(both, "b", []) == first
    mine = [{"caption": ["mine"]}]
    assert with_captions(mine, "b", both[:1]) == [*mine, both[0]]
    assert captions_in({"windows": mine}) == []
    noted = [{"start_frame": 0, "end_frame": 4, "b_caption": "B.", "note": "mine"}]
    assert with_captions(noted, "b", []) == [{"start_frame": 0, "end_frame": 4, "note": "mine"}]


def test_windows_of_others_are_read_or_refused() -> None:
    good = {"start_frame": 0, "end_frame": 255, "qwen_caption": "x", "qwen_enhanced_caption": None, "tokens": [1]}
    for windows in ([], [good], None, [{"caption": ["mine"]}]):
        assert parse_meta(json.dumps({"windows": windows}).encode()) == {"windows": windows}
    wrong = ({"end_frame": -1}, {"start_frame": True}, {"qwen_caption": 5})
    for bad in ("text", {"end_frame": -5}, *({**good, **each} for each in wrong)):
        assert "has windows" in parse_meta(json.dumps({"windows": [bad]}).encode())
    assert "has windows" in parse_meta(b'{"windows": {"0": 1}}')


def test_captions_reach_samples_and_the_page_as_text() -> None:
    """Of both layouts a sample's JSON is this one; what a caption holds is no markup."""
    windows = [{"start_frame": 0, "end_frame": 9, "m_caption": "<script>alert(1)</script>\n\0\u202e"}]
    assert all("json" in layout.tar_columns for layout in LAYOUTS.values())
    assert json.loads(sample_json({"windows": windows}, "a", "a.mp4", None, None))["windows"] == windows
    cards = Cards({"a": ClipStrip("a", metadata={"windows": windows})}, Outcome())
    assert cards.clip("a")["captions"] == [("m", "0–9", r"<script>alert(1)</script> \x00\u202e")]
    assert Cards({"a": ClipStrip("a", metadata={"windows": 5})}, Outcome()).clip("a")["captions"] == []
