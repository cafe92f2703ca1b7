"""Vision-language models of the real classes, tiny and of random weights, with tokenizers that are made here."""

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

try:
    import torchvision
except RuntimeError:  # its kernels are of another build of torch, as where wheels are mixed; captions need none of them
    KERNELS = torch.library.Library("torchvision", "DEF")
    for kernel in ("nms", "qnms"):
        KERNELS.define(f"{kernel}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision  # noqa: F401

QWEN_TOKENS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"),
    "<|video_pad|>",
)
QWEN_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for item in message['content'] %}"
    "{% if item['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif item['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ item['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SMOL_TOKENS = (
    *("<|im_start|>", "<end_of_utterance>", "<fake_token_around_image>", "<image>", "<global-img>", "<video>"),
)
LLAVA_TOKENS = ("<|end|>", "<image>")
LLAVA_TEMPLATE = (
    "{% for message in messages %}USER: {% for item in message['content'] %}{% if item['type'] == 'image' %}<image>\n"
    "{% else %}{{ item['text'] }}{% endif %}{% endfor %}{% endfor %} ASSISTANT:"
)
torch.set_num_threads(1)  # of models this small more are slower

TINY = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


def tokenizer_of(special: tuple[str, ...], **named: str) -> Any:
    """A tokenizer whose tokens are the bytes of a text, and special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(list(special))
    named = {"eos_token": special[0], "pad_token": special[0], **named}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **named)


def _ids(tokenizer: Any, **names: str) -> dict[str, int]:
    return {name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}


def qwen(version: str) -> tuple[Any, Any]:
    """Qwen2.5-VL or Qwen3-VL."""
    tokenizer = tokenizer_of(QWEN_TOKENS)
    ids = _ids(
        tokenizer, image_token_id="<|image_pad|>", video_token_id="<|video_pad|>",
        vision_start_token_id="<|vision_start|>", vision_end_token_id="<|vision_end|>",
    )  # fmt: skip
    text = {**TINY, "num_key_value_heads": 2, "vocab_size": len(tokenizer), "max_position_embeddings": 4096}
    eos = tokenizer.eos_token_id
    size = {"shortest_edge": 56 * 56, "longest_edge": 64 * 64}
    if version == "2.5":
        text |= {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}}
        vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4, "out_hidden_size": 32}
        vision |= {"fullatt_block_indexes": [1], "window_size": 56}
        config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)
        model = transformers.Qwen2_5_VLForConditionalGeneration(config)
        images, processor = transformers.Qwen2VLImageProcessor, transformers.Qwen2_5_VLProcessor
        videos, patches = transformers.Qwen2VLVideoProcessor, {"patch_size": 14}
    else:
        text |= {"head_dim": 8}
        text |= {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1e4}}
        vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 4, "out_hidden_size": 32}
        vision |= {"deepstack_visual_indexes": [0], "num_position_embeddings": 64, "patch_size": 16}
        config = transformers.Qwen3VLConfig(text_config=text, vision_config=vision, **ids)
        model = transformers.Qwen3VLForConditionalGeneration(config)
        images, processor = transformers.Qwen2VLImageProcessor, transformers.Qwen3VLProcessor
        videos, patches = transformers.Qwen3VLVideoProcessor, {"patch_size": 16}
        size = {"shortest_edge": 64 * 64, "longest_edge": 4 * 64 * 64}
    model.generation_config.eos_token_id = eos
    made = processor(
        image_processor=images(size=size, **patches),
        tokenizer=tokenizer,
        video_processor=videos(size=size, **patches),
        chat_template=QWEN_TEMPLATE,
    )
    return model, made


def smol() -> tuple[Any, Any]:
    """SmolVLM2."""
    tokenizer = tokenizer_of(SMOL_TOKENS, eos_token="<end_of_utterance>", pad_token="<|im_start|>")
    text = {**TINY, "num_key_value_heads": 2, "vocab_size": len(tokenizer), "max_position_embeddings": 4096}
    text |= {"model_type": "llama", "pad_token_id": tokenizer.pad_token_id}
    vision = {**TINY, "image_size": 32, "patch_size": 8}
    config = transformers.SmolVLMConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = transformers.SmolVLMForConditionalGeneration(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    side = {"longest_edge": 32}
    processor = transformers.SmolVLMProcessor(
        image_processor=transformers.SmolVLMImageProcessor(size=side, max_image_size=side),
        tokenizer=tokenizer,
        video_processor=transformers.SmolVLMVideoProcessor(
            size=side, max_image_size=side, video_sampling={"max_frames": 64, "fps": 1, "video_size": side}
        ),
        image_seq_len=4,
    )
    return model, processor


def llava() -> tuple[Any, Any]:
    """LLaVA, which knows images alone."""
    tokenizer = tokenizer_of(LLAVA_TOKENS)
    text = transformers.LlamaConfig(**TINY, vocab_size=len(tokenizer), max_position_embeddings=4096)
    vision = transformers.CLIPVisionConfig(**TINY, image_size=32, patch_size=8)
    image = tokenizer.convert_tokens_to_ids("<image>")
    config = transformers.LlavaConfig(text_config=text, vision_config=vision, image_token_id=image)
    model = transformers.LlavaForConditionalGeneration(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    processor = transformers.LlavaProcessor(
        image_processor=transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_TEMPLATE,
    )
    return model, processor


MODELS = {"qwen2.5": lambda: qwen("2.5"), "qwen3": lambda: qwen("3"), "smolvlm2": smol, "llava": llava}


def save(name: str, folder: Path, seed: int = 0) -> Path:
    """A folder as people download them."""
    torch.manual_seed(seed)
    model, processor = MODELS[name]()
    letters = processor.tokenizer.convert_tokens_to_ids(list("abcdefghijklmnopqrstuvwxyz"))
    kept = torch.zeros(len(model.lm_head.weight), 1)
    kept[letters] = 1
    model.lm_head.weight.data *= kept  # of random weights: it says letters, and not nothing
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
