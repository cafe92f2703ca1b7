"""Models of sentence-transformers from a local folder. Needs torch and sentence-transformers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from PIL import Image

from semdedup.video.steps.embed.hugging_face import CHAT_N_FRAMES, CHAT_SHORT_SIDE, a_second_apart, n_frames_of
from semdedup.video.steps.embed.json_file import read_json
from semdedup.video.steps.embed.model_folder import ModelChoice, module_folders
from semdedup.video.steps.embed.network import (
    IMAGE_MODEL_N_FRAMES,
    Network,
    as_they_are,
    load_weights,
    mean_of_pictures,
    refuse_missing,
)


def sentence_transformer(choice: ModelChoice) -> Network:
    """A model that embeds videos, or else pictures, by the modules and prompts in its folder (https://sbert.net).

    Videos: as many frames as the model was trained with, else 16, said to be a second apart. Pictures: the mean over 8
    frames of the normalised vectors, as of the image models of transformers. Weights are read twice, for
    sentence-transformers does not tell which ones were missing.
    """
    import sentence_transformers

    for folder in module_folders(choice.folder):
        if "model_type" in read_json(folder / "config.json"):
            refuse_missing(load_weights(replace(choice, folder=folder))[1])
    model = sentence_transformers.SentenceTransformer(
        str(choice.folder),
        device="cpu",
        local_files_only=True,
        trust_remote_code=choice.trust_remote_code,
        model_kwargs={"use_safetensors": True},
    ).eval()
    kinds = [kind for kind in model.modalities if isinstance(kind, str)]
    if "video" in kinds:
        n_frames = n_frames_of(getattr(model[0], "config", None)) or CHAT_N_FRAMES
        return Network(model, n_frames, None, CHAT_SHORT_SIDE, as_they_are, _of_videos(model))
    if "image" in kinds:
        return Network(model, IMAGE_MODEL_N_FRAMES, None, CHAT_SHORT_SIDE, as_they_are, _of_pictures(model))
    raise ValueError(f"it embeds {', '.join(kinds)}; needed is a model that embeds videos or pictures")


def _of_videos(model: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    def vectors(batch: torch.Tensor) -> torch.Tensor:
        videos = [{"array": clip, "video_metadata": a_second_apart(len(clip))} for clip in batch]
        return _encode(model, videos, processing_kwargs={"video": {"do_sample_frames": False}})

    return vectors


def _of_pictures(model: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    def vectors(batch: torch.Tensor) -> torch.Tensor:
        frames = batch.flatten(0, 1).permute(0, 2, 3, 1).contiguous().numpy()
        return mean_of_pictures(_encode(model, [Image.fromarray(frame) for frame in frames]), len(batch))

    return vectors


def _encode(model: Any, inputs: list[Any], **options: Any) -> torch.Tensor:
    return model.encode(inputs, batch_size=len(inputs), convert_to_tensor=True, show_progress_bar=False, **options)
