"""Cutting one video: its packets are read and planned, decoded once, and dealt out to the clips. Knows no Dask.

Runs in a process of its own (`child`), which `worker` asks for every video.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from fractions import Fraction
from typing import Any

import av

from semdedup.video.audio import AudioTrack, Sound, samples_of
from semdedup.video.clip_file import ClipFile
from semdedup.video.clip_ids import VideoIdentity, clip_id, file_id
from semdedup.video.decode import Decoder, Picture, Sampler
from semdedup.video.encode import EncodedClip
from semdedup.video.heartbeat import HeartbeatTimer, WithHeartbeats
from semdedup.video.job import ClipMade, Outcome, PlannedVideo, SplitJob
from semdedup.video.plan import Span, at_keyframes
from semdedup.video.preview import HEIGHT, PERIOD_S, write_preview
from semdedup.video.probe import Video, shortfall
from semdedup.video.quarantine import VideoFault
from semdedup.video.remux import CopiedClip
from semdedup.video.scenes import find_cuts
from semdedup.video.timeline import every, sample_times, ticks


def split_video(job: SplitJob) -> Iterator[ClipMade | Outcome | None]:
    """Cut one video. Memory: the frames that the decoder and one encoder hold, and the sampled frames of one clip.

    Yields:
        None as a heartbeat; `ClipMade` for each clip, when it is complete; at the end the `Outcome`.
    """
    av.logging.set_level(av.logging.PANIC)
    facts: dict[str, Any] = {}
    try:
        plan = yield from _planned(job)
        facts.update(_facts_of(plan))
        yield Outcome("quarantined", "decode_error", "the video was not finished", dict(facts))  # if nothing else comes
        if not plan.spans:
            missing = shortfall(plan.facts, plan.timeline, plan.timeline.n_frames, plan.timeline.last)
            if missing:
                raise VideoFault("truncated", missing)
            yield Outcome("too_short", "too_short", f"{plan.timeline.duration_s:.2f} s", facts)
            return
        decoder = yield from _cut(job, plan)
        facts["n_frames"] = decoder.n_decoded
        missing = shortfall(plan.facts, plan.timeline, decoder.n_decoded, decoder.last_tick)
        if missing:
            raise VideoFault("truncated", missing)
        if not decoder.n_decoded:
            raise VideoFault("no_frames", "the decoder gave none")
        yield Outcome("done", facts=facts)
    except VideoFault as fault:
        yield Outcome("quarantined", fault.reason, fault.detail, facts)


def plan_video(job: SplitJob) -> Iterator[PlannedVideo | Outcome | None]:
    """Plan one video and write nothing. Yields None as a heartbeat, then the plan, or the `Outcome` of a fault."""
    av.logging.set_level(av.logging.PANIC)
    try:
        yield (yield from _planned(job))
    except VideoFault as fault:
        yield Outcome("quarantined", fault.reason, fault.detail)


def _planned(job: SplitJob) -> WithHeartbeats[PlannedVideo]:
    with Video(job.path, job.limits) as video:
        facts = video.facts()
        timeline = yield from video.timeline()
    if job.plan is None:
        return PlannedVideo(facts, timeline, [Span(0.0, round(timeline.duration_s, 6))])
    cuts: list[float] = []
    if job.plan.algorithm == "scene":
        cuts = yield from find_cuts(job.path, timeline, job.limits)
    spans = job.plan.spans(timeline.duration_s, cuts)
    if job.plan.cut == "copy" and spans:
        keys = [round(float(key * timeline.time_base), 6) for key in timeline.keyframes]
        spans = at_keyframes(spans, keys or [0.0], timeline.duration_s)
    return PlannedVideo(facts, timeline, spans)


def _facts_of(plan: PlannedVideo) -> dict[str, Any]:
    facts, timeline = plan.facts, plan.timeline
    return {
        "width": facts.width,
        "height": facts.height,
        "fps": facts.fps,
        "codec": facts.codec,
        "pixel_format": facts.pixel_format,
        "audio_codec": facts.audio_codec,
        "container": facts.container,
        "duration_s": round(timeline.duration_s, 6),
        "bitrate": timeline.bitrate,
        "n_frames_declared": max(facts.declared_frames, timeline.n_frames),
    }


def _cut(job: SplitJob, plan: PlannedVideo) -> Generator[ClipMade | None, None, Decoder]:
    with ExitStack() as stack:
        video = stack.enter_context(Video(job.path, job.limits))
        audio = stack.enter_context(closing(AudioTrack(job.path, job.limits, "packets" if job.copies else "auto")))
        heard = None
        if job.wanted.sound_rates_hz:
            heard = stack.enter_context(closing(AudioTrack(job.path, job.limits, "frames")))
        cutter, timer = _Cutter(job, plan, video, audio, heard), HeartbeatTimer()
        try:
            for packet in video.packets():
                yield from cutter.add_packet(packet)
                if timer.due():
                    yield None
            yield from cutter.end()
        finally:
            cutter.abort()
    return cutter.decoder


class _OpenClip:
    """A clip that frames are still coming for."""

    def __init__(self, job: SplitJob, plan: PlannedVideo, span: Span, file: ClipFile | None) -> None:
        base = plan.timeline.time_base
        self.span, self.file = span, file
        self.start, self.end = ticks(span.start_s, base), ticks(span.end_s, base)
        self.n_frames = self.width = self.height = 0
        self.samplers = [
            Sampler([ticks(moment, base) for moment in sample_times(span, wish.n_frames)], wish.size, wish.short_side)
            for wish in job.wanted.samplings
        ]
        self.preview = None
        if job.previews:
            self.preview = Sampler([ticks(moment, base) for moment in every(span, PERIOD_S)], None, HEIGHT)
        self.heard: list[Sound] = []

    def add(self, picture: Picture) -> None:
        self.n_frames += 1
        if not self.width:
            self.width, self.height = picture.frame.width, picture.frame.height
        if isinstance(self.file, EncodedClip):
            self.file.add(picture)
        for sampler in (*self.samplers, *([self.preview] if self.preview is not None else [])):
            sampler.add(picture)


class _Cutter:
    """Deals the frames of a video out to its clips."""

    def __init__(
        self, job: SplitJob, plan: PlannedVideo, video: Video, audio: AudioTrack, heard: AudioTrack | None
    ) -> None:
        self.job, self.plan, self.video = job, plan, video
        self.audio, self.heard = audio, heard  # for the files, and for the steps
        self.decoder = Decoder(video, plan.timeline)
        self.waiting = deque(plan.spans)
        self.open: list[_OpenClip] = []
        self.shown: Picture | None = None
        self.key = 0
        rate = video.stream.average_rate or video.stream.guessed_rate
        self.rate = Fraction(rate) if rate and 1 <= rate <= 1000 else Fraction(25)
        identity = VideoIdentity(job.relative_path, job.url, plan.facts.fps or 25.0, plan.facts.declared_duration_s)
        self.identity = identity

    def add_packet(self, packet: Any) -> Iterator[ClipMade]:
        """One packet of the video."""
        if self.job.copies and packet.size:
            self._copy(packet)
        for picture in self.decoder.pictures(packet):
            yield from self._advance(picture.tick)
            for clip in self.open:
                clip.add(picture)
            self.shown = picture

    def end(self) -> Iterator[ClipMade]:
        """The video is over: the last clips are complete, unless the decoder stopped before the packets did."""
        timeline = self.plan.timeline
        gap = timeline.last - self.decoder.last_tick
        if self.shown is not None and gap * timeline.time_base <= Fraction(1, 2):
            yield from self._advance(timeline.end)
            for clip in list(self.open):
                yield from self._close(clip)

    def abort(self) -> None:
        """Leave nothing of the clips that are not complete."""
        for clip in self.open:
            if clip.file is not None:
                clip.file.abort()
        self.open = []

    def _advance(self, tick: int) -> Iterator[ClipMade]:
        """Open and close clips up to this moment, and give them the sound up to it."""
        timeline = self.plan.timeline
        while self.waiting and ticks(self.waiting[0].start_s, timeline.time_base) <= tick:
            self._open(self.waiting.popleft())
        zero_s = float(timeline.origin * timeline.time_base)
        now_s = zero_s + float(tick * timeline.time_base)
        sounds = self.audio.until(now_s)
        heard = self.heard.until(now_s) if self.heard is not None else []
        for clip in self.open:
            start_s, end_s = zero_s + clip.span.start_s, zero_s + clip.span.end_s
            if clip.file is not None:
                clip.file.add_audio([sound for sound in sounds if start_s <= sound.time_s < end_s])
            clip.heard += [sound for sound in heard if start_s <= sound.time_s < end_s]
        for clip in [clip for clip in self.open if clip.end <= tick]:
            yield from self._close(clip)

    def _open(self, span: Span) -> None:
        file: ClipFile | None = None
        if self.job.folder is not None:
            path = os.path.join(self.job.folder, f"{self._id(span)}.mp4")
            if self.job.copies:
                file = CopiedClip(path, self.plan.timeline, self.audio, self.video.stream)
            else:
                file = EncodedClip(path, self.plan.timeline, self.audio, self.job.encoder, self.rate)
        self.open.append(_OpenClip(self.job, self.plan, span, file))

    def _copy(self, packet: Any) -> None:
        """Give a packet to the clips that contain its key frame.

        Frames that are shown before the key frame but stored after it need the one before: where a clip starts they go.
        """
        when = packet.pts if packet.pts is not None else packet.dts
        tick = when - self.plan.timeline.origin
        if packet.is_keyframe:
            self.key = tick
        base = self.plan.timeline.time_base
        while self.waiting and ticks(self.waiting[0].start_s, base) <= self.key:
            self._open(self.waiting.popleft())
        for clip in self.open:
            if clip.start <= self.key < clip.end and tick >= clip.start and isinstance(clip.file, CopiedClip):
                clip.file.add(packet)

    def _close(self, clip: _OpenClip) -> Iterator[ClipMade]:
        if not clip.n_frames:
            if self.shown is None:  # nothing can be decoded before the end of this clip
                self.open.remove(clip)
                return
            clip.add(Picture(clip.start, self.shown.frame))  # a frame that stays for longer than the clip
        facts: dict[str, Any] = {"id": self._id(clip.span), **self._facts(clip)}
        if clip.file is not None:
            clip.file.finish()
            facts |= {
                "n_bytes": os.path.getsize(clip.file.path),
                "width": clip.file.width,
                "height": clip.file.height,
                "codec": clip.file.codec,
                "n_frames": clip.file.n_frames,
                "audio": clip.file.has_sound,
            }
        self.open.remove(clip)
        if clip.preview is not None and self.job.folder is not None:
            write_preview(os.path.join(self.job.folder, f"{facts['id']}.webp"), clip.preview.frames())
        yield ClipMade(
            facts,
            tuple(sampler.frames() for sampler in clip.samplers),
            tuple(samples_of(clip.heard, rate_hz) for rate_hz in self.job.wanted.sound_rates_hz),
        )

    def _facts(self, clip: _OpenClip) -> dict[str, Any]:
        return {
            "start_s": clip.span.start_s,
            "end_s": clip.span.end_s,
            "duration_s": clip.span.duration_s,
            "width": clip.width,
            "height": clip.height,
            "fps": self.plan.facts.fps,
            "bitrate": self.plan.timeline.bitrate,
            "n_frames": clip.n_frames,
        }

    def _id(self, span: Span) -> str:
        if self.job.plan is None:
            return file_id(self.job.id_scheme, self.job.relative_path)
        return clip_id(self.job.id_scheme, self.identity, span, self.job.plan.algorithm)
