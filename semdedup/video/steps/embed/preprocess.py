"""How frames become the numbers that a model reads, by the settings of its preprocessor. Needs torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from semdedup.video.steps.embed.json_file import read_json
from semdedup.video.steps.frames import Frames

RESAMPLE = {1: "bicubic", 2: "bilinear", 3: "bicubic"}
"""Kinds of Pillow that preprocessor settings name by number, in the words of torch. It has no Lanczos (1), for which
the processors of transformers that use torch take bicubic, too."""


@dataclass(frozen=True)
class Preparation:
    """How frames become the numbers that a model reads.

    Attributes:
        size: (h, w) to scale to; None: `shorter` or `patches` hold.
        shorter: pixels of the shorter side after scaling.
        crop: (h, w) cut out of the middle; None: nothing is cut off.
        resample: ``bilinear`` or ``bicubic``.
        scale: what grey levels are multiplied by.
        mean, std: of each channel, subtracted and divided by.
        patches: (side, most of them) where the model reads patches of pictures of any aspect (SigLIP 2 NaFlex).
    """

    size: tuple[int, int] | None
    shorter: int = 0
    crop: tuple[int, int] | None = None
    resample: str = "bicubic"
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    patches: tuple[int, int] | None = None

    def apply(self, frames: Frames) -> torch.Tensor:
        """Frames (t, h, w, 3) uint8 as (t, 3, h', w') float32. As Pillow does it, to within a grey level."""
        pixels = torch.tensor(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
        height, width = pixels.shape[2:]
        size = self.size
        if self.patches:
            size = _patched_size(height, width, *self.patches)
        elif size is None:
            least = min(height, width)
            size = (self.shorter * height // least, self.shorter * width // least)
        if size != (height, width):
            # In uint8, as Pillow rounds and clips between the two directions: bicubic overshoots at edges.
            pixels = functional.interpolate(pixels, size, mode=self.resample, antialias=True, align_corners=False)
        if self.crop:
            pixels = _middle(pixels, self.crop)
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (pixels * self.scale - mean) / std


def preparation_of(folder: Path, is_video: bool) -> Preparation:
    """What the preprocessor settings of a model say, in the spelling of transformers 4 or 5."""
    whole = read_json(folder / "processor_config.json")
    image = read_json(folder / "preprocessor_config.json") or whole.get("image_processor", {})
    video = read_json(folder / "video_preprocessor_config.json") or whole.get("video_processor", {})
    settings = (video or image) if is_video else (image or video)
    if not settings:
        raise ValueError(
            "no preprocessor_config.json tells how frames are prepared: take it from where the model came from, or "
            "give a Python function"
        )
    patches = (settings["patch_size"], settings["max_num_patches"]) if "max_num_patches" in settings else None
    size, shorter = (None, 0) if patches else _size(settings)
    normalised = settings.get("do_normalize", True)
    crop = settings.get("crop_size") if settings.get("do_center_crop", "crop_size" in settings) else None
    resample = settings.get("resample", 2)
    if resample not in RESAMPLE:
        raise ValueError(f"preprocessor setting resample must be one of {RESAMPLE}; got {resample}")
    return Preparation(
        size,
        shorter,
        ((crop, crop) if isinstance(crop, int) else (crop["height"], crop["width"])) if crop else None,
        RESAMPLE[resample],
        settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1.0,
        _channels(settings, "image_mean") if normalised else Preparation.mean,
        _channels(settings, "image_std") if normalised else Preparation.std,
        patches,
    )


def _size(settings: Mapping[str, Any]) -> tuple[tuple[int, int] | None, int]:
    size = settings.get("size")
    if isinstance(size, int):  # files of before 2022: whoever cuts keeps the aspect
        return (None, size) if settings.get("do_center_crop") else ((size, size), 0)
    if isinstance(size, dict):
        known = {name: value for name, value in size.items() if value is not None}
        if known.keys() == {"height", "width"}:
            return (known["height"], known["width"]), 0
        if known.keys() == {"shortest_edge"}:
            return None, known["shortest_edge"]
    raise ValueError(f"preprocessor setting size must be height and width, or shortest_edge; got {size}")


def _channels(settings: Mapping[str, Any], name: str) -> tuple[float, ...]:
    value = settings.get(name)
    if not isinstance(value, list) or len(value) != 3:
        raise ValueError(f"preprocessor setting {name} must hold three numbers; got {value}")
    return tuple(value)


def _middle(pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Cut (h, w) out of the middle; what is missing there is black."""
    height, width = pixels.shape[2:]
    down, right = max(0, size[0] - height), max(0, size[1] - width)
    pixels = functional.pad(pixels, (right // 2, right - right // 2, down // 2, down - down // 2))
    top, left = (pixels.shape[2] - size[0]) // 2, (pixels.shape[3] - size[1]) // 2
    return pixels[:, :, top : top + size[0], left : left + size[1]]


def _patched_size(height: int, width: int, side: int, most: int) -> tuple[int, int]:
    """The largest size, in whole patches and of about this aspect, that has no more patches than `most`."""

    def at(scale: float) -> tuple[int, int]:
        rows, columns = (max(1, math.ceil(pixels * scale / side)) for pixels in (height, width))
        return rows, columns

    low, high = 0.0, 100.0
    while high - low > 1e-5:
        middle = (low + high) / 2
        low, high = (middle, high) if math.prod(at(middle)) <= most else (low, middle)
    rows, columns = at(low)
    return rows * side, columns * side
