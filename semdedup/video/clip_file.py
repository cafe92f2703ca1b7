"""What the two kinds of clip files share: the container, and the sound. `encode` and `remux` add the pictures."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import av
from av.error import FFmpegError

from semdedup.video.audio import AudioTrack, Sound
from semdedup.video.quarantine import ERRORS_OF_WRITING, VideoFault, pyav_errors
from semdedup.video.timeline import Timeline

CONTAINER_OPTIONS = {"movflags": "+faststart", "fflags": "+bitexact"}
"""The index in front, so that players start at once; and no time stamp and no version of a library in the file."""


class ClipFile:
    """A clip that is being written: `EncodedClip` or `CopiedClip`.

    Attributes:
        n_frames: written so far.
        origin: tick from the start of the video at which the clip begins.
    """

    def __init__(self, path: str, timeline: Timeline, audio: AudioTrack) -> None:
        self.path = path
        self.timeline = timeline
        self.audio = audio
        self.n_frames = 0
        self.origin = 0
        self.width = self.height = 0
        self.codec = ""
        self._container: Any = None
        self._video: Any = None
        self._sound: Any = None
        self._waiting: list[Sound] = []

    @property
    def has_sound(self) -> bool:
        """Whether the file has a track of sound."""
        return self._sound is not None

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
                    self._container.start_encoding()
                return video
            except VideoFault:
                self.abort()
                if not with_sound:
                    raise
                with_sound = False

    def _add_sound(self) -> Any:
        source: Any = self.audio.stream
        if self.audio.copied:
            return self._container.add_stream_from_template(source)
        rate = min(source.codec_context.sample_rate, 48_000)
        layout = "mono" if source.codec_context.layout.nb_channels == 1 else "stereo"
        return self._container.add_stream("aac", rate=rate, layout=layout)

    def add_audio(self, sounds: Iterable[Sound]) -> None:
        """Add sound, in order; sound from before the first frame of the clip is left out."""
        if self._container is None:
            self._waiting.extend(sounds)
            return
        if self._sound is None:
            return
        zero_s = float((self.timeline.origin + self.origin) * self.timeline.time_base)
        for sound in (*self._waiting, *sounds):
            if sound.time_s >= zero_s:
                with self._leaving_out_bad_sound():
                    self._mux_sound(sound, zero_s)
        self._waiting = []

    @contextlib.contextmanager
    def _leaving_out_bad_sound(self) -> Iterator[None]:
        """Sound that does not fit, its times running back, say, is left out: the video is good all the same."""
        try:
            yield
        except (FFmpegError, ValueError) as error:
            if getattr(error, "errno", None) in ERRORS_OF_WRITING:
                raise

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

    def finish(self) -> None:
        """Complete the file."""
        if self._video is None:  # not a single frame
            return
        with pyav_errors(writing=True):
            self._finish_video()
        if self._sound is not None and not self.audio.copied:
            with self._leaving_out_bad_sound():
                self._container.mux(self._sound.encode(None))
        with pyav_errors(writing=True):
            self._container.close()
        self._container = None

    def _finish_video(self) -> None:
        """What comes before the end of the sound."""

    def abort(self) -> None:
        """Leave nothing of a clip that cannot be finished."""
        if self._container is not None:
            with contextlib.suppress(FFmpegError, ValueError):  # where no header was written
                self._container.close()
            self._container = None
        if os.path.exists(self.path):
            os.remove(self.path)
