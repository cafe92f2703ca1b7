"""A user's function as an embedder."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from semdedup.errors import ParameterError
from semdedup.video.quarantine import EMBED_ERROR, ClipFault
from semdedup.video.steps.embed.embedder import Embedder, faults_of_clips
from semdedup.video.steps.frames import Frames

EmbeddingFunction = Callable[[Frames], Any]
"""A user's function: frames of a clip to a vector (d,) float32."""

CUSTOM = "custom"
CUSTOM_N_FRAMES = 16
CUSTOM_SHORT_SIDE = 448


def function_name(function: EmbeddingFunction) -> str:
    """Where the function is defined."""
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def function_settings(function: EmbeddingFunction) -> dict[str, Any]:
    """The attributes of a function that are honoured, or what they are by default."""
    size = getattr(function, "frame_size", None)
    return {
        "name": getattr(function, "name", CUSTOM),
        "n_frames": getattr(function, "n_frames", CUSTOM_N_FRAMES),
        "frame_size": list(size) if isinstance(size, tuple) else size,
        "recommended_eps": getattr(function, "recommended_eps", None),
    }


def check_function(function: EmbeddingFunction, taken: Collection[str]) -> None:
    """Refuse a function with attributes that cannot be.

    Args:
        function: a user's function.
        taken: names that it must not have.

    Raises:
        ParameterError: naming the attribute.
    """
    if not callable(function):
        raise ParameterError(f"the embedding function must be callable; got {type(function).__name__}")
    settings = function_settings(function)
    whose = f"of the embedding function {function_name(function)}"
    name, n_frames, size, eps = settings.values()
    if not isinstance(name, str) or not re.fullmatch("[a-z0-9][a-z0-9_-]{0,40}", name) or name in taken:
        raise ParameterError(
            f"the attribute name {whose} must be of lower-case letters, digits, - and _, and none of "
            f"{', '.join(taken)}; got {name!r}"
        )
    if not _is_count(n_frames):
        raise ParameterError(f"the attribute n_frames {whose} must be a positive integer; got {n_frames!r}")
    if size is not None and not (isinstance(size, list) and len(size) == 2 and all(map(_is_count, size))):
        raise ParameterError(f"the attribute frame_size {whose} must be (height, width) in pixels; got {size!r}")
    if eps is not None and not (isinstance(eps, int | float) and 0 <= eps < 1):
        raise ParameterError(f"the attribute recommended_eps {whose} must be at least 0 and below 1; got {eps!r}")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def load_function(function: EmbeddingFunction, batch_size: int) -> Embedder:
    """The function as an embedder."""
    settings = function_settings(function)
    size = settings["frame_size"]
    return Embedder(
        settings["name"],
        _Checked(function),
        settings["n_frames"],
        (size[0], size[1]) if size else None,
        CUSTOM_SHORT_SIDE,
        batch_size,
        settings["recommended_eps"],
    )


class _Checked:
    """A user's function, applied to clip after clip, that must return vectors."""

    def __init__(self, function: EmbeddingFunction) -> None:
        self.function = function
        self.name = f"the embedding function {function_name(function)}"

    def __call__(self, clips: Sequence[Frames]) -> np.ndarray:
        vectors = [self._vector(frames) for frames in clips]
        lengths = sorted({len(vector) for vector in vectors})
        if len(lengths) > 1:
            raise ClipFault(EMBED_ERROR, f"{self.name} must return one length; got {lengths[0]} and {lengths[-1]}")
        return np.stack(vectors)

    def _vector(self, frames: Frames) -> np.ndarray:
        with faults_of_clips(f"{self.name} failed on frames of shape {frames.shape}", 1):
            returned = self.function(frames)
            vector = np.asarray(returned)
        if not np.can_cast(vector.dtype, np.float64, casting="same_kind"):
            found = type(returned).__name__
            raise ClipFault(EMBED_ERROR, f"{self.name} must return numbers in an array (d,); got {found}")
        if vector.ndim != 1 or not len(vector):
            raise ClipFault(EMBED_ERROR, f"{self.name} must return an array (d,); got the shape {vector.shape}")
        with np.errstate(over="ignore"):  # told as not finite
            return vector.astype(np.float32)
