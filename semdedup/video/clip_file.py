"""What the two kinds of clip files share: the container, and the sound. `encode` and `remux` add the pictures."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
from av.error import FFmpegError

from semdedup.video.audio import BITS_A_CHANNEL, AudioFormat, AudioTrack, Sound, format_for_aac
from semdedup.video.priority import usual_priority
from semdedup.video.quarantine import ERRORS_OF_WRITING, VideoFault, pyav_errors
from semdedup.video.timeline import Timeline

CONTAINER_OPTIONS = {"movflags": "+faststart", "fflags": "+bitexact"}
"""The index in front, so that players start at once; and no time stamp and no version of a library in the file."""


class ClipFile:
    """A clip that is being written: `EncodedClip` or `CopiedClip`.

    Attributes:
        n_frames: written so far.
        n_sounds: packets or frames of sound that were written so far.
        audio_changes: what of the sound is not kept, in words.
        origin: tick from the start of the video at which the clip begins.
    """

    def __init__(self, path: str, timeline: Timeline, audio: AudioTrack) -> None:
        self.path = path
        self.timeline = timeline
        self.audio = audio
        self.n_frames = self.n_sounds = 0
        self.audio_changes: list[str] = [audio.unusable] if audio.unusable else []
        self.origin = 0
        self.width = self.height = 0
        self.codec = ""
        self._container: Any = None
        self._video: Any = None
        self._sound: Any = None
        self._n_bad_before, self._n_left_out = audio.n_bad, 0

    def _open(self, add_video: Any) -> Any:
        """Write the header; a track of sound that MP4 does not take is left out."""
        with_sound = self.audio.stream is not None
        while True:
            with pyav_errors(writing=True):
                self._container = av.open(self.path, "w", format="mp4", options=CONTAINER_OPTIONS)
            try:
                with pyav_errors("the clip cannot be written", writing=True):
                    video = add_video(self._container)
                    self._sound = self._add_sound() if with_sound else None
                    with usual_priority():
                        self._container.start_encoding()
                return video
            except VideoFault as fault:
                self.abort()
                if not with_sound:
                    raise
                with_sound = False
                self.audio_changes = [f"sound left out: {fault.detail}"]

    def _add_sound(self) -> Any:
        source: Any = self.audio.stream
        if self.audio.copied:
            return self._container.add_stream_from_template(source)
        context = source.codec_context
        wanted: AudioFormat = format_for_aac(context.sample_rate, context.layout.name, context.layout.nb_channels)
        self.audio_changes = list(wanted.changes)
        added = self._container.add_stream("aac", rate=wanted.rate_hz, layout=wanted.layout)
        added.bit_rate = BITS_A_CHANNEL * added.codec_context.layout.nb_channels
        return added

    @property
    def is_begun(self) -> bool:
        """Whether it has a frame."""
        return self._video is not None

    @property
    def start_s(self) -> float:
        """Seconds of the container's clock at which the clip begins."""
        return self.timeline.clock_s(self.origin)

    def add_sound(self, sound: Sound) -> None:
        """Add sound, in order; sound from before the first frame of the clip is left out."""
        if self._sound is None:
            return
        start_s = self.start_s
        heard = sound.within(start_s, float("inf"))
        if heard is not None:
            with self._leaving_out_bad_sound():
                self._mux_sound(heard, start_s)
                self.n_sounds += 1

    @contextlib.contextmanager
    def _leaving_out_bad_sound(self) -> Iterator[None]:
        """Sound that does not fit, its times running back, say, is left out: the video is good all the same."""
        try:
            yield
        except MemoryError:
            raise
        except (FFmpegError, ValueError) as error:
            if getattr(error, "errno", None) in ERRORS_OF_WRITING:
                raise
            self._n_left_out += 1

    def _mux_sound(self, sound: Sound, zero_s: float) -> None:
        content: Any = sound.content
        if isinstance(content, av.Packet):
            shift: Any = round(zero_s / content.time_base)
            copy = av.Packet(bytes(content))
            copy.time_base, copy.duration = content.time_base, content.duration
            copy.pts = content.pts - shift
            copy.dts = None if content.dts is None else content.dts - shift
            copy.stream = self._sound
            self._container.mux(copy)
        else:
            # In samples: ticks of AVI are as long as a frame of MP3, longer than one of the frames that are encoded.
            pts, base = content.pts, content.time_base
            content.time_base = Fraction(1, content.sample_rate)
            content.pts = round((sound.time_s - zero_s) * content.sample_rate)
            try:
                self._container.mux(self._sound.encode(content))
            finally:
                content.pts, content.time_base = pts, base  # another clip may take it too

    def finish(self, end: int) -> None:
        """Complete the file, whose last frame is shown until this tick."""
        if self._video is None:  # not a single frame
            return
        with pyav_errors(writing=True):
            self._finish_video(end)
        if self._sound is not None and not self.audio.copied:
            with self._leaving_out_bad_sound():
                self._container.mux(self._sound.encode(None))
        with pyav_errors(writing=True):
            self._container.close()
        self._container = None
        n_bad = self.audio.n_bad - self._n_bad_before + self._n_left_out
        if n_bad:
            self.audio_changes.append(f"{n_bad:,} damaged packets left out")
        start_s, end_s = self.start_s, self.timeline.clock_s(end)
        missing_s = sum(max(0.0, min(end_s, then) - max(start_s, gap)) for gap, then in self.audio.gaps_s)
        if missing_s:
            self.audio_changes.append(f"{missing_s:.2f} s are missing")

    def _finish_video(self, end: int) -> None:
        """What comes before the end of the sound."""

    def abort(self) -> None:
        """Leave nothing of a clip that cannot be finished."""
        if self._container is not None:
            with contextlib.suppress(FFmpegError, ValueError):  # where no header was written
                self._container.close()
            self._container = None
        if os.path.exists(self.path):
            os.remove(self.path)
