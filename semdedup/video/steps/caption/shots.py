"""What goes to a model and comes back from it, whichever it is."""

from __future__ import annotations

from typing import NamedTuple

from semdedup.video.steps.frames import Frames


class Shot(NamedTuple):
    """A window as a model sees it: frames (t, h, w, 3) uint8, and how many of them there are a second."""

    frames: Frames
    rate: float


class Failure(NamedTuple):
    """Why a window has no caption."""

    why: str
