"""What the process that decodes is asked to do with one video, and what it answers: see `messages`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from semdedup.video.fingerprint import DIM
from semdedup.video.options import DecodeOptions, Limits, PlanOptions
from semdedup.video.plan import Span
from semdedup.video.probe import VideoFacts
from semdedup.video.ranges import Source
from semdedup.video.steps.protocol import Sampling
from semdedup.video.timeline import Timeline


@dataclass(frozen=True)
class Wanted:
    """What the clips must bring along for the steps, and the video beside them.

    Attributes:
        samplings: frames; each clip brings an array for each of them.
        sound_rates_hz: sound at these rates, likewise.
        track: whether the video brings its fingerprint track.
    """

    samplings: tuple[Sampling, ...] = ()
    sound_rates_hz: tuple[int, ...] = ()
    track: bool = False


@dataclass(frozen=True)
class ClipFiles:
    """What is written of each clip.

    Attributes:
        folder: local folder for the clips.
        encoder: name of the encoder.
        previews: whether a preview is written too.
    """

    folder: str
    encoder: str
    previews: bool


@dataclass(frozen=True)
class SplitJob:
    """What to do with one video.

    Attributes:
        source: local file, or a remote one that is fetched as it is read.
        relative_path: path below the input folder, of which ids are made.
        url: where the video came from.
        files: what is written of each clip; None: nothing.
        plan: how it is cut; None: the whole video is one clip.
        id_scheme: how ids are made: of clips that are cut one of `ClipIdScheme`; of whole videos see `file_id`.
        wanted: what each clip brings along.
        limits: what the video may cost.
        decode: how its picture is read.
    """

    source: Source
    relative_path: str
    url: str
    files: ClipFiles | None
    plan: PlanOptions | None
    id_scheme: str
    wanted: Wanted
    limits: Limits
    decode: DecodeOptions

    @property
    def copies(self) -> bool:
        """Whether clips are copied and not encoded."""
        return self.plan is not None and self.plan.cut == "copy"


class ClipMade(msgspec.Struct, frozen=True, tag=True):
    """A clip that is complete.

    Attributes:
        facts: what is known of it, as JSON values.
        samples: for each of `Wanted.samplings`, (t, h, w, 3) uint8, or of luma (t, h, w).
        sounds: for each of `Wanted.sound_rates_hz`, (n,) float32.
    """

    facts: dict[str, Any]
    samples: tuple[np.ndarray, ...] = ()
    sounds: tuple[np.ndarray, ...] = ()

    def __post_init__(self) -> None:
        """Refuse an id that leads out of the folder of clips: a decoder that was taken over may have made it."""
        if {"", ".", ".."} & set(str(self.facts.get("id", "clip")).split("/")):
            raise ValueError(f"no id of a clip: {self.facts['id']!r}")

    @property
    def frames(self) -> np.ndarray | None:
        """The frames of the first sampling, where one was asked for."""
        return self.samples[0] if self.samples else None


class TrackMade(msgspec.Struct, frozen=True, tag=True):
    """The fingerprint track of a video, as far as it was decoded.

    Attributes:
        fingerprints: (n, `DIM`) int8; row i is that of `moments_s`.
    """

    fingerprints: np.ndarray

    def __post_init__(self) -> None:
        """Refuse another array: a decoder that was taken over may have sent it."""
        if self.fingerprints.dtype != np.int8 or self.fingerprints.shape[1:] != (DIM,):
            raise ValueError(f"no track: {self.fingerprints.dtype} {self.fingerprints.shape}")


class Outcome(msgspec.Struct, frozen=True, tag=True):
    """How a video ended: ``done``, ``too_short`` or ``quarantined``, with a reason and what was found."""

    status: str
    reason: str = ""
    detail: str = ""
    facts: dict[str, Any] = msgspec.field(default_factory=dict)


class PlannedVideo(msgspec.Struct, frozen=True, tag=True):
    """A video whose clips are planned.

    Attributes:
        facts: what its container tells.
        timeline: when its frames are shown.
        spans: of the clips.
        is_exact: whether that is what its packets tell; otherwise it is what its container declares.
    """

    facts: VideoFacts
    timeline: Timeline
    spans: list[Span]
    is_exact: bool = True
