"""What loading code adds to a model: clips a second through each embedder, beside the bare forward pass of its class.

The models are those of `tiny_models`: of the real classes, of random weights and so small that what is around them
shows most. Frames come as they do in a run, sampled and scaled; preparing them is in our time and not in the bare one.
"""

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from semdedup.video.steps.embed.providers import EmbedderSpec, load_embedder
from semdedup.video.steps.protocol import ClipInput

SIZES: dict[str, dict[str, Any]] = {
    "smoke": {"clips": 2, "rounds": 1, "models": ("clip", "videomae")},
    "quick": {"clips": 8, "rounds": 3, "models": None},
    "full": {"clips": 32, "rounds": 5, "models": None},
}
SHORT_SIDE = 64
"""Pixels: decoders scale frames down to what a model reads, which is 32 here, or more where it cuts the middle out."""

PACKAGES = ("torch", "transformers", "safetensors")


def seconds(function: Callable[[], Any], rounds: int) -> float:
    """Processor time, in one thread: the median of some rounds, after one to warm up."""
    function()
    found = []
    for _ in range(rounds):
        started = time.process_time()
        function()
        found.append(time.process_time() - started)
    return statistics.median(found)


def measure(name: str, folder: Path, n_clips: int, rounds: int) -> dict[str, Any]:
    """Seconds for some clips: by the step of a run, and by the forward pass alone on frames that are prepared."""
    import torch

    from benchmarks.tiny_models import save, save_descriptor

    algorithm = "sscd" if name == "sscd" else "hf"
    path = save_descriptor(folder / "sscd.pt") if name == "sscd" else save(name, folder)
    with warnings.catch_warnings():  # that code which we made ourselves is trusted
        warnings.simplefilter("ignore")
        embedder = load_embedder(EmbedderSpec(algorithm, str(path), trust_remote_code=name == "sscd", backend="cpu"))
    rng = np.random.default_rng(0)
    size = embedder.frame_size or (SHORT_SIDE, SHORT_SIDE * 4 // 3)
    clips = [rng.integers(0, 256, (embedder.n_frames, *size, 3), dtype=np.uint8) for _ in range(n_clips)]
    inputs = [ClipInput({}, frames) for frames in clips]
    network = embedder.embed.network  # type: ignore[attr-defined]
    prepared = [network.prepare(frames)[None] for frames in clips]
    calls: list[Callable[[], Any]] = []
    if not isinstance(
        network.model, torch.jit.ScriptModule
    ):  # what the class is called with, whoever made it of frames

        def keep(model: Any, args: tuple, kwargs: dict) -> None:
            calls.append(partial(model, *args, **kwargs))

        hook = network.model.register_forward_pre_hook(keep, with_kwargs=True)
        embedder(inputs)
        hook.remove()
    # Of some not the forward pass is called but `get_image_features` and its like.
    calls = calls or [partial(network.vectors, clip) for clip in prepared]

    def bare() -> None:
        with torch.inference_mode():
            for call in calls:
                call()

    ours = seconds(lambda: embedder(inputs), rounds)
    forward = seconds(bare, rounds)
    return {"clips": n_clips, "frames": embedder.n_frames, "ours": ours, "bare": forward, "ratio": ours / forward}


def run(size: str) -> dict[str, Any]:
    """Measure and print; return the figures."""
    lacking = [package for package in PACKAGES if find_spec(package) is None]
    if lacking:
        print(f"embedders: not measured, {', '.join(lacking)} not installed (pip install '.[models]')")
        return {}
    import torch
    import transformers

    from benchmarks.tiny_models import MODELS, missing

    shape, found = SIZES[size], {}
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    print(
        f"{shape['clips']} clips through models of the real classes, tiny and of random weights; processor time of one "
        "thread"
    )
    print(f"  {'':<16}{'frames':>7}{'clips/s':>10}{'forward pass':>14}{'ratio':>8}")
    for name in shape["models"] or (*MODELS, "sscd"):
        if lacks := missing(name):
            print(f"  {name:<16}{lacks}")
            continue
        with tempfile.TemporaryDirectory(prefix="semdedup-benchmark-") as folder:
            one = found[name] = measure(name, Path(folder), shape["clips"], shape["rounds"])
        rate, bare = one["clips"] / one["ours"], one["clips"] / one["bare"]
        print(f"  {name:<16}{one['frames']:>7}{rate:>10.1f}{bare:>14.1f}{one['ratio']:>8.2f}", flush=True)
    return {"models": found}
