"""Vision-language models, loaded by transformers from a local folder. Needs torch and torchvision.

A model with a processor for videos gets the frames of a window as a video, with their times; another one gets some of
them as images. Nothing is ever downloaded, no code of a model runs, and no pickle is opened.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

from semdedup.errors import ClusterError, InputError
from semdedup.video.steps.caption.shots import Failure, Shot
from semdedup.video.steps.frames import spread
from semdedup.video.steps.torch_models import UNUSABLE, batches_of, device_of

MOST_IMAGES = 8
"""Frames that a model gets of a window that knows images alone."""

FULL = ("OutOfMemoryError", "MemoryError")
"""Names of what is raised where a window is too large for memory: smaller ones may do."""

BROKEN = ("AcceleratorError", "CUDARuntimeError")
"""Names of what torch raises where a GPU does not work any more: no window will do."""

GREY = np.full((4, 64, 64, 3), 127, dtype=np.uint8)
MOST_OF_AN_ERROR = 500


def load_caption_model(folder: Path, backend: str) -> CaptionModel:
    """Load a model that `CaptionSpec.check` has passed, and try it on a grey window.

    Raises:
        ClusterError: a GPU is asked for that torch does not see.
        InputError: the folder holds no model that turns a video, or images, and a text into a text.
    """
    device, dtype = device_of(backend)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        processor = transformers.AutoProcessor.from_pretrained(folder, **local)
        model, info = transformers.AutoModelForImageTextToText.from_pretrained(
            folder, use_safetensors=True, dtype=dtype, output_loading_info=True, **local
        )
        if info["missing_keys"]:  # they would be random, and others on every worker
            some = ", ".join(sorted(info["missing_keys"])[:3])
            raise ValueError(f"{len(info['missing_keys'])} weights are not in the files: {some}, …")
        loaded = CaptionModel(processor, model.eval().to(device), one_by_one=device.type == "cpu")
        loaded.generate([Shot(GREY, 2.0)], "What is this?", 1)
    except UNUSABLE as error:
        raise InputError(
            f"the model in {folder} cannot caption: {type(error).__name__}: {error}"[:MOST_OF_AN_ERROR]
        ) from error
    return loaded


class CaptionModel:
    """A loaded model. One thread at a time uses it, so that its memory is that of one batch.

    Windows go one by one on the CPU, so that a caption does not depend on what else is in the batch. On a GPU they go
    together, padded on the left and in half precision, where the last bits, and so a word, may depend on the batch.

    Args:
        processor: of the model, which makes its inputs.
        model: in evaluation mode, on its device.
        one_by_one: whether windows go alone.
    """

    def __init__(self, processor: Any, model: Any, one_by_one: bool) -> None:
        self.processor, self.model, self.one_by_one = processor, model, one_by_one
        self.takes_videos = getattr(processor, "video_processor", None) is not None
        tokenizer = processor.tokenizer
        tokenizer.padding_side = "left"  # the answer follows the question
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        settings = model.generation_config  # of which sampling is not used: greedy is the same in every run
        settings.do_sample, settings.num_beams = False, 1
        settings.temperature = settings.top_p = settings.top_k = None
        settings.pad_token_id = tokenizer.pad_token_id
        self._lock = threading.Lock()

    def describe(self, shots: Sequence[Shot], prompt: str, max_new_tokens: int) -> list[str | Failure]:
        """A caption of each window, or why there is none. Where a batch fails its halves are tried.

        Raises:
            ClusterError: the GPU does not work any more.
        """
        if not shots:
            return []
        # Of one shape, for padding with frames is not told apart by every model.
        groups = batches_of(shots, lambda shot: shot.frames.shape, self.one_by_one)
        if len(groups) > 1:
            return [said for group in groups for said in self.describe(group, prompt, max_new_tokens)]
        try:
            return list(self.generate(shots, prompt, max_new_tokens))
        except Exception as error:  # a model may raise any, of any window
            if type(error).__name__ in BROKEN:
                raise ClusterError(
                    f"the GPU failed while windows were captioned: {error}"[:MOST_OF_AN_ERROR]
                ) from error
            why, is_full = f"{type(error).__name__}: {error}"[:MOST_OF_AN_ERROR], type(error).__name__ in FULL
        # Here the error is gone, and with it what it held.
        if is_full and torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(shots) == 1:
            return [Failure(why)]
        middle = len(shots) // 2
        parts = shots[:middle], shots[middle:]
        return [said for part in parts for said in self.describe(part, prompt, max_new_tokens)]

    def generate(self, shots: Sequence[Shot], prompt: str, max_new_tokens: int) -> list[str]:
        """Captions of windows, with whatever error the model raises."""
        inputs = self.inputs(shots, prompt)
        with self._lock, torch.inference_mode():
            inputs = inputs.to(self.model.device, dtype=self.model.dtype)
            tokens = self.model.generate(**inputs, max_new_tokens=max_new_tokens)
            new = tokens[:, inputs["input_ids"].shape[1] :].cpu()
        return [text.strip() for text in self.processor.batch_decode(new, skip_special_tokens=True)]

    def inputs(self, shots: Sequence[Shot], prompt: str) -> Any:
        """What the processor makes of windows and the prompt, by the chat template of the model."""
        given: dict[str, Any]
        if self.takes_videos:
            texts, shots = [self._text([{"type": "video"}], prompt)] * len(shots), [*map(_at_least_two, shots)]
            seen = [{"total_num_frames": len(shot.frames), "fps": shot.rate, "duration": len(shot.frames) / shot.rate,
                     "frames_indices": list(range(len(shot.frames)))} for shot in shots]  # fmt: skip
            videos = [torch.from_numpy(np.ascontiguousarray(shot.frames.transpose(0, 3, 1, 2))) for shot in shots]
            given = {"videos": videos, "video_metadata": seen, "do_sample_frames": False}
        else:
            images = [
                [Image.fromarray(frame) for frame in spread(shot.frames, min(MOST_IMAGES, len(shot.frames)))]
                for shot in shots
            ]
            texts = [self._text([{"type": "image"}] * len(each), prompt) for each in images]
            given = {"images": images}
        return self.processor(text=texts, padding=True, return_tensors="pt", **given)

    def _text(self, shown: list[dict[str, str]], prompt: str) -> str:
        asked = [{"role": "user", "content": [*shown, {"type": "text", "text": prompt}]}]
        return self.processor.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)


def _at_least_two(shot: Shot) -> Shot:
    """Video models look at pairs of frames."""
    return shot if len(shot.frames) > 1 else Shot(shot.frames.repeat(2, axis=0), shot.rate)
