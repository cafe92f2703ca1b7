"""The embedding without a model, functions of users, and clips without information. Nothing here needs torch."""

import errno
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.fft import dctn, idctn

from semdedup.errors import ClusterError, ParameterError
from semdedup.video.quarantine import ClipFault
from semdedup.video.steps.embed.dct3d import DIM, RECOMMENDED_EPS, STILL_RMS, dct3d, dct3d_batch
from semdedup.video.steps.embed.embedder import faults_of_clips
from semdedup.video.steps.embed.providers import NAMES, EmbedderSpec, load_embedder
from semdedup.video.steps.frames import shrink, spread
from semdedup.video.steps.low_information import low_information
from semdedup.video.steps.protocol import ClipInput


def moving(rng: np.random.Generator, t: int = 16, h: int = 32, w: int = 32, std: float = 40) -> np.ndarray:
    """A clip (t, h, w, 3) uint8 in which blobs of colour change smoothly; low frequencies prevail, as in nature."""
    k_t, k_y, k_x, _ = np.ix_(np.arange(t), np.arange(h), np.arange(w), [0])
    cube = idctn(rng.normal(size=(t, h, w, 3)) / (1 + k_t + k_y + k_x), axes=(0, 1, 2), norm="ortho")
    cube -= cube.mean(axis=(0, 1, 2))
    return np.clip(np.round(128 + cube * (std / cube.std())), 0, 255).astype(np.uint8)


def still(rng: np.random.Generator) -> np.ndarray:
    return np.broadcast_to(moving(rng, t=1), (16, 32, 32, 3))


def reference(frames: np.ndarray) -> np.ndarray:
    """The definition, with nothing but NumPy."""
    grey = frames @ [0.299, 0.587, 0.114]
    for axis, kept in enumerate((6, 8, 8)):
        n = grey.shape[axis]
        k, i = np.arange(kept)[:, None], np.arange(n)
        basis = np.cos(np.pi * k * (2 * i + 1) / (2 * n)) * np.sqrt(np.where(k == 0, 1, 2) / n)
        grey = np.moveaxis(np.tensordot(basis, grey, (1, axis)), 0, axis)
    return (np.where(grey > np.median(grey), 1, -1).ravel() / np.sqrt(384)).astype(np.float32)


def test_equals_the_definition(rng: np.random.Generator) -> None:
    for _ in range(20):
        frames = moving(rng)
        np.testing.assert_array_equal(dct3d(frames), reference(frames))


def test_shape_and_norm(rng: np.random.Generator) -> None:
    vectors = dct3d_batch([moving(rng) for _ in range(3)])
    assert vectors.shape == (3, DIM) == (3, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)


def test_a_batch_is_its_clips_one_by_one(rng: np.random.Generator) -> None:
    stripes = np.broadcast_to((np.arange(32)[None, None, :, None] * 8).astype(np.uint8), (16, 32, 32, 3))
    clips = [moving(rng), still(rng), stripes, moving(rng, 7, 45, 80), moving(rng)]
    np.testing.assert_array_equal(dct3d_batch(clips), np.stack([dct3d(frames) for frames in clips]))


@pytest.mark.parametrize(
    "change",
    [lambda x: x + 20.0, lambda x: x - 20.0, lambda x: 128 + 0.5 * (x - 128.0), lambda x: 0.8 * x],
    ids=["brighter", "darker", "half the contrast", "dimmed"],
)
def test_brightness_and_contrast_change_little(rng: np.random.Generator, change: Callable[[Any], Any]) -> None:
    frames = moving(rng, std=30)
    changed = np.clip(np.round(change(frames)), 0, 255).astype(np.uint8)
    assert dct3d(frames) @ dct3d(changed) > 0.93


def test_another_size_of_the_same_clip(rng: np.random.Generator) -> None:
    frames = moving(rng)
    for factor in (2, 5):
        larger = frames.repeat(factor, axis=1).repeat(factor, axis=2)
        np.testing.assert_array_equal(dct3d(larger), dct3d(frames))
    assert dct3d(moving(np.random.default_rng(5), 16, 90, 160)) @ dct3d(frames) < 0.3


def test_different_clips_are_far_apart(rng: np.random.Generator) -> None:
    vectors = dct3d_batch([moving(rng) for _ in range(60)])
    assert (vectors @ vectors.T - np.eye(60)).max() < 0.3


def test_different_stills_are_far_apart(rng: np.random.Generator) -> None:
    """By the definition alone they would share the 320 signs of frequencies in time, and score 0.8 and more."""
    stills = [still(rng) for _ in range(60)]
    blocks = np.stack([dctn(shrink(frames, 32, 32), norm="ortho")[:6, :8, :8].ravel() for frames in stills])
    by_definition = np.where(blocks > np.median(blocks, axis=1, keepdims=True), 1, -1)
    assert (by_definition @ by_definition.T / 384).min() > 0.7
    vectors = dct3d_batch(stills)
    assert (vectors @ vectors.T - np.eye(60)).max() < 0.35
    noisy = [np.clip(frames + rng.integers(-2, 3, frames.shape), 0, 255).astype(np.uint8) for frames in stills]
    assert (vectors * dct3d_batch(noisy)).sum(axis=1).min() > 0.8


def test_the_threshold_of_stills_is_below_what_moves(rng: np.random.Generator) -> None:
    frames = moving(rng, std=3)
    values = dctn(shrink(frames, 32, 32), norm="ortho")[1:6, :8, :8]
    assert STILL_RMS < np.sqrt(np.mean(values**2)) < 10 * STILL_RMS
    np.testing.assert_array_equal(dct3d(frames), reference(frames))


def test_scores_are_multiples_of_a_96th_and_the_threshold_is_between_two(rng: np.random.Generator) -> None:
    vectors = dct3d_batch([moving(rng) for _ in range(30)])
    assert ((vectors > 0).sum(axis=1) == 192).all()
    steps = (vectors.astype(np.float64) @ vectors.T) * 96
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)
    threshold = (1 - RECOMMENDED_EPS) * 96
    assert threshold % 1 == pytest.approx(0.5)
    assert 0.45 < 1 - RECOMMENDED_EPS < 0.5


@pytest.mark.parametrize(("t", "n"), [(1, 4), (3, 16), (16, 16), (17, 16), (100, 16), (5, 1)])
def test_frames_spread_over_the_whole_clip(t: int, n: int) -> None:
    expected = [int((i + 0.5) * t / n) for i in range(n)]
    assert spread(np.arange(t), n).tolist() == expected


@pytest.mark.parametrize(("h", "w"), [(32, 32), (64, 96), (45, 33), (480, 854), (20, 31)])
def test_shrinking_keeps_the_mean(h: int, w: int, rng: np.random.Generator) -> None:
    frames = rng.integers(0, 256, (2, h, w, 3), dtype=np.uint8)
    grey = frames @ [0.299, 0.587, 0.114]
    small = shrink(frames, 32, 32)
    assert small.shape == (2, 32, 32)
    np.testing.assert_allclose(small.mean(axis=(1, 2)), grey.mean(axis=(1, 2)))
    if h % 32 == 0 and w % 32 == 0:
        np.testing.assert_allclose(small, grey.reshape(2, 32, h // 32, 32, w // 32).mean(axis=(2, 4)))


def flat(level: float, t: int = 16, h: int = 32, w: int = 32) -> np.ndarray:
    return np.full((t, h, w, 3), level, dtype=np.uint8)


def test_low_information(rng: np.random.Generator) -> None:
    def noisy(sigma: float, h: int, w: int) -> np.ndarray:
        return np.clip(rng.normal(120, sigma, (16, h, w, 3)), 0, 255).astype(np.uint8)

    fade = np.linspace(0, 255, 16).astype(np.uint8)[:, None, None, None] * np.ones((32, 32, 3), dtype=np.uint8)
    flagged = {
        "black": flat(0),
        "grey": flat(128),
        "large": flat(40, h=360, w=640),
        "no frames": flat(0, t=0),
        "one frame": flat(7, t=1),
        "smaller than 32 pixels": flat(7, h=8, w=12),
        "grain": noisy(1.5, 32, 32),
        "grain in large": noisy(12, 224, 400),
        "fade": fade,
        "two colours after each other": np.concatenate([flat(20, t=8), flat(200, t=8)]),
    }
    for what, frames in flagged.items():
        assert low_information(frames), what

    titles = flat(0)
    titles[:, 14:18, 8:24] = 200
    late = flat(0)
    late[12:14] = moving(rng)[:2]
    kept = {
        "texture": moving(rng),
        "large texture": moving(rng, 4, 120, 200),
        "a still": still(rng),
        "titles on black": titles,
        "black but for an eighth": late,
    }
    for what, frames in kept.items():
        assert not low_information(frames), what


def test_the_embedder(rng: np.random.Generator) -> None:
    spec = EmbedderSpec()
    spec.check()
    embedder = load_embedder(spec)
    clips = [moving(rng) for _ in range(3)]
    np.testing.assert_array_equal(embedder.embed(clips), dct3d_batch(clips))
    assert (embedder.name, embedder.n_frames, embedder.frame_size) == ("dct3d", 16, (64, 64))
    assert embedder.recommended_eps == RECOMMENDED_EPS
    assert spec.folder == "dct3d_embd_parquet"
    assert spec.identity() == json.loads(json.dumps(spec.identity())) == {"algorithm": "dct3d", "version": 2}


def test_folders_are_those_that_the_peers_read() -> None:
    folders = {algorithm: EmbedderSpec(algorithm).folder for algorithm in NAMES}
    assert folders == {
        "dct3d": "dct3d_embd_parquet",
        "cosmos-embed1-224p": "ce1_embd_224p_parquet",
        "cosmos-embed1-336p": "ce1_embd_336p_parquet",
        "cosmos-embed1-448p": "ce1_embd_448p_parquet",
        "internvideo2": "iv2_embd_parquet",
        "hf": "hf_embd_parquet",
        "sentence-transformers": "sentence-transformers_embd_parquet",
        "sscd": "sscd_embd_parquet",
    }


def colours(frames: np.ndarray) -> np.ndarray:
    return frames.mean(axis=(0, 1, 2))


class Histogram:
    name = "histogram"
    n_frames = 4
    frame_size = (48, 64)
    recommended_eps = 0.02

    def __call__(self, frames: np.ndarray) -> list[int]:
        return np.bincount(frames.ravel() // 64, minlength=4).tolist()


def test_a_function_of_the_user(rng: np.random.Generator) -> None:
    spec = pickle.loads(pickle.dumps(EmbedderSpec("custom", function=colours)))
    spec.check()
    embedder = load_embedder(spec)
    assert spec.folder == "custom_embd_parquet"
    assert (embedder.name, embedder.n_frames, embedder.frame_size, embedder.short_side) == ("custom", 16, None, 448)
    clips = [moving(rng), moving(rng, 16, 40, 60)]
    vectors = embedder.embed(clips)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [colours(frames) for frames in clips], rtol=1e-6)
    assert spec.identity()["function"].endswith("test_dct3d.colours")


def test_attributes_of_a_function_are_honoured(rng: np.random.Generator) -> None:
    spec = EmbedderSpec("custom", function=Histogram())
    spec.check()
    embedder = load_embedder(spec)
    assert (embedder.name, spec.folder) == ("histogram", "histogram_embd_parquet")
    assert (embedder.n_frames, embedder.frame_size, embedder.recommended_eps) == (4, (48, 64), 0.02)
    assert embedder.embed([moving(rng)]).sum() == 16 * 32 * 32 * 3
    assert json.loads(json.dumps(spec.identity())) == spec.identity()


def test_what_a_function_returns_is_checked(rng: np.random.Generator) -> None:
    def two_dimensional(frames: np.ndarray) -> np.ndarray:
        return frames[0, 0].astype(np.float32)

    def words(frames: np.ndarray) -> str:
        return "a vector"

    def nothing(frames: np.ndarray) -> None:
        return None

    def broken(frames: np.ndarray) -> np.ndarray:
        raise ZeroDivisionError("oh")

    def infinite(frames: np.ndarray) -> np.ndarray:
        return np.array([1.0, 1e300])

    def growing(frames: np.ndarray) -> np.ndarray:
        return np.ones(len(frames))

    for function, message in [
        (two_dimensional, r"two_dimensional must return an array \(d,\); got the shape \(32, 3\)"),
        (words, "words must return numbers in an array .*; got str"),
        (nothing, "nothing must return numbers in an array .*; got NoneType"),
        (broken, r"broken failed on frames of shape \(16, 32, 32, 3\): ZeroDivisionError"),
        (infinite, "custom gave values that are not finite"),
    ]:
        with pytest.raises(ClipFault, match=message):
            load_embedder(EmbedderSpec("custom", function=function))([ClipInput({}, moving(rng))])
    embedder = load_embedder(EmbedderSpec("custom", function=growing))
    with pytest.raises(ClipFault, match="growing must return one length; got 5 and 16"):
        embedder.embed([moving(rng), moving(rng, t=5)])


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(errno.ENOSPC, "full"), RuntimeError("CUDA error: launch failed")], ids=repr
)
def test_what_the_machine_lacks_is_not_the_fault_of_a_clip(error: Exception) -> None:
    with pytest.raises(ClusterError, match=r"the model.* has to do with the machine"), faults_of_clips("the model", 1):
        raise error
    with pytest.raises(ClipFault), faults_of_clips("the model", 2):  # one by one there may be room
        raise error
    with pytest.raises(ClipFault, match="absent"), faults_of_clips("the model", 1):
        raise FileNotFoundError(errno.ENOENT, "absent")


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"name": "../x"}, "attribute name"),
        ({"name": "dct3d"}, "none of dct3d"),
        ({"n_frames": 0}, "n_frames"),
        ({"frame_size": (32,)}, "frame_size"),
        ({"recommended_eps": 1.5}, "recommended_eps"),
    ],
)
def test_attributes_of_a_function_are_checked(attributes: dict, message: str) -> None:
    function = type("F", (), {"__call__": lambda self, frames: colours(frames), **attributes})()
    with pytest.raises(ParameterError, match=message):
        EmbedderSpec("custom", function=function).check()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (EmbedderSpec("cosmos"), "must be one of dct3d, cosmos-embed1-224p"),
        (EmbedderSpec(batch_size=0), "batch_size must be at least 1; got 0"),
        (EmbedderSpec(backend="tpu"), "backend must be auto, cpu or gpu"),  # type: ignore[arg-type]
        (EmbedderSpec(function=colours), "a function goes with the algorithm 'custom'"),
        (EmbedderSpec("custom"), "a function goes with the algorithm 'custom'"),
    ],
)
def test_parameters_are_checked(spec: EmbedderSpec, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        spec.check()


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semdedup.video.steps.embed.model_folder.find_spec", lambda name: None)
    with pytest.raises(ParameterError, match=r"hf needs torch, transformers, safetensors: pip install .*'torch>="):
        EmbedderSpec("hf", model_dir="/models").check()


def test_torch_is_not_imported() -> None:
    code = """
import sys, numpy as np
import semdedup
from semdedup.video.steps.embed.providers import EmbedderSpec, load_embedder
from semdedup.video.steps.low_information import low_information
frames = np.zeros((16, 32, 32, 3), np.uint8)
load_embedder(EmbedderSpec()).embed([frames]); low_information(frames)
assert not {"torch", "transformers", "safetensors"} & set(sys.modules), "imported"
"""
    subprocess.run([sys.executable, "-c", code], check=True)
