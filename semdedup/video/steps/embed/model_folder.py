"""The folder of a model: which one is meant, what must be in it, and a digest of what decides about its embeddings."""

from __future__ import annotations

import hashlib
import json
import socket
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from semdedup.errors import InputError, ParameterError

PACKAGES = ("torch", "transformers", "safetensors")
"""What the extra ``models`` brings."""

PICKLED = (".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True)
class ModelChoice:
    """A model that is to be loaded.

    Attributes:
        algorithm: what users call it.
        name: what it is called in files.
        network: how it is loaded, one of `transformers.NETWORKS`.
        folder: folder that has its ``config.json``.
        repository: where the public one is on https://huggingface.co; empty: there is none in particular.
        resolution: pixels a side that it must read; 0: any.
        trust_remote_code: whether Python code beside the weights may run.
        batch_size: clips a batch.
        backend: ``auto`` takes a GPU where torch sees one; ``cpu``; ``gpu``.
    """

    algorithm: str
    name: str
    network: str
    folder: Path
    repository: str
    resolution: int
    trust_remote_code: bool
    batch_size: int
    backend: Literal["auto", "cpu", "gpu"]


def find_model_folder(model_dir: str | None, repository: str) -> Path:
    """The folder with the model's ``config.json``: `model_dir`, or one below it that is named like the repository.

    The peers keep many models below one folder, each under the name of its repository.
    """
    root = Path(model_dir or "")
    if repository and not (root / "config.json").is_file():
        for below in (root / repository, root / repository.split("/")[1]):
            if (below / "config.json").is_file():
                return below
    return root


def check_model(choice: ModelChoice, model_dir: str | None) -> None:
    """Refuse a model that cannot be loaded, before work starts. Nothing is imported or loaded.

    Raises:
        ParameterError: the extra is not installed, no folder is given, it is not local, or its code is not trusted.
        InputError: the folder is absent or holds no model that can be loaded.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ParameterError(
            f"embedding_algorithm {choice.algorithm} needs {', '.join(missing)}: pip install 'semdedup[models]'"
        )
    if not model_dir:
        raise ParameterError(
            f"embedding_algorithm {choice.algorithm} needs the folder of the model: --model-dir. Nothing is downloaded."
        )
    check_local(model_dir, "model_dir")
    folder = choice.folder
    check_folder(folder, "model_dir", f", nor below it as {choice.repository}" if choice.repository else "")
    resolution = read_json(folder / "processor_config.json").get("resolution")
    if choice.resolution and isinstance(resolution, int) and resolution != choice.resolution:
        raise InputError(f"model_dir: {folder} is a Cosmos-Embed1 of {resolution}p, but {choice.algorithm} is wanted")
    _check_code(choice)


def check_local(path: str, parameter: str) -> None:
    """Refuse the URL of a folder of a model, which is opened as a path on every worker."""
    if "://" in path:
        raise ParameterError(
            f"{parameter} must be a local folder that every worker sees; got {path}: copy the model there"
        )


def check_folder(folder: Path, parameter: str, nor_below: str = "") -> None:
    """Refuse a folder without a model in safetensors.

    Args:
        folder: as it was given.
        parameter: what gave it.
        nor_below: where else it was looked for.

    Raises:
        InputError: it is absent, or holds no model that can be loaded.
    """
    here = f"on {socket.gethostname()}"
    if not folder.is_dir():
        raise InputError(f"{parameter}: there is no folder {folder} {here}")
    names = sorted(path.name for path in folder.iterdir())
    if "config.json" not in names:
        raise InputError(f"{parameter}: there is no config.json in {folder} {here}{nor_below}; found {_some(names)}")
    if not any(name.endswith(".safetensors") for name in names):
        pickled = [name for name in names if name.endswith(PICKLED)]
        found = f"{_some(pickled)}, which are pickles and can run code" if pickled else _some(names)
        raise InputError(
            f"{parameter}: weights must be *.safetensors; {folder} holds {found}. Where you trust them, convert them: "
            "model.save_pretrained(folder, safe_serialization=True)"
        )


def code_in(folder: Path) -> bool:
    """Whether a model brings Python code of its own."""
    settings = ("config.json", "processor_config.json", "preprocessor_config.json")
    return any("auto_map" in read_json(folder / name) for name in settings)


def _check_code(choice: ModelChoice) -> None:
    folder = choice.folder
    if not code_in(folder):
        return
    if not choice.trust_remote_code:
        raise ParameterError(
            f"the model in {folder} brings Python code of its own, which would run with your rights. Read it, and if "
            "you trust it, say so: --trust-remote-code (trust_remote_code=True)"
        )
    warnings.warn(
        f"trust_remote_code: Python code from {folder} runs here and on every worker with your rights", stacklevel=5
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


def state_of(
    folder: Path, endings: Sequence[str] = (".json", ".py", ".safetensors")
) -> tuple[tuple[str, int, int], ...]:
    """(path, bytes, time of change) of every file that decides about the embeddings, by the endings of their names."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in endings)
    return tuple((str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns) for path in files)


@lru_cache(maxsize=8)
def digest_of(folder: Path, state: tuple[tuple[str, int, int], ...]) -> str:
    """Hash of names and contents. Sizes would not do: a model that was trained further has the same."""
    digest = hashlib.sha256()
    for name, n_bytes, _ in state:
        digest.update(f"{name}\0{n_bytes}\0".encode())
        with (folder / name).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
