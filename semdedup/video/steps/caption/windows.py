"""Windows of a clip, and the captions of them as ``metas/v0/{id}.json`` holds them. Plain values alone.

The peers write them so: ``"windows": [{"start_frame": 0, "end_frame": 255, "qwen_caption": "…"}, …]``, both ends
included. Each model has a name of its own in there, so that several can caption the same clips.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

WINDOWS, CAPTION = "windows", "_caption"
"""The field of the metadata, and how the names of captions in a window end."""

LEAST_FRAMES = 4
"""The peers caption nothing shorter."""

MOST_WINDOWS = 128
"""Of a clip: a still picture of a day is a small file, and would keep a GPU busy for as long."""


class Window(NamedTuple):
    """Frames of a clip, both ends included."""

    start: int
    end: int


class Caption(NamedTuple):
    """What a model says of a window."""

    window: Window
    model: str
    text: str


def plan_windows(n_frames: int, size: int, remainder: int) -> list[Window]:
    """Cut a clip into windows of so many frames, as the peers do.

    What is left at its end is a window of its own where it has `remainder` frames; else the last one is longer.

    >>> plan_windows(600, 256, 128)
    [Window(start=0, end=255), Window(start=256, end=599)]
    >>> [len(plan_windows(n, 256, 128)) for n in (3, 4, 256, 383, 384, 512)]
    [0, 1, 1, 1, 2, 2]
    """
    if n_frames < LEAST_FRAMES:
        return []
    whole, rest = divmod(n_frames, size)
    starts = [size * i for i in range(whole + (rest > 0 and (rest >= remainder or not whole)))]
    return [Window(start, end - 1) for start, end in zip(starts, [*starts[1:], n_frames], strict=True)]


def frames_of(window: Window, n_frames: int, n_samples: int) -> slice:
    """Which of the samples of a clip lie in a window, at least one.

    Args:
        window: of the clip.
        n_frames: frames of the clip.
        n_samples: at the middles of as many equal parts of it.

    >>> frames_of(Window(0, 255), 512, 8), frames_of(Window(100, 101), 512, 8)
    (slice(0, 4, None), slice(1, 2, None))
    """
    shown = (2 * np.arange(n_samples) + 1) * n_frames // (2 * n_samples)
    low, high = np.searchsorted(shown, [window.start, window.end + 1]).tolist()
    if low == high:
        low = min(n_samples - 1, (window.start + window.end) * n_samples // (2 * n_frames))
    return slice(low, max(high, low + 1))


def caption_name(model: str) -> str:
    """What the captions of a model are called in a window."""
    return f"{model}{CAPTION}"


def is_windows(value: Any) -> bool:
    """Whether a value is a list of objects, whose frames and captions, where they have them, are such.

    What else they hold is free; those without both are somebody's own, and stay as they are.
    """
    return isinstance(value, list) and all(map(_is_window, value))


def _is_window(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    ends: list[Any] = [value[name] for name in ("start_frame", "end_frame") if name in value]
    if not all(map(_is_frame, ends)) or ends != sorted(ends):
        return False
    return all(isinstance(text, str | None) for name, text in value.items() if name.endswith(CAPTION))


def _has_frames(window: Mapping[str, Any]) -> bool:
    return "start_frame" in window and "end_frame" in window


def _is_frame(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def captions_in(meta: Mapping[str, Any]) -> list[Caption]:
    """The captions in metadata that `is_windows` has passed, window by window.

    >>> captions_in({"windows": [{"start_frame": 0, "end_frame": 9, "qwen_caption": "A cat.", "other": 1}]})
    [Caption(window=Window(start=0, end=9), model='qwen', text='A cat.')]
    """
    return [
        Caption(Window(window["start_frame"], window["end_frame"]), name.removesuffix(CAPTION), text)
        for window in meta.get(WINDOWS) or ()
        if _has_frames(window)
        for name, text in window.items()
        if name.endswith(CAPTION) and text
    ]


def with_captions(
    windows: Iterable[Mapping[str, Any]], model: str, captions: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Windows with the captions of a model, in order; what it has said before goes, and what others say stays.

    >>> with_captions([{"start_frame": 0, "end_frame": 9, "a_caption": "A cat."}], "b",
    ...               [{"start_frame": 0, "end_frame": 9, "b_caption": "Cats."}])
    [{'start_frame': 0, 'end_frame': 9, 'a_caption': 'A cat.', 'b_caption': 'Cats.'}]
    """
    name, found, others = caption_name(model), dict[Window, dict[str, Any]](), list[dict[str, Any]]()
    for window in windows:
        if not _has_frames(window):
            others.append(dict(window))
            continue
        rest = {field: value for field, value in window.items() if field != name}
        if name not in window or rest.keys() - {"start_frame", "end_frame"}:
            place = Window(window["start_frame"], window["end_frame"])
            found[place] = {**found.get(place, {}), **rest}
    for window in captions:
        place = Window(window["start_frame"], window["end_frame"])
        found[place] = {**found.get(place, {}), **window}
    return others + [found[place] for place in sorted(found)]
