"""Embedders that are neural networks, loaded by transformers from a local folder. Needs torch.

Frames are prepared here by what the model's preprocessor settings say, for the processors of transformers 5 need
torchvision, and the models meet them as `(clips, frames, 3, h, w)`. Nothing is ever downloaded.
"""

from __future__ import annotations

import inspect
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import transformers
from safetensors import SafetensorError
from torch.nn import functional

from semdedup.errors import ClusterError, InputError
from semdedup.video.steps.embed.embedder import Embedder, faults_of_clips
from semdedup.video.steps.embed.model_folder import ModelChoice
from semdedup.video.steps.embed.preprocess import Preparation, preparation_of
from semdedup.video.steps.frames import Frames, spread

IMAGE_MODEL_N_FRAMES = 8
COSMOS_N_FRAMES = 8
INTERNVIDEO2_N_FRAMES = 4

UNUSABLE = (ImportError, OSError, ValueError, TypeError, AttributeError, KeyError, RuntimeError, SafetensorError)
"""What transformers and models raise where files are corrupt, code lacks a package, or a model is of another kind."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def load_model(choice: ModelChoice) -> Embedder:
    """Load a model that `check_model` has passed, and try it on a grey clip.

    Clips go one by one on the CPU, where batches measured slower (4 clips in 4 layers of CLIP: 2.0-2.5 s together,
    1.7 s one by one): the result is the same to the bit whatever the batch, though not whatever the number of threads.
    On a GPU they go together and in half precision, of 8 bits, or 11 on GPUs before Ampere; there the last of them vary
    with the batch.

    Raises:
        ClusterError: a GPU is asked for that torch does not see.
        InputError: the folder holds no model that embeds frames.
    """
    device, dtype = _device(choice.backend)
    try:
        network = NETWORKS[choice.network](choice)
        network.model.to(device=device, dtype=dtype)
        embed = _Embed(network, choice.name, one_by_one=device.type == "cpu")
        embed.vectors([np.full((network.n_frames, network.short_side, network.short_side, 3), 127, dtype=np.uint8)])
    except UNUSABLE as error:
        raise InputError(f"the model in {choice.folder} cannot be used as {choice.algorithm}: {error}") from error
    size = network.preparation.size
    return Embedder(choice.name, embed, network.n_frames, size, network.short_side, choice.batch_size)


@dataclass(frozen=True)
class _Network:
    """A loaded model: `vectors` takes what `preparation` makes of n clips, (n, t, 3, h, w) float32, to (n, d)."""

    model: Any
    n_frames: int
    preparation: Preparation
    vectors: Callable[[torch.Tensor], torch.Tensor]

    @property
    def short_side(self) -> int:
        """Shorter side of the frames that it likes best."""
        p = self.preparation
        if p.patches:
            return p.patches[0] * math.isqrt(p.patches[1])
        return min(p.size) if p.size else p.shorter


class _Embed:
    """The function of an `Embedder`. One thread at a time uses the model, so that its memory is that of one batch."""

    def __init__(self, network: _Network, name: str, one_by_one: bool) -> None:
        self.network, self.name, self.one_by_one = network, name, one_by_one
        self._lock = threading.Lock()

    def __call__(self, clips: Sequence[Frames]) -> np.ndarray:
        what = f"the model {self.name} failed on {len(clips)} clips, the first with frames of shape {clips[0].shape}"
        with faults_of_clips(what, len(clips)):
            return self.vectors(clips)

    def vectors(self, clips: Sequence[Frames]) -> np.ndarray:
        """The vectors of clips, with whatever error the model raises."""
        prepared = [self.network.preparation.apply(spread(frames, self.network.n_frames)) for frames in clips]
        rows: list[torch.Tensor] = []
        for group in _groups(prepared, self.one_by_one):
            with self._lock, torch.inference_mode():
                rows.extend(self.network.vectors(torch.stack(group)).float().cpu())
        vectors = torch.stack(rows).numpy()
        if vectors.ndim != 2 or len(vectors) != len(clips):
            raise InputError(f"the model must return one vector a clip; for {len(clips)} it returned {vectors.shape}")
        return vectors


def _groups(prepared: list[torch.Tensor], one_by_one: bool) -> list[list[torch.Tensor]]:
    """Neighbours of one shape together, or each alone."""
    groups: list[list[torch.Tensor]] = []
    for clip in prepared:
        if groups and not one_by_one and groups[-1][0].shape == clip.shape:
            groups[-1].append(clip)
        else:
            groups.append([clip])
    return groups


def _device(backend: str) -> tuple[torch.device, torch.dtype]:
    if backend == "cpu" or not torch.cuda.is_available():
        if backend == "gpu":
            raise ClusterError("backend gpu: torch sees no GPU here; install a CUDA build of torch, or ask for auto")
        return torch.device("cpu"), torch.float32
    return torch.device("cuda"), torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def _load(choice: ModelChoice) -> tuple[Any, set[str]]:
    """The model in evaluation mode, and the names of its weights that the folder does not have."""
    model, info = transformers.AutoModel.from_pretrained(
        choice.folder,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=choice.trust_remote_code,
        output_loading_info=True,
    )
    return model.eval(), set(info["missing_keys"])


def _refuse_missing(missing: set[str]) -> None:
    """Missing weights are filled with random numbers, other ones on every worker."""
    if missing:
        raise ValueError(f"{len(missing)} weights are not in the files: {', '.join(sorted(missing)[:3])}, …")


def _cosmos(choice: ModelChoice) -> _Network:
    """Cosmos-Embed1 (https://huggingface.co/nvidia/Cosmos-Embed1-224p), by its own code.

    Its processor takes ``videos`` (n, 8, 3, h, w) uint8, scales them to squares of 224, 336 or 448 and normalises;
    ``get_video_embeddings(...).visual_proj`` is (n, 256), for the larger ones (n, 768).
    """
    model, missing = _load(choice)
    _refuse_missing(missing)
    processor = transformers.AutoProcessor.from_pretrained(
        choice.folder, local_files_only=True, trust_remote_code=choice.trust_remote_code
    )
    size = processor.resolution
    height, width = (size, size) if isinstance(size, int) else size

    def vectors(batch: torch.Tensor) -> torch.Tensor:
        inputs = processor(videos=batch.to(torch.uint8).numpy()).to(model.device, dtype=model.dtype)
        return model.get_video_embeddings(**inputs).visual_proj

    n_frames = getattr(processor, "num_video_frames", COSMOS_N_FRAMES)
    return _Network(model, n_frames, Preparation((height, width), scale=1.0), vectors)


def _internvideo2(choice: ModelChoice) -> _Network:
    """InternVideo2 stage 2 (https://huggingface.co/OpenGVLab/InternVideo2-Stage2_6B), by its own code.

    It reads 4 frames of 224 x 224, normalised as ImageNet is, (n, 4, 3, 224, 224); ``get_vid_feat`` gives the vectors
    that are compared with texts, which is ``vision_proj`` of the pooled output of ``encode_vision``.
    """
    model, missing = _load(choice)
    _refuse_missing(missing)

    def vectors(batch: torch.Tensor) -> torch.Tensor:
        batch = batch.to(model.device, model.dtype)
        if hasattr(model, "get_vid_feat"):
            return model.get_vid_feat(batch)
        pooled = model.encode_vision(batch, test=True)[1]
        return model.vision_proj(pooled) if hasattr(model, "vision_proj") else pooled

    n_frames = getattr(model.config, "num_frames", INTERNVIDEO2_N_FRAMES)
    preparation = Preparation((224, 224), resample="bilinear", mean=IMAGENET_MEAN, std=IMAGENET_STD)
    return _Network(model, n_frames, preparation, vectors)


def _hugging_face(choice: ModelChoice) -> _Network:
    """Any image or video model whose settings tell how frames are prepared.

    Of a video model the vector is its pooled output, or the mean over its tokens where it has none; it sees as many
    frames as it was trained with. Of an image model it is the mean over 8 frames of the normalised vectors.
    """
    model, missing = _load(choice)
    # Often absent, as classifiers are trained without: then the tokens serve.
    use_pooler = not any("pooler" in name.split(".") for name in missing)
    _refuse_missing({name for name in missing if "pooler" not in name.split(".")})
    n_frames = _n_frames(model.config)
    preparation = preparation_of(choice.folder, is_video=n_frames is not None)
    if n_frames is None:
        return _Network(model, IMAGE_MODEL_N_FRAMES, preparation, _image_vectors(model, preparation, use_pooler))
    return _Network(model, n_frames, preparation, _video_vectors(model, use_pooler))


NETWORKS: Mapping[str, Callable[[ModelChoice], _Network]] = MappingProxyType(
    {"cosmos": _cosmos, "internvideo2": _internvideo2, "hugging_face": _hugging_face}
)
"""How models are loaded, by the names that `providers.PROVIDERS` gives them."""


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
        inputs = _patches(pictures, *preparation.patches) if preparation.patches else {"pixel_values": pictures}
        each = functional.normalize(_pooled(function(**inputs), use_pooler).float(), dim=-1)
        return each.unflatten(0, batch.shape[:2]).mean(dim=1)

    return vectors


def _pooled(output: Any, use_pooler: bool) -> torch.Tensor:
    """The vectors (n, d) in what a model returned: transformers 4 gives tensors where 5 gives objects."""
    if not isinstance(output, torch.Tensor):
        pooled = getattr(output, "pooler_output", None) if use_pooler else None
        output = output.last_hidden_state if pooled is None else pooled
    if output.ndim == 4:  # a map of a convolutional network: (n, d, h, w)
        return output.mean(dim=(2, 3))
    return output.mean(dim=1) if output.ndim == 3 else output


def _n_frames(config: Any) -> int | None:
    """Frames that a video model was trained with; None: it is an image model."""
    for settings in (config, getattr(config, "vision_config", None)):
        for name in ("frames_per_clip", "num_frames"):
            if isinstance(value := getattr(settings, name, None), int):
                return value
    return None


def _patches(pictures: torch.Tensor, side: int, most: int) -> dict[str, torch.Tensor]:
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
