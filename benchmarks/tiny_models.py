"""Models of the real classes, tiny and of random weights, saved as their authors' folders are. Needs torch.

Their embeddings mean nothing. They show that the code that loads real ones gives what the class itself gives.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

TINY = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = {**TINY, "image_size": 32, "patch_size": 8}
TEXT = {
    **TINY,
    "vocab_size": 99,
    "max_position_embeddings": 16,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}

CROPPED = {
    "size": {"shortest_edge": 36},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 32, "width": 32},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": CLIP_MEAN,
    "image_std": CLIP_STD,
}
SQUARE = {"size": {"height": 32, "width": 32}, "resample": 2, "do_normalize": True, **HALF}
UNNORMALISED = {"size": {"height": 32, "width": 32}, "resample": 1, "do_normalize": False}


def clip_model() -> Any:
    config = transformers.CLIPConfig(vision_config=VISION, text_config=TEXT, projection_dim=24)
    return transformers.CLIPModel(config)


def siglip_model() -> Any:
    return transformers.SiglipModel(transformers.SiglipConfig(vision_config=VISION, text_config=TEXT))


def siglip2_model() -> Any:
    vision = {**TINY, "patch_size": 8, "num_patches": 16}
    return transformers.Siglip2Model(transformers.Siglip2Config(vision_config=vision, text_config=TEXT))


def dinov2_model() -> Any:
    return transformers.Dinov2Model(transformers.Dinov2Config(**VISION))


def dinov3_model() -> Any:
    return transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**VISION))


def convnext_model() -> Any:
    return transformers.ConvNextModel(transformers.ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1]))


def x_clip_model() -> Any:
    vision = {**VISION, "num_frames": 4, "mit_hidden_size": 32, "mit_intermediate_size": 37}
    vision |= {"mit_num_hidden_layers": 1, "mit_num_attention_heads": 4}
    config = transformers.XCLIPConfig(vision_config=vision, text_config=TEXT, projection_dim=32)
    return transformers.XCLIPModel(config)


def videomae_model() -> Any:
    return transformers.VideoMAEModel(transformers.VideoMAEConfig(**VISION, num_frames=6, tubelet_size=2))


def vjepa2_model() -> Any:
    config = transformers.VJEPA2Config(
        crop_size=32, patch_size=8, frames_per_clip=4, hidden_size=48, num_attention_heads=4, num_hidden_layers=2,
        pred_hidden_size=24, pred_num_attention_heads=2, pred_num_hidden_layers=1, pred_num_mask_tokens=2, mlp_ratio=2,
    )  # fmt: skip
    return transformers.VJEPA2Model(config)


VIDEOPRISM = {
    **{name: TINY[name] for name in ("hidden_size", "intermediate_size", "num_attention_heads")},
    **{"image_size": 32, "num_frames": 4, "tubelet_size": [1, 8, 8], "num_spatial_layers": 2},
    **{"num_temporal_layers": 1, "num_auxiliary_layers": 1},
}


def videoprism_model() -> Any:
    return transformers.VideoPrismVisionModel(transformers.VideoPrismVisionConfig(**VIDEOPRISM))


def videoprism_lvt_model() -> Any:
    text = {**TINY, "vocab_size": 99, "max_position_embeddings": 16}
    return transformers.VideoPrismClipModel(
        transformers.VideoPrismConfig(
            vision_config=transformers.VideoPrismVisionConfig(**VIDEOPRISM),
            text_config=transformers.VideoPrismTextConfig(**text),
        )
    )


PE_VISION = {
    "architecture": "vit_pe_core_tiny_patch16_384",
    **{"do_pooling": True, "num_classes": 24, "global_pool": "map", "model_args": {"img_size": 32, "depth": 1}},
}


def pe_av_model() -> Any:
    encoder, dac = {**TINY, "head_dim": 8}, {"hidden_size": 32, "encoder_hidden_size": 8, "decoder_hidden_size": 8}
    dac |= {"n_codebooks": 1, "codebook_size": 8, "codebook_dim": 4}
    dac |= {"downsampling_ratios": [2, 2], "upsampling_ratios": [2, 2]}
    text = {**TINY, "vocab_size": 99, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 1, "cls_token_id": 0}
    towers = {
        "audio_config": {**encoder, "dac_config": dac, "model_type": "pe_audio_encoder"},
        "video_config": {**encoder, "vision_config": PE_VISION, "model_type": "pe_video_encoder"},
    }
    config = transformers.PeAudioVideoConfig(
        text_config={**text, "sep_token_id": 1, "model_type": "modernbert"}, audio_video_config={**encoder, **towers}
    )
    return transformers.PeAudioVideoModel(config)


SPECIAL_TOKENS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }} {% for c in m.content %}{% if c.type == 'video' %}"
    "<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ c.text }}{% endif %}{% endfor %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
)


def qwen3_vl_model() -> Any:
    tokens = {token: SPECIAL_TOKENS.index(token) for token in SPECIAL_TOKENS}
    text = {**TINY, "vocab_size": 99, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 4096}
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 37, "num_heads": 4, "patch_size": 8}
    vision |= {"out_hidden_size": 32, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    config = transformers.Qwen3VLConfig(
        text_config={**text, "rope_parameters": rope, "rope_scaling": rope},
        vision_config=vision,
        image_token_id=tokens["<|image_pad|>"],
        video_token_id=tokens["<|video_pad|>"],
        vision_start_token_id=tokens["<|vision_start|>"],
        vision_end_token_id=tokens["<|vision_end|>"],
    )
    return transformers.Qwen3VLForConditionalGeneration(config)


def qwen3_vl_processor() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = [*SPECIAL_TOKENS, *" .<>'0123456789RTabcdefghijklmnopqrstuvwxyz"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=SPECIAL_TOKENS[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    size = {"shortest_edge": 16 * 16, "longest_edge": 16 * 64 * 64}
    return transformers.Qwen3VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(patch_size=8, size=size),
        tokenizer=transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            pad_token=SPECIAL_TOKENS[0],
            eos_token="<|im_end|>",
            additional_special_tokens=list(SPECIAL_TOKENS[1:]),
        ),
        video_processor=transformers.Qwen3VLVideoProcessor(patch_size=8, size=size),
        chat_template=CHAT,
    )


MODELS: dict[str, tuple[Callable[[], Any], dict, int, int]] = {
    "clip": (clip_model, CROPPED, 8, 24),
    "siglip": (siglip_model, SQUARE, 8, 32),
    "siglip2": (siglip2_model, {**HALF, "resample": 2, "patch_size": 8, "max_num_patches": 16}, 8, 32),
    "dinov2": (dinov2_model, CROPPED, 8, 32),
    "dinov3": (dinov3_model, SQUARE, 8, 32),
    "convnext": (convnext_model, SQUARE, 8, 32),
    "x-clip": (x_clip_model, CROPPED, 4, 32),
    "videomae": (videomae_model, CROPPED, 6, 32),
    "v-jepa2": (vjepa2_model, CROPPED, 4, 48),
    "videoprism": (videoprism_model, UNNORMALISED, 4, 32),
    "videoprism-lvt": (videoprism_lvt_model, UNNORMALISED, 4, 32),
    "pe-av": (pe_av_model, SQUARE, 16, 32),
    "qwen3-vl": (qwen3_vl_model, {}, 16, 32),
}
"""How each is made, its preprocessor settings, the frames that it sees, the length of its vectors."""

NEEDS = {
    **{"videoprism": ("VideoPrismVisionModel", ()), "videoprism-lvt": ("VideoPrismClipModel", ())},
    **{"pe-av": ("PeAudioVideoModel", ("timm", "torchvision")), "dinov3": ("DINOv3ViTModel", ())},
    **{"qwen3-vl": ("Qwen3VLModel", ("torchvision",))},
}
"""The class of transformers and the packages that some need."""


def missing(name: str) -> str:
    """What the installed packages lack for a model; empty: nothing."""
    from importlib.util import find_spec

    kind, packages = NEEDS.get(name, ("PreTrainedModel", ()))
    if not hasattr(transformers, kind):
        return f"transformers {transformers.__version__} has no {kind}"
    if name == "x-clip" and transformers.__version__.startswith(("4.56", "4.57")):
        return "get_video_features of X-CLIP is broken in this version of transformers"
    return next((f"{package} is not installed" for package in packages if find_spec(package) is None), "")


def save(name: str, folder: Path, seed: int = 0) -> Path:
    """Make a model, and write it as transformers does."""
    torch.manual_seed(seed)
    make, preprocessor, _, _ = MODELS[name]
    make().save_pretrained(folder)
    if name == "qwen3-vl":
        qwen3_vl_processor().save_pretrained(folder)
    else:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


class Descriptor(torch.nn.Module):
    """A network as small as can be of the kind of SSCD: pictures (n, 3, h, w) to unit vectors (n, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 16, kernel_size=32, stride=32)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        found = torch.relu(self.convolution(pictures)).pow(3.0).mean(dim=(2, 3))
        return torch.nn.functional.normalize(found, dim=1)


def save_descriptor(path: Path) -> Path:
    """A file of TorchScript."""
    torch.manual_seed(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.jit.script(Descriptor()).save(str(path))
    return path
