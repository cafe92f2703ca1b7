"""Models that bring Python code of their own beside the weights, which runs with the user's trust. Needs torch."""

from __future__ import annotations

import torch
import transformers

from semdedup.video.steps.embed.model_folder import ModelChoice
from semdedup.video.steps.embed.network import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Network,
    load_weights,
    prepared_network,
    refuse_missing,
)
from semdedup.video.steps.embed.preprocess import Preparation

COSMOS_N_FRAMES = 8
INTERNVIDEO2_N_FRAMES = 4


def cosmos(choice: ModelChoice) -> Network:
    """Cosmos-Embed1 (https://huggingface.co/nvidia/Cosmos-Embed1-224p), by its own code.

    Its processor takes ``videos`` (n, 8, 3, h, w) uint8, scales them to squares of 224, 336 or 448 and normalises;
    ``get_video_embeddings(...).visual_proj`` is (n, 256), for the larger ones (n, 768).
    """
    model, missing = load_weights(choice)
    refuse_missing(missing)
    processor = transformers.AutoProcessor.from_pretrained(
        choice.folder, local_files_only=True, trust_remote_code=choice.trust_remote_code
    )
    size = processor.resolution
    height, width = (size, size) if isinstance(size, int) else size

    def vectors(batch: torch.Tensor) -> torch.Tensor:
        inputs = processor(videos=batch.to(torch.uint8).numpy()).to(model.device, dtype=model.dtype)
        return model.get_video_embeddings(**inputs).visual_proj

    n_frames = getattr(processor, "num_video_frames", COSMOS_N_FRAMES)
    return prepared_network(model, n_frames, Preparation((height, width), scale=1.0), vectors)


def internvideo2(choice: ModelChoice) -> Network:
    """InternVideo2 stage 2 (https://huggingface.co/OpenGVLab/InternVideo2-Stage2_6B), by its own code.

    It reads 4 frames of 224 x 224, normalised as ImageNet is, (n, 4, 3, 224, 224); ``get_vid_feat`` gives the vectors
    that are compared with texts, which is ``vision_proj`` of the pooled output of ``encode_vision``.
    """
    model, missing = load_weights(choice)
    refuse_missing(missing)

    def vectors(batch: torch.Tensor) -> torch.Tensor:
        batch = batch.to(model.device, model.dtype)
        if hasattr(model, "get_vid_feat"):
            return model.get_vid_feat(batch)
        pooled = model.encode_vision(batch, test=True)[1]
        return model.vision_proj(pooled) if hasattr(model, "vision_proj") else pooled

    n_frames = getattr(model.config, "num_frames", INTERNVIDEO2_N_FRAMES)
    preparation = Preparation((224, 224), resample="bilinear", mean=IMAGENET_MEAN, std=IMAGENET_STD)
    return prepared_network(model, n_frames, preparation, vectors)
