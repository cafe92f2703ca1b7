"""Captioning clips with tiny models of the real classes, beside their bare `generate` on inputs that are ready."""

import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import distributed
import numpy as np

from benchmarks.split import make_video
from benchmarks.table import Row
from benchmarks.timing import interleave
from semdedup import VideoCaptionWorkflow

NEEDED = ("torch", "torchvision", "num2words", "transformers")
PROMPT, TOKENS = "What is seen?", 32
SIZES: dict[str, dict[str, Any]] = {
    "smoke": {"clips": 2, "seconds": 2, "size": (160, 120), "rounds": 1, "models": ("qwen2.5",)},
    "quick": {"clips": 6, "seconds": 6, "size": (320, 240), "rounds": 2, "models": ("qwen2.5", "smolvlm2")},
    "full": {"clips": 16, "seconds": 10, "size": (640, 360), "rounds": 3, "models": ("qwen2.5", "qwen3", "smolvlm2")},
}


def run(size: str) -> dict[str, Any]:
    """Clips a second: bare `generate`, with the processor, and as `semdedup caption` does them, decoding included."""
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        print(f"captions: not measured, for want of {', '.join(missing)}", flush=True)
        return {}
    settings, found = SIZES[size], dict[str, Any]()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "clips").mkdir()
        for seed in range(settings["clips"]):
            make_video(root / "clips" / f"{seed}.mp4", settings["size"], settings["seconds"], seed)
        with (
            distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as one,
            distributed.Client(one, set_as_default=False) as client,
        ):
            for name in settings["models"]:
                found[name] = _measured(name, root, settings, client)
                print(_line(name, found[name]), flush=True)
    return found


def _measured(name: str, root: Path, settings: dict[str, Any], client: distributed.Client) -> dict[str, Any]:
    import torch

    from benchmarks.tiny_captioners import save
    from semdedup.video.steps.caption.captioner import CaptionSpec
    from semdedup.video.steps.caption.shots import Shot

    torch.set_num_threads(1)
    options = {"captioning_model": str(save(name, root / name)), "captioning_prompt": PROMPT}
    workflow = VideoCaptionWorkflow(
        str(root / "clips"), str(root / f"out-{name}"), captioning_max_new_tokens=TOKENS, verbose=False, **options
    )
    assert isinstance(workflow.captioner, CaptionSpec)
    model, n_frames = workflow.captioner.load().loaded, 2 * settings["seconds"]
    width, height = settings["size"]
    rng = np.random.default_rng(0)
    shots = [Shot(rng.integers(0, 256, (n_frames, height, width, 3), dtype=np.uint8), 2.0)] * settings["clips"]
    ready = model.inputs(shots[:1], PROMPT)

    def bare() -> None:
        with torch.inference_mode():
            for _ in shots:
                model.model.generate(**ready, max_new_tokens=TOKENS)

    def with_processor() -> None:
        model.describe(shots, PROMPT, TOKENS)

    def seconds() -> float:
        started = time.perf_counter()
        bare()
        return time.perf_counter() - started

    seconds()
    timed = interleave({"processor": with_processor}, seconds, settings["rounds"])["processor"]
    started = time.perf_counter()
    result = workflow.run(client)
    whole = time.perf_counter() - started
    assert result.captioned == settings["clips"]
    clips = settings["clips"]
    rates = {"bare": clips / timed["limit"], "processor": clips / timed["seconds"], "whole": clips / whole}
    return {**rates, "clips": clips, "windows": result.windows, "seconds": settings["seconds"]}


def _line(name: str, found: dict[str, Any]) -> str:
    return (
        f"captions, tiny {name}, {found['clips']} clips of {found['seconds']} s, {TOKENS} tokens, clips a second: "
        f"{found['bare']:.2f} bare generate, {found['processor']:.2f} with the processor, {found['whole']:.2f} as "
        "`semdedup caption`"
    )


def rows(found: dict[str, Any]) -> list[Row]:
    """A row for each model."""
    return [
        Row(
            f"Captions by a tiny {name}",
            f"{each['clips']} clips of {each['seconds']} s",
            f"{each['whole']:.2f} clips/s",
            f"bare `generate`: {each['bare']:.2f} clips/s",
            each["bare"] / each["whole"],
        )
        for name, each in found.items()
    ]
