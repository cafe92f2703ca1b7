"""Models whose classes transformers has, told apart by ``model_type`` in their ``config.json``. Needs torch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
import transformers
from torch.nn import functional

from semdedup.video.steps.embed.json_file import read_json
from semdedup.video.steps.embed.model_folder import ModelChoice
from semdedup.video.steps.embed.network import (
    IMAGE_MODEL_N_FRAMES,
    Network,
    as_they_are,
    load_weights,
    mean_of_pictures,
    prepared_network,
    refuse_missing,
)
from semdedup.video.steps.embed.own_names import code_in
from semdedup.video.steps.embed.preprocess import Preparation, preparation_of

PE_VIDEO_N_FRAMES = 16
CHAT_N_FRAMES = 16
CHAT_SHORT_SIDE = 448
QWEN3_INSTRUCTION = "Represent the user's input."


def hugging_face(choice: ModelChoice) -> Network:
    """Any image or video model whose settings tell how frames are prepared.

    Of a video model the vector is its pooled output, or the mean over its tokens where it has none (V-JEPA 2,
    VideoMAE, the vision model of VideoPrism); it sees as many frames as it was trained with. Of an image model it is
    the mean over 8 frames of the normalised vectors.
    """
    kind = str(read_json(choice.folder / "config.json").get("model_type"))
    if kind not in transformers.CONFIG_MAPPING and not code_in(choice.folder):
        raise ValueError(
            f"transformers {transformers.__version__}, which is installed here, has no models of the type {kind}: "
            "pip install --upgrade transformers"
        )
    return SPECIAL.get(kind, _image_or_video)(choice)


def _image_or_video(choice: ModelChoice) -> Network:
    model, missing = load_weights(choice)
    # Often absent, as classifiers are trained without: then the tokens serve.
    use_pooler = not any("pooler" in name.split(".") for name in missing)
    refuse_missing({name for name in missing if "pooler" not in name.split(".")})
    n_frames = n_frames_of(model.config)
    preparation = preparation_of(choice.folder, is_video=n_frames is not None)
    if n_frames is None:
        vectors = _image_vectors(model, preparation, use_pooler)
        return prepared_network(model, IMAGE_MODEL_N_FRAMES, preparation, vectors)
    return prepared_network(model, n_frames, preparation, _video_vectors(model, use_pooler))


def pe_video(choice: ModelChoice) -> Network:
    """The video tower of Perception Encoder Audio-Visual (https://arxiv.org/abs/2512.19687), without sound.

    16 frames as in its documentation; the vector is what it compares with texts: ``video_head`` of the pooled output
    of ``video_encoder``. Called by these names, for releases of transformers differ in the method that does it (5.24
    defines it where no one can call it).
    """
    model, missing = load_weights(choice)
    refuse_missing(missing)
    tower = getattr(model, "video_model", model)

    def vectors(batch: torch.Tensor) -> torch.Tensor:
        pixels = batch.to(model.device, model.dtype)
        return tower.video_head(tower.video_encoder(pixel_values_videos=pixels).pooler_output)

    return prepared_network(model, PE_VIDEO_N_FRAMES, preparation_of(choice.folder, is_video=True), vectors)


def qwen3_vl(choice: ModelChoice) -> Network:
    """Qwen3-VL-Embedding (https://github.com/QwenLM/Qwen3-VL-Embedding), by the chat template in its folder.

    The clip is the whole message of the user, under the instruction that its authors give by default; the vector is
    the last hidden state of the last token. They sample a frame a second, at most 64: here it is 16 frames of any
    clip, which are said to be a second apart. A Qwen3-VL that was not trained to embed is loaded all the same: its
    settings do not tell.
    """
    model, missing = load_weights(choice)
    refuse_missing(missing)
    processor = transformers.AutoProcessor.from_pretrained(choice.folder, local_files_only=True)
    if hasattr(processor.video_processor, "cap_pixels_per_frame"):  # as the authors' own code does
        processor.video_processor.cap_pixels_per_frame = True
    conversation = [
        {"role": "system", "content": [{"type": "text", "text": QWEN3_INSTRUCTION}]},
        {"role": "user", "content": [{"type": "video"}]},
    ]
    text = processor.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)

    def vectors(batch: torch.Tensor) -> torch.Tensor:
        inputs = processor(
            text=[text] * len(batch),
            videos=list(batch),
            video_metadata=[a_second_apart(len(clip)) for clip in batch],
            do_sample_frames=False,
            return_tensors="pt",
        )
        # Clips of a batch have one shape, hence as many tokens: nothing is padded.
        return model(**inputs.to(model.device)).last_hidden_state[:, -1]

    return Network(model, CHAT_N_FRAMES, None, CHAT_SHORT_SIDE, as_they_are, vectors)


SPECIAL: Mapping[str, Callable[[ModelChoice], Network]] = MappingProxyType(
    {"pe_video": pe_video, "pe_audio_video": pe_video, "qwen3_vl": qwen3_vl}
)
"""Model types that are called in a way of their own."""


def a_second_apart(n_frames: int) -> dict[str, Any]:
    """What processors are told of frames that were sampled before."""
    return {"fps": 1.0, "total_num_frames": n_frames, "duration": n_frames, "frames_indices": list(range(n_frames))}


def _video_vectors(model: Any, use_pooler: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    parameters = inspect.signature(model.forward).parameters
    name = "pixel_values_videos" if "pixel_values_videos" in parameters else "pixel_values"
    options = {"skip_predictor": True} if "skip_predictor" in parameters else {}
    function = getattr(model, "get_video_features", model)

    def vectors(batch: torch.Tensor) -> torch.Tensor:
        return _pooled(function(**{name: batch.to(model.device, model.dtype)}, **options), use_pooler)

    return vectors


def _image_vectors(model: Any, preparation: Preparation, use_pooler: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    function = getattr(model, "get_image_features", model)

    def vectors(batch: torch.Tensor) -> torch.Tensor:
        pictures = batch.flatten(0, 1).to(model.device, model.dtype)
        inputs = patches_of(pictures, *preparation.patches) if preparation.patches else {"pixel_values": pictures}
        return mean_of_pictures(_pooled(function(**inputs), use_pooler), len(batch))

    return vectors


def _pooled(output: Any, use_pooler: bool) -> torch.Tensor:
    """The vectors (n, d) in what a model returned: transformers 4 gives tensors where 5 gives objects."""
    if not isinstance(output, torch.Tensor):
        pooled = getattr(output, "pooler_output", None) if use_pooler else None
        output = output.last_hidden_state if pooled is None else pooled
    if output.ndim == 4:  # a map of a convolutional network: (n, d, h, w)
        return output.mean(dim=(2, 3))
    return output.mean(dim=1) if output.ndim == 3 else output


def n_frames_of(config: Any) -> int | None:
    """Frames that a video model was trained with; None: it is an image model."""
    for settings in (config, getattr(config, "vision_config", None)):
        for name in ("frames_per_clip", "num_frames"):
            if isinstance(value := getattr(settings, name, None), int):
                return value
    return None


def patches_of(pictures: torch.Tensor, side: int, most: int) -> dict[str, torch.Tensor]:
    """Pictures (n, 3, h, w) as patches (n, most, side * side * 3), those that are missing masked."""
    n, _, height, width = pictures.shape
    rows, columns = height // side, width // side
    patches = pictures.unflatten(3, (columns, side)).unflatten(2, (rows, side))  # n, channel, row, y, column, x
    patches = patches.permute(0, 2, 4, 3, 5, 1).reshape(n, rows * columns, -1)
    mask = torch.zeros(n, most, dtype=torch.int32, device=pictures.device)
    mask[:, : rows * columns] = 1
    return {
        "pixel_values": functional.pad(patches, (0, 0, 0, most - rows * columns)),
        "pixel_attention_mask": mask,
        "spatial_shapes": torch.tensor([[rows, columns]] * n, device=pictures.device),
    }
