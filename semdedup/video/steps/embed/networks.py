"""Embedders that are neural networks, loaded from a local folder or file. Needs torch.

Frames are prepared here by what the model's preprocessor settings say, for most processors of transformers 5 need
torchvision. Nothing is ever downloaded.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from types import MappingProxyType

import numpy as np
import torch

from semdedup.errors import InputError
from semdedup.video.steps.embed.embedder import Embedder, faults_of_clips
from semdedup.video.steps.embed.model_folder import ModelChoice
from semdedup.video.steps.embed.network import Network
from semdedup.video.steps.embed.own_names import advice_on_own_code
from semdedup.video.steps.frames import Frames, spread
from semdedup.video.steps.torch_models import UNUSABLE, batches_of, device_of

NETWORKS: Mapping[str, str] = MappingProxyType(
    {
        "cosmos": "own_code.cosmos",
        "internvideo2": "own_code.internvideo2",
        "hugging_face": "hugging_face.hugging_face",
        "sentence_transformers": "sentence_transformer.sentence_transformer",
        "torchscript": "torchscript.sscd",
    }
)
"""How models are loaded, by the names that `providers.PROVIDERS` gives them: a module of this folder, a function."""


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
    device, dtype = device_of(choice.backend)
    try:
        with _quietly(choice):
            network = _load(choice)
        network.model.to(device=device, dtype=dtype if network.half else torch.float32)
        embed = _Embed(network, choice.name, one_by_one=device.type == "cpu")
        embed.vectors([np.full((network.n_frames, network.short_side, network.short_side, 3), 127, dtype=np.uint8)])
    except UNUSABLE as error:
        advice = advice_on_own_code(choice.folder)
        raise InputError(
            f"the model in {choice.folder} cannot be used as {choice.algorithm}: {error}{advice}"
        ) from error
    size, short_side = network.size, network.short_side
    return Embedder(choice.name, embed, network.n_frames, size, short_side, choice.batch_size)


@contextlib.contextmanager
def _quietly(choice: ModelChoice) -> Iterator[None]:
    """Without the bars of transformers and its reports of weights, once a worker: weights that are missing are an error
    here, and others are those of heads that are not used."""
    if choice.network == "torchscript":
        yield
        return
    from transformers import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _load(choice: ModelChoice) -> Network:
    module, function = NETWORKS[choice.network].split(".")
    return getattr(import_module(f"semdedup.video.steps.embed.{module}"), function)(choice)


class _Embed:
    """The function of an `Embedder`. One thread at a time uses the model, so that its memory is that of one batch."""

    def __init__(self, network: Network, name: str, one_by_one: bool) -> None:
        self.network, self.name, self.one_by_one = network, name, one_by_one
        self._lock = threading.Lock()

    def __call__(self, clips: Sequence[Frames]) -> np.ndarray:
        what = f"the model {self.name} failed on {len(clips)} clips, the first with frames of shape {clips[0].shape}"
        with faults_of_clips(what, len(clips)):
            return self.vectors(clips)

    def vectors(self, clips: Sequence[Frames]) -> np.ndarray:
        """The vectors of clips, with whatever error the model raises."""
        prepared = [self.network.prepare(spread(frames, self.network.n_frames)) for frames in clips]
        rows: list[torch.Tensor] = []
        for group in batches_of(prepared, lambda clip: clip.shape, self.one_by_one):
            with self._lock, torch.inference_mode():
                rows.extend(self.network.vectors(torch.stack(group)).float().cpu())
        vectors = torch.stack(rows).numpy()
        if vectors.ndim != 2 or len(vectors) != len(clips):
            raise InputError(f"the model must return one vector a clip; for {len(clips)} it returned {vectors.shape}")
        return vectors
