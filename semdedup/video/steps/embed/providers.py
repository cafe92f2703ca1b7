"""What turns a clip into a vector: the interface, the choice among those that there are, and clips without information.

An `EmbedderSpec` says which one is meant. It is small, travels to the workers, and is checked on the client; the
`Embedder` that `load_embedder` makes of it holds the model and stays where it was made.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from semdedup.errors import InputError, ParameterError
from semdedup.video.steps.embed.dct3d import N_FRAMES, RECOMMENDED_EPS, SIDE, dct3d_batch, shrink

Frames = np.ndarray
"""Frames of a clip: (t, h, w, 3) uint8, RGB."""

EmbeddingFunction = Callable[[Frames], Any]
"""A user's function: frames of a clip to a vector (d,) float32."""

NAMES: Mapping[str, str] = MappingProxyType(
    {
        "dct3d": "dct3d",
        "cosmos-embed1-224p": "ce1_224p",
        "cosmos-embed1-336p": "ce1_336p",
        "cosmos-embed1-448p": "ce1_448p",
        "internvideo2": "iv2",
        "hf": "hf",
    }
)
"""The embedders that there are, and what they are called in files."""

CUSTOM = "custom"

REPOSITORIES: Mapping[str, str] = MappingProxyType(
    {
        "cosmos-embed1-224p": "nvidia/Cosmos-Embed1-224p",
        "cosmos-embed1-336p": "nvidia/Cosmos-Embed1-336p",
        "cosmos-embed1-448p": "nvidia/Cosmos-Embed1-448p",
        "internvideo2": "OpenGVLab/InternVideo2-Stage2_1B-224p-f4",
    }
)
"""Below a folder of many models the peers keep each under the name of its repository."""

PACKAGES = ("torch", "transformers", "safetensors")
"""What the extra ``models`` brings."""

PICKLED = (".bin", ".pt", ".pth", ".ckpt")
DEFAULT_BATCH_SIZE: Mapping[str, int] = MappingProxyType({"dct3d": 64, CUSTOM: 1})
MODEL_BATCH_SIZE = 8
CUSTOM_N_FRAMES = 16
CUSTOM_SHORT_SIDE = 448

FLAT_STD = 2.0
"""Grey levels of 255. Below this standard deviation a frame shows nothing that an embedding could go by."""

FLAT_SIDE = 32
"""Frames are averaged down to about this many pixels a side before, so that grain does not count as content."""

HELD = 2
"""Models that a process keeps. More than one, for runs that alternate; not many, for they fill a GPU."""


@dataclass(frozen=True)
class Embedder:
    """Something that embeds clips, loaded and ready.

    Attributes:
        name: ``dct3d``, ``ce1_224p``, ``iv2``, ``hf``, or the name of a user's function.
        embed: a batch of n clips to (n, d) float32, not necessarily normalised. May be called from several threads.
        n_frames: frames that it looks at, at the midpoints of as many equal parts of the whole clip.
        frame_size: (h, w) that frames are scaled to; None keeps their aspect.
        short_side: where `frame_size` is None, longer frames are scaled down to this shorter side, never up.
        batch_size: clips a batch.
        recommended_eps: `eps` for these embeddings; None where nobody has measured one.
    """

    name: str
    embed: Callable[[Sequence[Frames]], np.ndarray]
    n_frames: int
    frame_size: tuple[int, int] | None
    short_side: int
    batch_size: int
    recommended_eps: float | None = None


@dataclass(frozen=True)
class EmbedderSpec:
    """Which embedder is meant.

    Attributes:
        algorithm: one of `NAMES`; ``custom`` for a function.
        model_dir: folder of the model, or the folder in which it lies under the name of its repository.
        trust_remote_code: whether Python code that lies beside the weights may run.
        batch_size: clips a batch; None: 8 for a model.
        function: frames (t, h, w, 3) uint8 to (d,) float32. Honoured where it has them: its attributes ``name``,
            ``n_frames`` (16), ``frame_size`` (None: the aspect is kept, the shorter side at most 448) and
            ``recommended_eps``.
        backend: ``auto`` takes a GPU where torch sees one; ``cpu``; ``gpu``.
    """

    algorithm: str = "dct3d"
    model_dir: str | None = None
    trust_remote_code: bool = False
    batch_size: int | None = None
    function: EmbeddingFunction | None = None
    backend: Literal["auto", "cpu", "gpu"] = "auto"

    @property
    def name(self) -> str:
        """What the embedder is called in files."""
        return getattr(self.function, "name", CUSTOM) if self.function else NAMES[self.algorithm]

    @property
    def folder(self) -> str:
        """Name of the folder of its Parquet files.

        That of Cosmos-Embed1 is ``ce1_embd_224p_parquet``, in the order of words in which cosmos-curate's dedup reads
        it. NeMo Curator writes ``ce1_embd_parquet`` for all variants, although their lengths differ, and reads any.
        """
        if self.name.startswith("ce1_"):
            return f"ce1_embd_{self.name.removeprefix('ce1_')}_parquet"
        return f"{self.name}_embd_parquet"

    @property
    def recommended_eps(self) -> float | None:
        """`eps` for its embeddings, where somebody has measured one."""
        if self.function is not None:
            return getattr(self.function, "recommended_eps", None)
        return RECOMMENDED_EPS if self.algorithm == "dct3d" else None

    @property
    def clips_a_batch(self) -> int:
        """`batch_size`, or what it is by default."""
        return self.batch_size or DEFAULT_BATCH_SIZE.get(self.algorithm, MODEL_BATCH_SIZE)

    @property
    def needs_model(self) -> bool:
        """Whether it is loaded from a folder."""
        return self.algorithm not in ("dct3d", CUSTOM)

    @property
    def model_folder(self) -> Path:
        """Folder in which the model's ``config.json`` lies: `model_dir`, or one named like the repository below it."""
        root = Path(self.model_dir or "")
        repository = REPOSITORIES.get(self.algorithm)
        if repository and not (root / "config.json").is_file():
            for below in (root / repository, root / repository.split("/")[1]):
                if (below / "config.json").is_file():
                    return below
        return root

    def check(self) -> None:
        """Refuse what cannot work, before work starts. Nothing is imported or loaded.

        Raises:
            ParameterError: no such algorithm, no folder given, the extra is not installed, code that is not trusted.
            InputError: the folder is absent or holds no model that can be loaded.
        """
        if self.batch_size is not None and self.batch_size < 1:
            raise ParameterError(f"batch_size must be at least 1; got {self.batch_size}")
        if self.backend not in ("auto", "cpu", "gpu"):
            raise ParameterError(f"backend must be auto, cpu or gpu; got {self.backend!r}")
        if (self.function is not None) != (self.algorithm == CUSTOM):
            raise ParameterError(f"a function goes with the algorithm {CUSTOM!r}, and only there; got {self.algorithm}")
        if self.function is not None:
            _check_function(self.function)
        elif self.algorithm not in NAMES:
            raise ParameterError(
                f"embedding_algorithm must be one of {', '.join(NAMES)}, or in Python a function; "
                f"got {self.algorithm!r}"
            )
        elif self.needs_model:
            _check_model(self)

    def identity(self) -> dict[str, Any]:
        """Values of JSON that are the same if and only if the embeddings are: they belong to the parameters of a run.

        For a model, a digest of its settings, code and weights. Time: that of reading the weights once. A function is
        told by its names: one whose code has changed needs another name.
        """
        if self.function is not None:
            settings = _function_settings(self.function)
            return {"algorithm": CUSTOM, "function": _function_name(self.function), **settings}
        if not self.needs_model:
            return {"algorithm": self.algorithm, "version": 1}
        return {"algorithm": self.algorithm, "model_sha256": _digest(self.model_folder, _state(self.model_folder))}


_loaded: dict[tuple, Embedder] = {}
_loading = threading.Lock()


def load_embedder(spec: EmbedderSpec) -> Embedder:
    """Make the embedder, once in a process: threads and later tasks get the same one while the files are the same.

    Raises:
        ParameterError, InputError: as `EmbedderSpec.check`, on this machine; or the model cannot be loaded.
    """
    if spec.function is not None:
        spec.check()
        return _custom(spec, spec.function)
    if spec.algorithm == "dct3d":
        size = (SIDE, SIDE)
        return Embedder("dct3d", dct3d_batch, N_FRAMES, size, SIDE, spec.clips_a_batch, RECOMMENDED_EPS)
    with _loading:
        spec.check()
        key = (spec, _state(spec.model_folder))
        if key not in _loaded:
            from semdedup.video.steps.embed.transformers import load_model

            while len(_loaded) >= HELD:
                del _loaded[next(iter(_loaded))]
            _loaded[key] = load_model(spec)
        return _loaded[key]


def low_information(frames: Frames) -> bool:
    """Whether a clip is black or flat, so that its embedding would be noise.

    The measure is the standard deviation of the grey levels of each frame, averaged down to about 32 x 32 pixels: its
    mean over the frames stays below 2 of 255. Flat colours that fade into each other count as flat; a clip that is
    black but for an eighth of its time, in which it shows something, does not.

    Args:
        frames: (t, h, w, 3) uint8, RGB, sampled over the whole clip.
    """
    if not frames.size:
        return True
    height, width = (min(side, FLAT_SIDE) for side in frames.shape[1:3])
    return bool(shrink(frames, height, width).std(axis=(1, 2)).mean() < FLAT_STD)


def _check_model(spec: EmbedderSpec) -> None:
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ParameterError(
            f"embedding_algorithm {spec.algorithm} needs {', '.join(missing)}: pip install 'semdedup[models]'"
        )
    if not spec.model_dir:
        raise ParameterError(
            f"embedding_algorithm {spec.algorithm} needs the folder of the model: --model-dir. Nothing is downloaded."
        )
    if "://" in spec.model_dir:
        raise ParameterError(
            f"model_dir must be a local folder that every worker sees; got {spec.model_dir}: copy the model there"
        )
    folder = spec.model_folder
    here = f"on {socket.gethostname()}"
    if not folder.is_dir():
        raise InputError(f"model_dir: there is no folder {folder} {here}")
    names = sorted(path.name for path in folder.iterdir())
    if "config.json" not in names:
        expected = f", nor below it as {REPOSITORIES[spec.algorithm]}" if spec.algorithm in REPOSITORIES else ""
        raise InputError(f"model_dir: there is no config.json in {folder} {here}{expected}; found {_some(names)}")
    if not any(name.endswith(".safetensors") for name in names):
        pickled = [name for name in names if name.endswith(PICKLED)]
        found = f"{_some(pickled)}, which are pickles and can run code" if pickled else _some(names)
        raise InputError(
            f"model_dir: weights must be *.safetensors; {folder} holds {found}. Where you trust them, convert them: "
            "model.save_pretrained(folder, safe_serialization=True)"
        )
    variant = spec.algorithm.removeprefix("cosmos-embed1-").removesuffix("p")
    resolution = read_json(folder / "processor_config.json").get("resolution")
    if variant.isdecimal() and isinstance(resolution, int) and resolution != int(variant):
        raise InputError(f"model_dir: {folder} is a Cosmos-Embed1 of {resolution}p, but {spec.algorithm} is wanted")
    _check_code(spec, folder)


def _check_code(spec: EmbedderSpec, folder: Path) -> None:
    settings = ("config.json", "processor_config.json", "preprocessor_config.json")
    if not any("auto_map" in read_json(folder / name) for name in settings):
        return
    if not spec.trust_remote_code:
        raise ParameterError(
            f"the model in {folder} brings Python code of its own, which would run with your rights. Read it, and if "
            "you trust it, say so: --trust-remote-code (trust_remote_code=True)"
        )
    warnings.warn(
        f"trust_remote_code: Python code from {folder} runs here and on every worker with your rights", stacklevel=4
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "") or "nothing"


def read_json(path: Path) -> dict[str, Any]:
    """Content of a JSON file with an object; empty where there is no file.

    Raises:
        InputError: it holds something else.
    """
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold a JSON object; found {type(content).__name__}")
    return content


def _state(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """(path, bytes, time of change) of every file that decides about the embeddings."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".py", ".safetensors"))
    return tuple((str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns) for path in files)


@lru_cache(maxsize=8)
def _digest(folder: Path, state: tuple[tuple[str, int, int], ...]) -> str:
    """Hash of names and contents. Sizes would not do: a model that was trained further has the same."""
    digest = hashlib.sha256()
    for name, n_bytes, _ in state:
        digest.update(f"{name}\0{n_bytes}\0".encode())
        with (folder / name).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _function_name(function: EmbeddingFunction) -> str:
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def _function_settings(function: EmbeddingFunction) -> dict[str, Any]:
    size = getattr(function, "frame_size", None)
    return {
        "name": getattr(function, "name", CUSTOM),
        "n_frames": getattr(function, "n_frames", CUSTOM_N_FRAMES),
        "frame_size": list(size) if isinstance(size, tuple) else size,
        "recommended_eps": getattr(function, "recommended_eps", None),
    }


def _check_function(function: EmbeddingFunction) -> None:
    if not callable(function):
        raise ParameterError(f"the embedding function must be callable; got {type(function).__name__}")
    settings = _function_settings(function)
    whose = f"of the embedding function {_function_name(function)}"
    name, n_frames, size, eps = settings.values()
    if not isinstance(name, str) or not re.fullmatch("[a-z0-9][a-z0-9_-]{0,40}", name) or name in NAMES.values():
        raise ParameterError(
            f"the attribute name {whose} must be of lower-case letters, digits, - and _, and none of "
            f"{', '.join(NAMES.values())}; got {name!r}"
        )
    if not _is_count(n_frames):
        raise ParameterError(f"the attribute n_frames {whose} must be a positive integer; got {n_frames!r}")
    if size is not None and not (isinstance(size, list) and len(size) == 2 and all(map(_is_count, size))):
        raise ParameterError(f"the attribute frame_size {whose} must be (height, width) in pixels; got {size!r}")
    if eps is not None and not (isinstance(eps, int | float) and 0 <= eps < 1):
        raise ParameterError(f"the attribute recommended_eps {whose} must be at least 0 and below 1; got {eps!r}")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _custom(spec: EmbedderSpec, function: EmbeddingFunction) -> Embedder:
    settings = _function_settings(function)
    size = settings["frame_size"]
    return Embedder(
        spec.name,
        _Checked(function),
        settings["n_frames"],
        (size[0], size[1]) if size else None,
        CUSTOM_SHORT_SIDE,
        spec.clips_a_batch,
        settings["recommended_eps"],
    )


class _Checked:
    """A user's function, applied to clip after clip, that must return vectors of one length."""

    def __init__(self, function: EmbeddingFunction) -> None:
        self.function = function
        self.dim: int | None = None

    def __call__(self, clips: Sequence[Frames]) -> np.ndarray:
        return np.stack([self._vector(frames) for frames in clips])

    def _vector(self, frames: Frames) -> np.ndarray:
        who = f"the embedding function {_function_name(self.function)}"
        try:
            returned = self.function(frames)
        except Exception as error:
            raise ParameterError(f"{who} failed on frames of shape {frames.shape}: {error!r}") from error
        try:
            vector = np.asarray(returned)
            if not np.can_cast(vector.dtype, np.float64, casting="same_kind"):
                raise TypeError(f"dtype {vector.dtype}")
        except (TypeError, ValueError) as error:
            raise ParameterError(
                f"{who} must return numbers in an array (d,); got {type(returned).__name__}"
            ) from error
        if vector.ndim != 1 or not len(vector):
            raise ParameterError(f"{who} must return an array (d,); got the shape {vector.shape}")
        if self.dim is None:
            self.dim = len(vector)
        if len(vector) != self.dim:
            raise ParameterError(f"{who} must return one length; got {len(vector)} after {self.dim}")
        return vector.astype(np.float32)
