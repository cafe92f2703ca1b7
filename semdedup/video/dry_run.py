"""What a run over videos would do, in lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from semdedup.compute.session import Session
from semdedup.display import one_line
from semdedup.video.job import PlannedVideo
from semdedup.video.options import CaptionOptions
from semdedup.video.records import VideoFile
from semdedup.video.run import paths_of
from semdedup.video.steps.caption.windows import plan_windows
from semdedup.video.steps.table import SCORES
from semdedup.video.worker import Settings, plan_videos


def describe_videos(session: Session, settings: Settings, todo: Sequence[VideoFile], unit: str) -> Iterator[str]:
    """A line for each video, after planning it on the workers, and one for all."""
    batches = [[video] for video in todo]
    plans = dict(session.run("plan", partial(plan_videos, settings), batches, unit=unit, label=paths_of))
    found = [(path, plan) for position in range(len(batches)) for path, plan in plans[position]]
    spans = [span for _, plan in found if isinstance(plan, PlannedVideo) for span in plan.spans]
    for path, plan in found:
        yield f"  {one_line(path)}: {_described(plan)}"
    scores = [step.name for step in settings.steps if step.name in SCORES]
    if scores:
        yield f"of each clip would be measured: {', '.join(scores)}"
    yield f"{len(spans):,} clips of {sum(span.duration_s for span in spans):,.1f} s in all"
    if settings.captioner is not None:
        options = settings.captioner.options
        n_windows = sum(_n_windows(plan, options) for _, plan in found if isinstance(plan, PlannedVideo))
        yield (
            f"about {n_windows:,} windows to caption by {settings.captioner.model}, each in at most "
            f"{options.max_new_tokens:,} tokens"
        )


def _n_windows(plan: PlannedVideo, options: CaptionOptions) -> int:
    """Windows of the clips of a video, as if its frames stood equally long."""
    rate = plan.timeline.n_frames / max(plan.timeline.duration_s, 1e-3)
    lengths = (round(rate * span.duration_s) for span in plan.spans)
    return sum(len(plan_windows(n, options.window_size, options.remainder_threshold)) for n in lengths)


def _described(plan: Any) -> str:
    if not isinstance(plan, PlannedVideo):
        return f"quarantine: {plan.reason}: {one_line(plan.detail)}"
    gap_s = plan.timeline.gap_s
    about = "" if plan.is_exact else "about "
    seconds = f"{about}{plan.timeline.duration_s:.2f} s" + f", {gap_s:.2f} of them without a new frame" * bool(gap_s)
    if not plan.spans:
        return f"{seconds}, too short"
    shown = ", ".join(f"{span.start_s:g}-{span.end_s:g}" for span in plan.spans[:4])
    return f"{seconds}, {len(plan.spans)} clips: {shown}{' …' if len(plan.spans) > 4 else ''}"
