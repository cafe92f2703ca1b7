"""What a model is once it is loaded, and how its weights are read by transformers. Needs torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from semdedup.video.steps.embed.model_folder import ModelChoice
from semdedup.video.steps.embed.preprocess import Preparation
from semdedup.video.steps.frames import Frames

IMAGE_MODEL_N_FRAMES = 8
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Network:
    """A loaded model.

    Attributes:
        model: a module of torch, in evaluation mode.
        n_frames: frames of a clip that it sees.
        size: (h, w) that frames are best scaled to; None keeps their aspect.
        short_side: where `size` is None, the shorter side of the frames that it likes best.
        prepare: frames (t, h, w, 3) uint8 to one tensor.
        vectors: what `prepare` made of n clips, where the shapes are the same, stacked: to (n, d).
        half: whether half precision will do on a GPU.
    """

    model: Any
    n_frames: int
    size: tuple[int, int] | None
    short_side: int
    prepare: Callable[[Frames], torch.Tensor]
    vectors: Callable[[torch.Tensor], torch.Tensor]
    half: bool = True


def prepared_network(
    model: Any,
    n_frames: int,
    preparation: Preparation,
    vectors: Callable[[torch.Tensor], torch.Tensor],
    half: bool = True,
) -> Network:
    """A model that reads frames as a `Preparation` makes them: (n, t, 3, h, w) float32."""
    if preparation.patches:
        short_side = preparation.patches[0] * math.isqrt(preparation.patches[1])
    else:
        short_side = min(preparation.size) if preparation.size else preparation.shorter
    return Network(model, n_frames, preparation.size, short_side, preparation.apply, vectors, half)


def as_they_are(frames: Frames) -> torch.Tensor:
    """Frames as (t, 3, h, w) uint8, for models whose own processor prepares them."""
    return torch.tensor(frames).permute(0, 3, 1, 2)


def load_weights(choice: ModelChoice, auto: Any = None) -> tuple[Any, set[str]]:
    """The model in evaluation mode, and the names of its weights that the folder does not have.

    Args:
        choice: which one is meant.
        auto: class of transformers that reads it; None: `AutoModel`.
    """
    import transformers

    model, info = (auto or transformers.AutoModel).from_pretrained(
        choice.folder,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=choice.trust_remote_code,
        output_loading_info=True,
    )
    return model.eval(), set(info["missing_keys"])


def refuse_missing(missing: set[str]) -> None:
    """Missing weights are filled with random numbers, other ones on every worker."""
    if missing:
        raise ValueError(f"{len(missing)} weights are not in the files: {', '.join(sorted(missing)[:3])}, …")


def mean_of_pictures(vectors: torch.Tensor, n_clips: int) -> torch.Tensor:
    """Vectors of the pictures of n clips, one clip after the other: the mean of the normalised ones of each."""
    return functional.normalize(vectors.float(), dim=-1).unflatten(0, (n_clips, -1)).mean(dim=1)
