"""Cutting one video: its packets are read and planned, decoded once, and dealt out to the clips. Knows no Dask.

Runs in a process of its own (`child`), which `worker` asks for every video.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from typing import Any

import av

from semdedup.video.audio import AudioTrack
from semdedup.video.cutter import Cutter
from semdedup.video.heartbeat import HeartbeatTimer, WithHeartbeats
from semdedup.video.job import ClipMade, Outcome, PlannedVideo, SplitJob, TrackMade
from semdedup.video.plan import Span, at_keyframes
from semdedup.video.probe import Video, VideoFacts, shortfall
from semdedup.video.quarantine import VideoFault
from semdedup.video.scenes import find_cuts
from semdedup.video.timeline import Timeline


def split_video(job: SplitJob) -> Iterator[ClipMade | TrackMade | Outcome | None]:
    """Cut one video. Memory: the frames that the decoder and one encoder hold, and the sampled frames of one clip.

    Yields:
        None as a heartbeat; `ClipMade` for each clip, when it is complete; `TrackMade` if that is wanted and the video
        is decoded, also where it fails in the middle; at the end the `Outcome`.
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
        yield from _cut(job, plan, facts)
        yield Outcome("done", facts=facts)
    except VideoFault as fault:
        yield Outcome("quarantined", fault.reason, fault.detail, facts)


def plan_video(job: SplitJob) -> Iterator[PlannedVideo | Outcome | None]:
    """Plan one video and write nothing. Yields None as a heartbeat, then the plan, or the `Outcome` of a fault."""
    av.logging.set_level(av.logging.PANIC)
    try:
        yield (yield from (_planned if isinstance(job.source, str) else _looked_at)(job))
    except VideoFault as fault:
        yield Outcome("quarantined", fault.reason, fault.detail)


def _planned(job: SplitJob) -> WithHeartbeats[PlannedVideo]:
    with Video(job.source, job.limits, job.decode.video_track) as video:
        facts = video.facts()
        timeline = yield from video.timeline()
    return (yield from _plan(job, facts, timeline))


def _looked_at(job: SplitJob) -> WithHeartbeats[PlannedVideo]:
    """The plan of a remote video of which as little is read as tells it.

    Tables of MP4 tell all that packets do, but for key frames that only a parser finds. Other containers are believed
    what they declare. Where neither tells, and where the plan goes by pictures, the video is read.
    """
    with Video(job.source, job.limits, job.decode.video_track) as video:
        facts = video.facts()
        if job.plan is not None and job.plan.algorithm == "scene":
            timeline, is_exact = None, True
        else:
            timeline, is_exact = (yield from video.timeline_by_tables()), not job.copies
            if timeline is None and not job.copies:
                timeline, is_exact = video.declared_timeline(), False
    if timeline is None:
        return (yield from _planned(job))
    plan = yield from _plan(job, facts, timeline)
    return PlannedVideo(plan.facts, plan.timeline, plan.spans, is_exact)


def _plan(job: SplitJob, facts: VideoFacts, timeline: Timeline) -> WithHeartbeats[PlannedVideo]:
    if job.plan is None:
        return PlannedVideo(facts, timeline, [Span(0.0, round(timeline.duration_s, 6))])
    _check_number(job, job.plan.most_spans(timeline.duration_s))  # before they are made
    cuts: list[float] = []
    if job.plan.algorithm == "scene":
        cuts = yield from find_cuts(job.source, timeline, job.limits, job.decode)
    spans = job.plan.spans(timeline.duration_s, cuts, timeline.gaps_s)
    _check_number(job, len(spans))
    if job.plan.cut == "copy" and spans:
        keys = [round(float(key * timeline.time_base), 6) for key in timeline.keyframes]
        spans = at_keyframes(spans, keys or [0.0], timeline.duration_s)
    return PlannedVideo(facts, timeline, spans)


def _check_number(job: SplitJob, n_clips: int) -> None:
    most = job.limits.max_clips
    if n_clips > most:
        raise VideoFault("too_many_clips", f"{n_clips:,} clips; the limit is {most:,}. Longer clips are fewer.")


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
        "n_frames_declared": max(facts.declared.n_frames, timeline.n_frames),
        "gap_s": round(timeline.gap_s, 6),
        "tracks_left_out": list(facts.tracks_left_out),
    }


def _cut(
    job: SplitJob, plan: PlannedVideo, facts: dict[str, Any]
) -> Generator[ClipMade | TrackMade | None, None, None]:
    """Cut the clips; what is found on the way is added to the facts of the video.

    Raises:
        VideoFault: ``decode_error``, ``encode_error``, ``truncated``, ``no_frames``; clips that are complete are good.
    """
    with ExitStack() as stack:
        video = stack.enter_context(Video(job.source, job.limits, job.decode.video_track))
        audio = heard = None
        if job.files is not None:
            audio = stack.enter_context(closing(AudioTrack(job.source, job.limits)))
        if job.wanted.sound_rates_hz:
            heard = stack.enter_context(closing(AudioTrack(job.source, job.limits, "frames")))
        cutter, timer = Cutter(job, plan, video, audio, heard), HeartbeatTimer()
        decoder = cutter.decoder
        try:
            for packet in video.packets():
                yield from cutter.add_packet(packet)
                if timer.due():
                    yield None
            yield from cutter.end()
        except VideoFault:
            yield from cutter.track_made()  # for the clips that are complete
            raise
        else:
            yield from cutter.track_made()
        finally:
            cutter.abort()
            facts |= {
                "n_frames": decoder.n_decoded,
                "bad_frames": len(decoder.bad_ticks),
                "bad_audio_packets": audio.n_bad if audio is not None else 0,
                "interlaced": decoder.is_interlaced,
                "transfer": decoder.transfer,
                "clip_faults": cutter.faults,
            }
    missing = shortfall(plan.facts, plan.timeline, decoder.n_decoded + len(decoder.bad_ticks), decoder.last_tick)
    if missing:
        raise VideoFault("truncated", missing)
    if not decoder.n_decoded:
        raise VideoFault("no_frames", "the decoder gave none")
    if cutter.faults and not cutter.n_made:
        facts["clip_faults"] = []
        raise VideoFault("encode_error", f"all {len(cutter.faults):,} clips, the first: {cutter.faults[0]['detail']}")
