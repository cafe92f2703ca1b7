"""The sound of clips: read beside the video, by time, so that neither waits for the other."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import av
import numpy as np
from av.error import FFmpegError

from semdedup.video.opening import audio_stream, open_container
from semdedup.video.options import Limits
from semdedup.video.ranges import Source, opened

COPIED = frozenset({"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"})
"""Codecs that MP4 holds and players play; others are encoded as AAC."""

COPIED_FROM = ("mov", "matroska", "flv")
"""Containers whose packets are ready to be put into MP4."""

AAC_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
"""Samples a second that AAC is encoded at here; above 48,000 nobody hears a difference."""

LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 8: "7.1"}
"""Layouts that AAC has a code for, by the number of channels. Others FFmpeg encodes as well, and decodes as silence."""

LEAST_GAP_S = 0.1
GAPS = 1000
"""Sound that begins later than so after the one before it leaves a gap; of these so many are remembered."""

MOST_OVERLAP_S = 0.02
"""Sound that begins earlier than so before the end of the one before it follows that one."""

MOST_PLANES = 8
"""From so many channels on, each stored for itself, PyAV crashes where it makes an array of them."""

BITS_A_CHANNEL = 64_000


@dataclass(frozen=True)
class Sound:
    """A packet or a decoded frame of audio, and the seconds of the container's clock at which it begins and ends."""

    time_s: float
    end_s: float
    content: Any

    def within(self, start_s: float, end_s: float) -> Sound | None:
        """What of it is heard from one moment to another; a packet cannot be cut, and belongs to where it begins."""
        if isinstance(self.content, av.Packet):
            return self if start_s <= self.time_s < end_s else None
        start_s, end_s = max(start_s, self.time_s), min(end_s, self.end_s)
        if start_s >= end_s:
            return None
        rate = self.content.sample_rate
        first, last = (round((moment - self.time_s) * rate) for moment in (start_s, end_s))
        if first >= last:
            return None
        if (first, last) == (0, self.content.samples):
            return self
        begins_s = self.time_s + first / rate
        cut = _samples(self.content, first, last)
        if cut is None:
            return self if start_s == self.time_s else None
        return Sound(begins_s, begins_s + (last - first) / rate, cut)


def _samples(frame: Any, first: int, last: int) -> Any:
    """Some samples of a decoded frame, as a frame; None where PyAV makes no array of them."""
    n_channels = frame.layout.nb_channels
    if frame.format.is_planar and n_channels >= MOST_PLANES:
        return None
    step = 1 if frame.format.is_planar else n_channels
    try:
        values = np.ascontiguousarray(frame.to_ndarray()[:, first * step : last * step])
    except ValueError:  # of 64 bits, say
        return None
    cut = av.AudioFrame.from_ndarray(values, format=frame.format.name, layout=frame.layout)
    cut.sample_rate, cut.time_base, cut.pts = frame.sample_rate, Fraction(1, frame.sample_rate), 0
    return cut


class AudioTrack:
    """The audio track of a video that is used, read forward.

    A packet that cannot be decoded is left out and counted: its video, and the sound after it, are good all the same.

    Args:
        source: it.
        limits: what the video may cost.
        mode: ``frames``; ``auto`` gives packets where an MP4 file can hold them.

    Attributes:
        stream: the track; None where there is none that can be used.
        copied: whether packets are given, and not frames.
        unusable: why a track that is there cannot be used; empty where it can.
        n_bad: packets so far that could not be decoded.
        gaps_s: the last stretches without sound between others; FFmpeg passes over some damage silently.
    """

    def __init__(self, source: Source, limits: Limits, mode: Literal["auto", "frames"] = "auto") -> None:
        self.container = open_container(opened(source), limits)
        self.stream = audio_stream(self.container)
        self.copied, self.unusable, self.n_bad = False, "", 0
        self.gaps_s: deque[tuple[float, float]] = deque(maxlen=GAPS)
        self._heard_until_s, self._decoded_until_s = math.inf, -math.inf
        self._ahead: Sound | None = None
        self._sounds: Iterator[Sound] = iter(())
        if self.stream is None:
            return
        if self.stream.codec_context is None:
            self.stream, self.unusable = None, "sound left out: there is no decoder for it"
            return
        codec, container = self.stream.codec_context.codec.canonical_name, self.container.format.name
        self.copied = mode == "auto" and codec in COPIED and container.split(",")[0] in COPIED_FROM
        if not self.copied and not (self.stream.codec_context.sample_rate and self.stream.codec_context.channels):
            self.stream, self.unusable = None, "sound left out: how it is sampled is not known"
            return
        self._sounds = self._read()

    def close(self) -> None:
        """Close the file."""
        self.container.close()

    def until(self, time_s: float) -> Iterator[Sound]:
        """What begins before a time of the container's clock, and was not given yet."""
        while True:
            if self._ahead is None:
                self._ahead = next(self._sounds, None)
                self._note_gap(self._ahead)
            if self._ahead is None or self._ahead.time_s >= time_s:
                return
            yield self._ahead
            self._ahead = None

    def _note_gap(self, sound: Sound | None) -> None:
        if sound is not None:
            if sound.time_s - self._heard_until_s > LEAST_GAP_S:
                self.gaps_s.append((self._heard_until_s, sound.time_s))
            self._heard_until_s = sound.end_s if sound.end_s > sound.time_s else math.inf

    def _read(self) -> Iterator[Sound]:
        assert self.stream is not None
        reading = self.container.demux(self.stream)
        while True:
            try:
                packet = next(reading, None)
            except MemoryError:
                raise
            except (FFmpegError, ValueError):  # the container cannot be read on
                self.n_bad += 1
                return
            if packet is None:
                return
            try:
                yield from list(self._packet(packet) if self.copied else self._frames(packet))
            except MemoryError:
                raise
            except (FFmpegError, ValueError):
                self.n_bad += 1

    def _packet(self, packet: Any) -> Iterator[Sound]:
        if packet.size and packet.pts is not None:
            base = packet.time_base
            yield Sound(float(packet.pts * base), float((packet.pts + (packet.duration or 0)) * base), packet)

    def _frames(self, packet: Any) -> Iterator[Sound]:
        for frame in packet.decode():
            if not frame.samples or not frame.sample_rate:
                continue
            start_s = max(0.0, self._decoded_until_s) if frame.time is None else frame.time
            if start_s < self._decoded_until_s - MOST_OVERLAP_S:  # time stamps that go back, or too slowly
                start_s = self._decoded_until_s
            self._decoded_until_s = start_s + frame.samples / frame.sample_rate
            yield Sound(start_s, self._decoded_until_s, frame)


@dataclass(frozen=True)
class AudioFormat:
    """How sound is encoded.

    Attributes:
        rate_hz: samples a second.
        layout: of its channels, by FFmpeg's name.
        changes: what of the source is not kept, in words.
    """

    rate_hz: int
    layout: str
    changes: tuple[str, ...] = ()


def format_for_aac(rate_hz: int, layout: str, n_channels: int) -> AudioFormat:
    """The nearest to a source that AAC has a code for.

    >>> format_for_aac(37_800, "mono", 1)
    AudioFormat(rate_hz=44100, layout='mono', changes=('37,800 Hz resampled to 44,100 Hz',))
    """
    nearest = min(AAC_RATES, key=lambda rate: max(rate / rate_hz, rate_hz / rate))
    kept = layout if layout in LAYOUTS.values() else LAYOUTS.get(n_channels, "stereo")
    changes = [] if nearest == rate_hz else [f"{rate_hz:,} Hz resampled to {nearest:,} Hz"]
    if kept not in (layout, LAYOUTS.get(n_channels)):
        changes.append(f"{layout} mixed down to {kept}")
    elif kept != layout and layout != f"{n_channels} channels":  # so FFmpeg names what does not tell
        changes.append(f"{layout} stored as {kept}")
    return AudioFormat(nearest, kept, tuple(changes))


def samples_of(sounds: Iterable[Sound], rate_hz: int) -> np.ndarray:
    """Decoded sound as (n,) float32 in [-1, 1], mono, at this rate; up to where it can be decoded."""
    parts: list[np.ndarray] = []
    try:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=rate_hz)
        for content in [*(sound.content for sound in sounds), None]:
            parts += [frame.to_ndarray()[0] for frame in resampler.resample(content)]
    except MemoryError:
        raise
    except (FFmpegError, ValueError):
        pass
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)
