"""Clips as MP4 files: encoded anew, exact to the frame, or copied between key frames. Sound goes along."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import av
from av.error import FFmpegError
from av.video.frame import PictureType

from semdedup.video.audio import AudioTrack, Sound
from semdedup.video.decode import Picture
from semdedup.video.encode import make_encoder
from semdedup.video.probe import OUR_FAULT, Timeline, VideoFault

CONTAINER_OPTIONS = {"movflags": "+faststart", "fflags": "+bitexact"}
"""The index in front, so that players start at once; and no time stamp and no version of a library in the file."""


class ClipFile:
    """What the two ways of writing share: the container, the sound, and what is told of the file at the end.

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
            self._container = av.open(self.path, "w", format="mp4", options=CONTAINER_OPTIONS)
            try:
                video = add_video(self._container)
                self._sound = self._add_sound() if with_sound else None
                self._container.start_encoding()
                return video
            except (FFmpegError, ValueError) as error:
                self.abort()
                if not with_sound:
                    raise VideoFault("decode_error", f"the clip cannot be written: {error}") from error
                with_sound = False

    def _add_sound(self) -> Any:
        source: Any = self.audio.stream
        if self.audio.copied:
            return self._container.add_stream_from_template(source)
        rate = min(source.codec_context.sample_rate, 48_000)
        layout = "mono" if source.codec_context.layout.nb_channels == 1 else "stereo"
        return self._container.add_stream("aac", rate=rate, layout=layout)

    def hear(self, sounds: Iterable[Sound]) -> None:
        """Add sound, in order; what is heard before the first frame of the clip is left out."""
        if self._container is None:
            self._waiting.extend(sounds)
            return
        if self._sound is None:
            return
        zero_s = float((self.timeline.origin + self.origin) * self.timeline.time_base)
        for sound in (*self._waiting, *sounds):
            if sound.time_s >= zero_s:
                with self._sound_may_be_lost():
                    self._mux_sound(sound, zero_s)
        self._waiting = []

    @contextlib.contextmanager
    def _sound_may_be_lost(self) -> Iterator[None]:
        """Sound that does not fit, its times running back, say, is left out: the video is good all the same."""
        try:
            yield
        except (FFmpegError, ValueError) as error:
            if getattr(error, "errno", None) in OUR_FAULT:
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
        self._finish_video()
        if self._sound is not None and not self.audio.copied:
            with self._sound_may_be_lost():
                self._container.mux(self._sound.encode(None))
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


class EncodedClip(ClipFile):
    """A clip that is encoded anew: 8 bits, upright, even sides, the source's time stamps."""

    def __init__(self, path: str, timeline: Timeline, audio: AudioTrack, encoder: str, rate: Fraction) -> None:
        super().__init__(path, timeline, audio)
        self.encoder, self.rate = encoder, rate

    def add(self, picture: Picture) -> None:
        """Encode the next frame."""
        if self._video is None:
            self._start(picture)
        frame = picture.frame.reformat(width=self.width, height=self.height, format="yuv420p")
        frame.pts = picture.tick - self.origin
        frame.time_base = self.timeline.time_base
        frame.pict_type = PictureType.NONE
        self.n_frames += 1
        self._container.mux(self._video.encode(frame))

    def _start(self, picture: Picture) -> None:
        frame = picture.frame
        self.origin = picture.tick
        self.width, self.height = max(2, frame.width & ~1), max(2, frame.height & ~1)  # chroma has half the resolution

        def add_video(container: Any) -> Any:
            stream = make_encoder(container, self.encoder, self.rate, self.width, self.height, self.timeline.time_base)
            context = stream.codec_context
            for name in ("color_primaries", "color_trc", "colorspace"):
                setattr(context, name, getattr(frame, name))
            return stream

        self._video = self._open(add_video)
        self.codec = self._video.codec_context.codec.canonical_name

    def _finish_video(self) -> None:
        self._container.mux(self._video.encode(None))


class CopiedClip(ClipFile):
    """A clip of the source's own packets."""

    def __init__(self, path: str, timeline: Timeline, audio: AudioTrack, source: Any) -> None:
        super().__init__(path, timeline, audio)
        self.source = source

    def add(self, packet: Any) -> None:
        """Copy the next packet."""
        context = self.source.codec_context
        when = packet.pts if packet.pts is not None else packet.dts
        if self._video is None:
            self.origin = when - self.timeline.origin
            self.width, self.height, self.codec = context.width, context.height, context.codec.canonical_name
            self._video = self._open(lambda container: container.add_stream_from_template(self.source))
        copy = av.Packet(bytes(packet))
        start = self.timeline.origin + self.origin
        copy.pts = when - start
        copy.dts = None if packet.dts is None else packet.dts - start
        copy.time_base, copy.duration = packet.time_base, packet.duration
        copy.is_keyframe = packet.is_keyframe
        copy.stream = self._video
        self.n_frames += 1
        self._container.mux(copy)
