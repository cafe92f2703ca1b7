"""Ids of clips: known answers, and the peers' recipes computed by hand."""

import itertools
import uuid

import pytest

from semdedup.video.clip_ids import NAMESPACE, VideoIdentity, clip_id
from semdedup.video.options import SCHEMES
from semdedup.video.plan import Span, fixed_stride

VIDEO = VideoIdentity("day 1/cam.mp4", "/data/in/day 1/cam.mp4", 30.0, 25.0)
NTSC = VideoIdentity("cam.mp4", "s3://bucket/in/cam.mp4", 30_000 / 1001, 25.03)


def test_ids_that_are_known_stay_what_they_are() -> None:
    """A change here makes every folder that was ever split new."""
    assert clip_id("semdedup", VIDEO, Span(0, 10), "fixed_stride") == "33052355-69f9-5ad8-b735-6c2815fa1d64"
    assert clip_id("semdedup", VIDEO, Span(10, 20.000001), "scene") == "026e2b6c-10ed-56bf-bbe8-25a25ae4db8a"
    assert clip_id("nemo", VIDEO, Span(10, 20), "fixed_stride") == "24c75e9c-9dd1-5139-8989-cf1495a1b4b0"
    assert clip_id("cosmos", VIDEO, Span(10.0, 20.0), "fixed_stride") == "3202509a-1b05-55e4-9851-2ddb616c60f3"


def test_an_own_id_is_of_the_relative_path_and_the_span() -> None:
    here = clip_id("semdedup", VIDEO, Span(0, 10), "fixed_stride")
    moved = VideoIdentity(VIDEO.relative_path, "s3://elsewhere/day 1/cam.mp4", 25.0, 24.0)
    assert clip_id("semdedup", moved, Span(0, 10), "fixed_stride") == here
    assert clip_id("semdedup", VIDEO, Span(0, 10), "scene") == here
    renamed = VideoIdentity("day 2/cam.mp4", VIDEO.path, 30.0, 25.0)
    assert clip_id("semdedup", renamed, Span(0, 10), "fixed_stride") != here
    assert clip_id("semdedup", VIDEO, Span(0, 10.000001), "fixed_stride") != here
    assert clip_id("semdedup", VIDEO, Span(1e-6, 10), "fixed_stride") != here
    assert uuid.UUID(here).version == 5
    assert here == str(uuid.uuid5(NAMESPACE, "day 1/cam.mp4\n0-10000000"))


@pytest.mark.parametrize("video", [VIDEO, NTSC], ids=["30 fps", "29.97 fps"])
@pytest.mark.parametrize(("clip_s", "stride_s"), [(10, 10), (2.5, 2.5), (10, 5), (3.337, 3.337)])
def test_the_recipes_of_the_peers_for_fixed_strides(video: VideoIdentity, clip_s: float, stride_s: float) -> None:
    """Their loop over seconds, up to the number of frames over the rate, and what they make an id of."""
    n_frames = int(video.duration_s * video.fps)
    duration_s, start_s = n_frames / video.fps, 0.0
    nemo, cosmos = [], []
    while start_s < duration_s:
        end_s = min(start_s + clip_s, duration_s)
        if end_s - start_s >= 2:
            frames = f"{int(start_s * video.fps)}_{int(end_s * video.fps)}"
            nemo.append(str(uuid.uuid5(uuid.NAMESPACE_URL, f"{video.path}_{frames}")))
            cosmos.append(str(uuid.uuid5(uuid.NAMESPACE_URL, f"{video.path}_{start_s}_{end_s}")))
        start_s += stride_s
    spans = fixed_stride(video.duration_s, clip_s, stride_s, 2)
    assert [clip_id("nemo", video, span, "fixed_stride") for span in spans] == nemo
    if clip_s != 3.337:  # they add up floats and make ids of their last bits
        assert [clip_id("cosmos", video, span, "fixed_stride") for span in spans] == cosmos


@pytest.mark.parametrize("scheme", ["nemo", "cosmos"])
@pytest.mark.parametrize("video", [VIDEO, NTSC], ids=["30 fps", "29.97 fps"])
def test_the_recipe_of_the_peers_for_scenes(video: VideoIdentity, scheme: str) -> None:
    """Frame numbers, from which they compute seconds."""
    for first, last in itertools.pairwise([0, 61, 130, 299, 700]):
        span = Span(round(first / video.fps, 6), round(last / video.fps, 6))
        expected = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{video.path}_{first}_{last}"))
        assert clip_id(scheme, video, span, "scene") == expected


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_two_clips_of_a_plan_share_an_id(scheme: str) -> None:
    for stride_s in (10.0, 0.5):
        spans = fixed_stride(25, 10, stride_s, 2)
        assert len({clip_id(scheme, NTSC, span, "fixed_stride") for span in spans}) == len(spans)
