"""Clips that are copied: the source's own packets between two key frames, in a new container, without loss."""

from __future__ import annotations

from typing import Any

import av

from semdedup.video.audio import AudioTrack
from semdedup.video.clip_file import ClipFile
from semdedup.video.quarantine import pyav_errors
from semdedup.video.timeline import Timeline


class CopiedClip(ClipFile):
    """A clip of the source's own packets."""

    def __init__(self, path: str, timeline: Timeline, audio: AudioTrack, source: Any) -> None:
        super().__init__(path, timeline, audio)
        self.source = source

    def add(self, packet: Any, tick: int) -> None:
        """Copy the next packet, whose frame is shown at a tick; one that is hidden has a tick below 0."""
        context = self.source.codec_context
        if self._video is None:
            self.origin = max(0, tick)
            self.width, self.height, self.codec = context.width, context.height, context.codec.canonical_name
            self._video = self._open(lambda container: container.add_stream_from_template(self.source))
        shown = packet.pts if packet.pts is not None else packet.dts
        with pyav_errors(writing=True):
            copy = av.Packet(bytes(packet))
            copy.pts = tick - self.origin
            copy.dts = None if packet.dts is None else copy.pts - (shown - packet.dts)
            copy.time_base, copy.duration = packet.time_base, packet.duration
            copy.is_keyframe = packet.is_keyframe
            copy.stream = self._video
            self._container.mux(copy)
        self.n_frames += tick >= self.origin
