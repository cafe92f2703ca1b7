"""The folder of a model: which one is meant, what must be in it, and a digest of what decides about its embeddings."""

from __future__ import annotations

import hashlib
import json
import socket
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from semdedup.errors import InputError, ParameterError
from semdedup.extras import pip_install
from semdedup.video.steps.embed.json_file import read_json
from semdedup.video.steps.embed.own_names import check_own_names, code_in

OF_MODELS = ("torch", "transformers", "safetensors")
"""What the extra ``models`` brings."""

PACKAGES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "cosmos": OF_MODELS,
        "internvideo2": OF_MODELS,
        "hugging_face": OF_MODELS,
        "sentence_transformers": (*OF_MODELS, "sentence_transformers"),
        "torchscript": ("torch",),
    }
)
"""What each way of loading needs."""

PACKAGES_BY_TYPE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"pe_video": ("timm", "torchvision"), "pe_audio_video": ("timm", "torchvision"), "qwen3_vl": ("torchvision",)}
)
"""What models of a type need beside, by ``model_type`` in their ``config.json``."""

MODULES = "modules.json"
"""What makes a folder one of sentence-transformers."""

DECIDE = (".json", ".py", ".safetensors", ".jinja", ".model")
"""Endings of the files that decide about the embeddings, prompts among them."""

PICKLED = (".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True)
class ModelChoice:
    """A model that is to be loaded.

    Attributes:
        algorithm: what users call it.
        name: what it is called in files.
        network: how it is loaded, one of `networks.NETWORKS`.
        folder: folder that has its ``config.json`` or ``modules.json``, or its file of TorchScript.
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


def find_torchscript(model_dir: str | None) -> Path:
    """The file of TorchScript: `model_dir`, or the only one in it. The folder where there is none, or several."""
    root = Path(model_dir or "")
    found = [path for path in root.glob("*.pt") if path.is_file()] if root.is_dir() else []
    return found[0] if len(found) == 1 else root


def check_model(choice: ModelChoice, model_dir: str | None) -> None:
    """Refuse a model that cannot be loaded, before work starts. Nothing is imported or loaded.

    Raises:
        ParameterError: a package is not installed, no folder is given, it is not local, its code is not trusted, or
            is not for the transformers that is installed.
        InputError: the folder is absent or holds no model that can be loaded.
    """
    _check_packages(choice, PACKAGES[choice.network])
    if not model_dir:
        raise ParameterError(
            f"embedding_algorithm {choice.algorithm} needs the folder of the model: --model-dir. Nothing is downloaded."
        )
    check_local(model_dir, "model_dir")
    if choice.network == "torchscript":
        _check_torchscript(choice)
        return
    folder, folders = choice.folder, [choice.folder]
    if choice.network == "sentence_transformers":
        _check_holds(folder, "model_dir", MODULES, "; embedding_algorithm hf takes models of transformers")
        folders = module_folders(folder)
        for each in folders:
            _check_weights(each, "model_dir", needed=each == folders[0])
    else:
        check_folder(folder, "model_dir", f", nor below it as {choice.repository}" if choice.repository else "")
    _check_packages(choice, PACKAGES_BY_TYPE.get(str(read_json(folder / "config.json").get("model_type")), ()))
    resolution = read_json(folder / "processor_config.json").get("resolution")
    if choice.resolution and isinstance(resolution, int) and resolution != choice.resolution:
        raise InputError(f"model_dir: {folder} is a Cosmos-Embed1 of {resolution}p, but {choice.algorithm} is wanted")
    _check_code(choice, folders)


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
    _check_holds(folder, parameter, "config.json", nor_below)
    _check_weights(folder, parameter, needed=True)


def _check_holds(folder: Path, parameter: str, name: str, beside: str) -> None:
    here = f"on {socket.gethostname()}"
    if not folder.is_dir():
        raise InputError(f"{parameter}: there is no folder {folder} {here}")
    names = sorted(path.name for path in folder.iterdir())
    if name not in names:
        raise InputError(f"{parameter}: there is no {name} in {folder} {here}{beside}; found {_some(names)}")


def _check_packages(choice: ModelChoice, packages: Sequence[str]) -> None:
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        beside = [name.replace("_", "-") for name in missing if name not in OF_MODELS]
        command = pip_install("models", *beside) if len(beside) < len(missing) else f"pip install {' '.join(beside)}"
        raise ParameterError(f"embedding_algorithm {choice.algorithm} needs {', '.join(missing)}: {command}")


def _check_torchscript(choice: ModelChoice) -> None:
    path, here = choice.folder, f"on {socket.gethostname()}"
    if not path.is_file():
        names = sorted(each.name for each in path.iterdir()) if path.is_dir() else []
        raise InputError(
            f"model_dir: needed is one file of TorchScript (*.pt), or a folder with just one; {path} {here} "
            + (f"holds {_some(names)}" if path.is_dir() else "is not there")
        )
    if not choice.trust_remote_code:
        raise ParameterError(
            f"{path} is TorchScript, which is a program that would run with your rights. Where you trust whoever made "
            "it, say so: --trust-remote-code (trust_remote_code=True)"
        )
    warnings.warn(f"trust_remote_code: the program in {path} runs on every worker with your rights", stacklevel=5)


def module_folders(folder: Path) -> list[Path]:
    """Folders of the modules of a model of sentence-transformers, in its order: those with files of their own.

    Raises:
        InputError: ``modules.json`` is not what it must be, or names a folder outside.
    """
    found = []
    for entry in _modules(folder):
        path = folder / entry["path"]
        if not path.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{folder / MODULES} names a folder outside: {entry['path']}")
        if path.is_dir():
            found.append(path)
    return found or [folder]


def _modules(folder: Path) -> list[Any]:
    try:
        modules = json.loads((folder / MODULES).read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / MODULES} cannot be read: {error}") from error
    entries = modules if isinstance(modules, list) else [None]
    for entry in entries:
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("path", "type")):
            raise InputError(f"{folder / MODULES} must list modules, each with its path and type")
    return entries


def _check_weights(folder: Path, parameter: str, needed: bool) -> None:
    names = sorted(path.name for path in folder.iterdir())
    pickled = [name for name in names if name.endswith(PICKLED)]
    if any(name.endswith(".safetensors") for name in names) or not (pickled or needed):
        return
    found = f"{_some(pickled)}, which are pickles and can run code" if pickled else _some(names)
    raise InputError(
        f"{parameter}: weights must be *.safetensors; {folder} holds {found}. Where you trust them, convert them: "
        "model.save_pretrained(folder, safe_serialization=True)"
    )


def _check_code(choice: ModelChoice, folders: Sequence[Path]) -> None:
    folder = choice.folder
    own_modules = choice.network == "sentence_transformers" and any(
        not entry["type"].startswith("sentence_transformers.") for entry in _modules(folder)
    )
    if not own_modules and not any(code_in(each) for each in folders):
        return
    if not choice.trust_remote_code:
        raise ParameterError(
            f"the model in {folder} brings Python code of its own, which would run with your rights. Read it, and if "
            "you trust it, say so: --trust-remote-code (trust_remote_code=True)"
        )
    for each in folders:
        check_own_names(each)
    warnings.warn(
        f"trust_remote_code: Python code from {folder} runs here and on every worker with your rights", stacklevel=5
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "") or "nothing"


def state_of(folder: Path, endings: Sequence[str] = DECIDE) -> tuple[tuple[str, int, int], ...]:
    """(path, bytes, time of change) of every file that decides about what a model gives, by the endings of their names.

    Of a file that is given, its own.
    """
    files = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.suffix in endings)
    # The name of a file that is given does not matter: it is ".".
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
