"""Embedders that are neural networks, loaded by transformers from a local folder. The one module that imports torch.

Frames are prepared here by what the model's preprocessor settings say, for the processors of transformers 5 need
torchvision, and the models meet them as `(clips, frames, 3, h, w)`. Nothing is ever downloaded.
"""

from __future__ import annotations

import inspect
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors import SafetensorError
from torch.nn import functional

from semdedup.errors import ClusterError, InputError
from semdedup.video.steps.embed.dct3d import spread
from semdedup.video.steps.embed.providers import Embedder, EmbedderSpec, Frames, read_json

IMAGE_MODEL_N_FRAMES = 8
COSMOS_N_FRAMES = 8
INTERNVIDEO2_N_FRAMES = 4

RESAMPLE = {2: "bilinear", 3: "bicubic"}
"""Kinds of Pillow that preprocessor settings name by number, in the words of torch."""

UNUSABLE = (ImportError, OSError, ValueError, TypeError, AttributeError, KeyError, RuntimeError, SafetensorError)
"""What transformers and models raise where files are corrupt, code lacks a package, or a model is of another kind."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


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


def load_model(spec: EmbedderSpec) -> Embedder:
    """Load a model that `EmbedderSpec.check` has passed, and try it on a grey clip.

    Clips go one by one on the CPU, where batches measured slower (4 clips in 4 layers of CLIP: 2.0-2.5 s together,
    1.7 s one by one): the result is the same to the bit whatever the batch, though not whatever the number of threads.
    On a GPU they go together and in half precision, of 8 bits, or 11 on GPUs before Ampere; there the last of them vary
    with the batch.

    Raises:
        ClusterError: a GPU is asked for that torch does not see.
        InputError: the folder holds no model that embeds frames.
    """
    folder = spec.model_folder
    device, dtype = _device(spec)
    try:
        if spec.algorithm.startswith("cosmos-embed1"):
            network = _cosmos(spec, folder)
        elif spec.algorithm == "internvideo2":
            network = _internvideo2(spec, folder)
        else:
            network = _hugging_face(spec, folder)
        network.model.to(device=device, dtype=dtype)
        embed = _Embed(network, one_by_one=device.type == "cpu")
        embed([np.full((network.n_frames, network.short_side, network.short_side, 3), 127, dtype=np.uint8)])
    except UNUSABLE as error:
        raise InputError(f"the model in {folder} cannot be used as {spec.algorithm}: {error}") from error
    size = network.preparation.size
    return Embedder(spec.name, embed, network.n_frames, size, network.short_side, spec.clips_a_batch)


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

    def __init__(self, network: _Network, one_by_one: bool) -> None:
        self.network, self.one_by_one = network, one_by_one
        self._lock = threading.Lock()

    def __call__(self, clips: Sequence[Frames]) -> np.ndarray:
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


def _device(spec: EmbedderSpec) -> tuple[torch.device, torch.dtype]:
    if spec.backend == "cpu" or not torch.cuda.is_available():
        if spec.backend == "gpu":
            raise ClusterError("backend gpu: torch sees no GPU here; install a CUDA build of torch, or ask for auto")
        return torch.device("cpu"), torch.float32
    return torch.device("cuda"), torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def _load(spec: EmbedderSpec, folder: Path) -> tuple[Any, set[str]]:
    """The model in evaluation mode, and the names of its weights that the folder does not have."""
    model, info = transformers.AutoModel.from_pretrained(
        folder,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=spec.trust_remote_code,
        output_loading_info=True,
    )
    return model.eval(), set(info["missing_keys"])


def _refuse_missing(missing: set[str]) -> None:
    """Missing weights are filled with random numbers, other ones on every worker."""
    if missing:
        raise ValueError(f"{len(missing)} weights are not in the files: {', '.join(sorted(missing)[:3])}, …")


def _cosmos(spec: EmbedderSpec, folder: Path) -> _Network:
    """Cosmos-Embed1 (https://huggingface.co/nvidia/Cosmos-Embed1-224p), by its own code.

    Its processor takes ``videos`` (n, 8, 3, h, w) uint8, scales them to squares of 224, 336 or 448 and normalises;
    ``get_video_embeddings(...).visual_proj`` is (n, 256), for the larger ones (n, 768).
    """
    model, missing = _load(spec, folder)
    _refuse_missing(missing)
    processor = transformers.AutoProcessor.from_pretrained(
        folder, local_files_only=True, trust_remote_code=spec.trust_remote_code
    )
    size = processor.resolution
    height, width = (size, size) if isinstance(size, int) else size

    def vectors(batch: torch.Tensor) -> torch.Tensor:
        inputs = processor(videos=batch.to(torch.uint8).numpy()).to(model.device, dtype=model.dtype)
        return model.get_video_embeddings(**inputs).visual_proj

    n_frames = getattr(processor, "num_video_frames", COSMOS_N_FRAMES)
    return _Network(model, n_frames, Preparation((height, width), scale=1.0), vectors)


def _internvideo2(spec: EmbedderSpec, folder: Path) -> _Network:
    """InternVideo2 stage 2 (https://huggingface.co/OpenGVLab/InternVideo2-Stage2_6B), by its own code.

    It reads 4 frames of 224 x 224, normalised as ImageNet is, (n, 4, 3, 224, 224); ``get_vid_feat`` gives the vectors
    that are compared with texts, which is ``vision_proj`` of the pooled output of ``encode_vision``.
    """
    model, missing = _load(spec, folder)
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


def _hugging_face(spec: EmbedderSpec, folder: Path) -> _Network:
    """Any image or video model whose settings tell how frames are prepared.

    Of a video model the vector is its pooled output, or the mean over its tokens where it has none; it sees as many
    frames as it was trained with. Of an image model it is the mean over 8 frames of the normalised vectors.
    """
    model, missing = _load(spec, folder)
    # Often absent, as classifiers are trained without: then the tokens serve.
    use_pooler = not any("pooler" in name.split(".") for name in missing)
    _refuse_missing({name for name in missing if "pooler" not in name.split(".")})
    n_frames = _n_frames(model.config)
    preparation = _preparation(folder, is_video=n_frames is not None)
    if n_frames is None:
        return _Network(model, IMAGE_MODEL_N_FRAMES, preparation, _image_vectors(model, preparation, use_pooler))
    return _Network(model, n_frames, preparation, _video_vectors(model, use_pooler))


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


def _preparation(folder: Path, is_video: bool) -> Preparation:
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
