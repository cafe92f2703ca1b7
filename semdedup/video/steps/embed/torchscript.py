"""Copy descriptors of pictures from one file of TorchScript, such as SSCD's. Needs torch, and the user's trust."""

from __future__ import annotations

import torch

from semdedup.video.steps.embed.model_folder import ModelChoice
from semdedup.video.steps.embed.network import (
    IMAGE_MODEL_N_FRAMES,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Network,
    mean_of_pictures,
    prepared_network,
)
from semdedup.video.steps.embed.preprocess import Preparation

SIDE = 320


def sscd(choice: ModelChoice) -> Network:
    """SSCD (https://arxiv.org/abs/2202.10261) and models of its kind: pictures (n, 3, 320, 320) to (n, d).

    Frames are scaled to the square without regard to their aspect, bilinear, and normalised as ImageNet is: what
    SSCD's authors recommend for batches (https://github.com/facebookresearch/sscd-copy-detection). The vector of a
    clip is the mean over 8 frames of the normalised descriptors. In whole precision on GPUs, too: a file of
    TorchScript may have constants of that type. torch calls the format deprecated; 2.13 still reads it.
    """
    model = torch.jit.load(str(choice.folder), map_location="cpu").eval()

    def vectors(batch: torch.Tensor) -> torch.Tensor:
        device = next(iter(model.parameters()), batch).device
        found = model(batch.flatten(0, 1).to(device))
        if not isinstance(found, torch.Tensor) or found.ndim != 2:
            shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
            raise ValueError(f"it must give one vector for each picture, (n, d); got {shape}")
        return mean_of_pictures(found, len(batch))

    preparation = Preparation((SIDE, SIDE), resample="bilinear", mean=IMAGENET_MEAN, std=IMAGENET_STD)
    return prepared_network(model, IMAGE_MODEL_N_FRAMES, preparation, vectors, half=False)
