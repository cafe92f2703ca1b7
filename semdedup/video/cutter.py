"""Dealing the frames and the sound of a video out to its clips, which are open one after the other or overlap."""

from __future__ import annotations

import math
import os
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

from semdedup.video.audio import AudioTrack, Sound, samples_of
from semdedup.video.clip_file import ClipFile
from semdedup.video.clip_ids import VideoIdentity, clip_id, file_id
from semdedup.video.decode import Decoder, Looks, Picture, Sampler
from semdedup.video.encode import EncodedClip
from semdedup.video.job import ClipMade, PlannedVideo, SplitJob, TrackMade
from semdedup.video.plan import Span
from semdedup.video.preview import HEIGHT, PERIOD_S, write_preview
from semdedup.video.probe import Video, ends_early
from semdedup.video.quarantine import VideoFault
from semdedup.video.remux import CopiedClip
from semdedup.video.steps.protocol import Sampling
from semdedup.video.timeline import NO_TIME, PacketClock, every, sample_times, ticks, ticks_per_frame
from semdedup.video.track import TrackMaker


class _OpenClip:
    """A clip that frames are still coming for."""

    def __init__(self, job: SplitJob, plan: PlannedVideo, span: Span, file: ClipFile | None) -> None:
        base = plan.timeline.time_base
        self.span, self.file = span, file
        self.start, self.end = ticks(span.start_s, base), ticks(span.end_s, base)
        self.n_frames = 0
        self.first: Looks | None = None
        self.last_tick = self.start
        self.is_interlaced = False
        self.samplers = [
            Sampler([ticks(moment, base) for moment in sample_times(span, n_frames, wish.pair_s)], wish)
            for wish in job.wanted.samplings
            for n_frames in [wish.n_of(span.duration_s)]
        ]
        self.preview = None
        if job.files is not None and job.files.previews:
            moments = [ticks(moment, base) for moment in every(span, PERIOD_S)]
            self.preview = Sampler(moments, Sampling(len(moments), None, HEIGHT))
        self.heard: list[Sound] = []

    def add(self, picture: Picture) -> None:
        """The next frame of the clip. Raises `VideoFault`: ``encode_error``."""
        self.n_frames += 1
        self.first = self.first or picture.looks
        self.last_tick = picture.tick
        self.is_interlaced |= picture.is_interlaced
        for sampler in (*self.samplers, *([self.preview] if self.preview is not None else [])):
            sampler.add(picture)
        if isinstance(self.file, EncodedClip):
            self.file.add(picture)


class Cutter:
    """Deals the frames and the sound of a video out to its clips.

    Frames come in the order in which they are shown. When one comes, all that happens before it is done first, in
    order: clips that end are closed, clips that begin are opened, with the frame that stands there, and sound is given
    to those that are open. Clips that are copied are opened by their packets, which come before their frames.

    A clip that cannot be encoded or written costs that clip.

    Attributes:
        faults: clips that were lost so: `id`, `reason` and `detail` of each.
        n_made: clips that are complete.
    """

    def __init__(
        self, job: SplitJob, plan: PlannedVideo, video: Video, audio: AudioTrack | None, heard: AudioTrack | None
    ) -> None:
        self.job, self.plan, self.video = job, plan, video
        self.audio, self.heard = audio, heard  # for the files, and for the steps
        self.tracks = [track for track in (audio, heard) if track is not None]
        self.decoder = Decoder(video, plan.timeline, job.decode)
        self.waiting = deque(plan.spans)
        self.open: list[_OpenClip] = []
        self.shown: Picture | None = None
        self.track = TrackMaker(plan.timeline.time_base) if job.wanted.track else None
        step = ticks_per_frame(video.rate, plan.timeline.time_base)
        self.clock = PacketClock(plan.timeline.time_base, step)  # of packets that are copied
        self.last_sounds: dict[AudioTrack, Sound] = {}  # of each track: the one that may go on in the next clip
        self.key = 0
        self.faults: list[dict[str, str]] = []
        self.n_made = 0
        self.rate = video.rate if video.rate >= 1 else Fraction(25)
        self.identity = VideoIdentity(
            job.relative_path, job.url, plan.facts.fps or 25.0, plan.facts.declared.duration_s
        )

    def add_packet(self, packet: Any) -> Iterator[ClipMade]:
        """One packet of the video."""
        if self.job.copies and packet.size:
            self._copy(packet)
        for picture in self.decoder.pictures(packet):
            yield from self._advance(picture.tick)
            self._deal(picture)
            if self.track is not None:
                self.track.add(picture)
            self.shown = picture

    def end(self) -> Iterator[ClipMade]:
        """The video is over: the last clips are complete, unless its frames end early."""
        timeline = self.plan.timeline
        if self.shown is not None and not ends_early(timeline, self.decoder.last_tick):
            yield from self._advance(timeline.end)
            for clip in list(self.open):
                yield from self._close(clip, timeline.end)

    def track_made(self) -> Iterator[TrackMade]:
        """The track of the video, if one is wanted: to its end, or as far as it was decoded. Asked for once."""
        if self.track is not None and self.shown is not None:
            timeline, last = self.plan.timeline, self.decoder.last_tick
            end = self.shown.tick + 1 if ends_early(timeline, last) else timeline.end
            yield TrackMade(self.track.finish(end))

    def abort(self) -> None:
        """Leave nothing of the clips that are not complete."""
        for clip in self.open:
            if clip.file is not None:
                clip.file.abort()
        self.open = []

    def _advance(self, tick: int) -> Iterator[ClipMade]:
        """Do what happens before the next frame, which is shown at this tick."""
        base = self.plan.timeline.time_base
        while self.waiting and (start := ticks(self.waiting[0].start_s, base)) <= tick:
            yield from self._close_until(start, tick)
            self._open(self.waiting.popleft(), tick)
        yield from self._close_until(tick, tick)

    def _close_until(self, moment: int, next_tick: int) -> Iterator[ClipMade]:
        """Close the clips that end by a moment, and give the others the sound up to it.

        The next frame is shown at `next_tick`, which is not before that moment: until then the last one is shown.
        """
        for clip in sorted((clip for clip in self.open if clip.end <= moment), key=lambda clip: clip.end):
            self._give_sound(clip.end)
            yield from self._close(clip, next_tick)
        self._give_sound(moment)

    def _open(self, span: Span, tick: int) -> None:
        """Begin a clip, with the frame that stands there until the next one, at this tick."""
        file: ClipFile | None = None
        if self.job.files is not None:
            assert self.audio is not None
            path = os.path.join(self.job.files.folder, f"{self._id(span)}.mp4")
            if self.job.copies:
                file = CopiedClip(path, self.plan.timeline, self.audio, self.video.stream)
            else:
                file = EncodedClip(path, self.plan.timeline, self.audio, self.job.files.encoder, self.rate)
        clip = _OpenClip(self.job, self.plan, span, file)
        self.open.append(clip)
        if self.shown is None or tick == clip.start:
            return
        if tick >= clip.end or self.plan.timeline.stands(tick - self.shown.tick):
            self._deal(self.shown.at(clip.start), clip)

    def _deal(self, picture: Picture, only: _OpenClip | None = None) -> None:
        """Give a frame to the clips that are open, or to one."""
        for clip in [only] if only is not None else list(self.open):
            begins = clip.first is None
            with self._losing_only(clip):
                clip.add(picture)
                if begins:  # in the middle of sound, which goes on in it
                    for track, sound in self.last_sounds.items():
                        self._give(sound, track, clip)

    @contextmanager
    def _losing_only(self, clip: _OpenClip) -> Iterator[None]:
        """A fault of encoding or writing costs the clip at hand."""
        try:
            yield
        except VideoFault as fault:
            if fault.reason != "encode_error":
                raise
            self.faults.append({"id": self._id(clip.span), "reason": fault.reason, "detail": fault.detail})
            self.open.remove(clip)
            if clip.file is not None:
                clip.file.abort()

    def _give_sound(self, until: int) -> None:
        """Give the sound that begins before this moment to the clips that it belongs to."""
        until_s = self.plan.timeline.clock_s(until)
        for track in self.tracks:
            for sound in track.until(until_s):
                self.last_sounds[track] = sound
                for clip in self.open:
                    if clip.first is not None:
                        self._give(sound, track, clip)

    def _give(self, sound: Sound, track: AudioTrack, clip: _OpenClip) -> None:
        """Give what of a sound lies within a clip to its file, or to the steps."""
        zero_s = self.plan.timeline.clock_s(0)
        part = sound.within(zero_s + clip.span.start_s, zero_s + clip.span.end_s)
        if part is None:
            return
        if track is self.heard:
            clip.heard.append(part)
        elif clip.file is not None:
            clip.file.add_sound(part)

    def _copy(self, packet: Any) -> None:
        """Give a packet to the clips that contain its key frame.

        Frames that are shown before the key frame but stored after it need the one before: where a clip starts they go.
        Of a video that was trimmed, the frames that it hides at its start are copied, still hidden: others need them.
        """
        timeline = self.plan.timeline
        pts, dts = (NO_TIME if stamp is None else stamp for stamp in (packet.pts, packet.dts))
        tick = self.clock.time(pts, dts, packet.duration or 0, not packet.is_discard) - timeline.origin
        if packet.is_keyframe:
            self.key = max(0, tick)
        while self.waiting and ticks(self.waiting[0].start_s, timeline.time_base) <= self.key:
            self._open(self.waiting.popleft(), self.key)
        for clip in list(self.open):
            is_inside = clip.start <= self.key < clip.end and (tick >= clip.start or clip.start == 0)
            if is_inside and isinstance(clip.file, CopiedClip):
                with self._losing_only(clip):
                    clip.file.add(packet, tick)

    def _close(self, clip: _OpenClip, next_tick: int) -> Iterator[ClipMade]:
        if clip.first is None:  # nothing can be decoded before the end of this clip
            self.open.remove(clip)
            return
        facts: dict[str, Any] = {"id": self._id(clip.span), **self._facts(clip, clip.first)}
        with self._losing_only(clip):
            if clip.file is not None:
                if not clip.file.is_begun:
                    raise VideoFault("encode_error", "no key frame of the video begins in it")
                timeline = self.plan.timeline
                whole = 0 if timeline.stands(timeline.longest) else math.ceil(timeline.frame_ticks)
                clip.file.finish(min(next_tick, max(clip.end, clip.last_tick + whole)))
                facts |= self._facts_of_file(clip.file, clip.first)
            if clip.preview is not None and self.job.files is not None:
                write_preview(os.path.join(self.job.files.folder, f"{facts['id']}.webp"), clip.preview.frames())
        if clip not in self.open:  # it was lost
            return
        self.open.remove(clip)
        self.n_made += 1
        yield ClipMade(
            facts,
            tuple(sampler.frames() for sampler in clip.samplers),
            tuple(samples_of(clip.heard, rate_hz) for rate_hz in self.job.wanted.sound_rates_hz),
        )

    def _facts_of_file(self, file: ClipFile, first: Looks) -> dict[str, Any]:
        size = file.width, file.height
        width, height = size[::-1] if self.job.copies and first.is_turned else size
        return {
            "n_bytes": os.path.getsize(file.path),
            "width": width,
            "height": height,
            "codec": file.codec,
            "n_frames": file.n_frames,
            "audio": file.n_sounds > 0,
            "audio_changes": file.audio_changes,
        }

    def _facts(self, clip: _OpenClip, first: Looks) -> dict[str, Any]:
        bad = self.decoder.bad_ticks
        return {
            "start_s": clip.span.start_s,
            "end_s": clip.span.end_s,
            "duration_s": clip.span.duration_s,
            "width": first.size[0],
            "height": first.size[1],
            "fps": self.plan.facts.fps,
            "bitrate": self.plan.timeline.bitrate,
            "n_frames": clip.n_frames,
            "bad_frames": bisect_left(bad, clip.end) - bisect_left(bad, clip.start),
            "interlaced": clip.is_interlaced,
            "transfer": first.transfer,
        }

    def _id(self, span: Span) -> str:
        if self.job.plan is None:
            return file_id(self.job.id_scheme, self.job.relative_path)
        return clip_id(self.job.id_scheme, self.identity, span, self.job.plan.algorithm)
