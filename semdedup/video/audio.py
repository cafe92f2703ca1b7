"""The sound of clips: read beside the video, by time, so that neither waits for the other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import av
import numpy as np
from av.error import FFmpegError

from semdedup.video.options import Limits
from semdedup.video.probe import open_container

COPIED = frozenset({"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"})
"""Codecs that MP4 holds and players play; others are encoded as AAC."""

COPIED_FROM = ("mov", "matroska", "flv")
"""Containers whose packets are ready to be put into MP4."""


@dataclass(frozen=True)
class Sound:
    """A packet or a decoded frame of audio, and the seconds of the container's clock at which it is heard."""

    time_s: float
    content: Any


class AudioTrack:
    """The first audio track of a video, read forward.

    A track that cannot be read or decoded falls silent: its video is good all the same.

    Args:
        path: local file.
        limits: what the video may cost.
        mode: ``packets`` or ``frames``; ``auto`` gives packets where an MP4 file can hold them.
    """

    def __init__(self, path: str, limits: Limits, mode: Literal["auto", "packets", "frames"] = "auto") -> None:
        self.container = open_container(path, limits)
        audio = self.container.streams.audio
        self.stream = audio[0] if audio else None
        self.copied = True
        self._ahead: Sound | None = None
        self._sounds: Iterator[Sound] = iter(())
        if self.stream is not None:
            context = self.stream.codec_context
            if context is None:
                self.stream = None  # there is no decoder for it
                return
            from_ready = self.container.format.name.split(",")[0] in COPIED_FROM
            self.copied = mode == "packets" or (
                mode == "auto" and context.codec.canonical_name in COPIED and from_ready
            )
            self._sounds = self._read()

    def close(self) -> None:
        """Close the file."""
        self.container.close()

    def until(self, time_s: float) -> list[Sound]:
        """What is heard before a time of the container's clock, and was not given yet."""
        found: list[Sound] = []
        while True:
            if self._ahead is None:
                self._ahead = next(self._sounds, None)
            if self._ahead is None or self._ahead.time_s >= time_s:
                return found
            found.append(self._ahead)
            self._ahead = None

    def _read(self) -> Iterator[Sound]:
        assert self.stream is not None
        try:
            for packet in self.container.demux(self.stream):
                if self.copied:
                    if packet.size and packet.pts is not None:
                        yield Sound(float(packet.pts * packet.time_base), packet)
                else:
                    for frame in packet.decode():
                        if frame.time is not None:
                            yield Sound(frame.time, frame)
        except (FFmpegError, ValueError):
            return


def samples_of(sounds: Iterable[Sound], rate_hz: int) -> np.ndarray:
    """Decoded sound as (n,) float32 in [-1, 1], mono, at this rate; up to where it can be decoded."""
    parts: list[np.ndarray] = []
    with contextlib.suppress(FFmpegError, ValueError):
        resampler = av.AudioResampler(format="flt", layout="mono", rate=rate_hz)
        for content in [*(sound.content for sound in sounds), None]:
            parts += [frame.to_ndarray()[0] for frame in resampler.resample(content)]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)
