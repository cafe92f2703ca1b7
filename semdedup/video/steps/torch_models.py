"""What models of torch share, whatever they are for: the device that they run on, and what goes to them together."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, TypeVar

import torch

from semdedup.errors import ClusterError

T = TypeVar("T")

UNUSABLE = (ImportError, OSError, ValueError, TypeError, AttributeError, KeyError, RuntimeError)
"""What transformers and models raise where files are corrupt, a package is missing, or a model is of another kind."""
with contextlib.suppress(ImportError):  # a file of TorchScript needs torch alone
    from safetensors import SafetensorError

    UNUSABLE += (SafetensorError,)  # type: ignore[assignment]


def device_of(backend: str) -> tuple[torch.device, torch.dtype]:
    """Where a model runs, and how precisely: half precision on a GPU, of 8 bits, or 11 on GPUs before Ampere.

    Args:
        backend: ``cpu``, ``gpu``, or ``auto``, which takes a GPU where torch sees one.

    Raises:
        ClusterError: a GPU is asked for that torch does not see.
    """
    if backend == "cpu" or not torch.cuda.is_available():
        if backend == "gpu":
            raise ClusterError("backend gpu: torch sees no GPU here; install a CUDA build of torch, or ask for auto")
        return torch.device("cpu"), torch.float32
    return torch.device("cuda"), torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def batches_of(items: Sequence[T], shape: Callable[[T], Any], one_by_one: bool) -> list[list[T]]:
    """Neighbours of one shape together, or each alone."""
    return [[item] for item in items] if one_by_one else [list(group) for _, group in groupby(items, shape)]
