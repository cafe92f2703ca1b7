"""The embedders that there are: a table, and the choice of one of them or of a user's function.

An `EmbedderSpec` says which one is meant. It is small, travels to the workers, and is checked on the client; the
`Embedder` that `load_embedder` makes of it holds the model and stays where it was made.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from semdedup.errors import ParameterError
from semdedup.video.steps.embed.custom import (
    CUSTOM,
    EmbeddingFunction,
    check_function,
    function_name,
    function_settings,
    load_function,
)
from semdedup.video.steps.embed.dct3d import N_FRAMES, RECOMMENDED_EPS, SEEN_SIDE, VERSION, dct3d_batch
from semdedup.video.steps.embed.embedder import Embedder
from semdedup.video.steps.embed.model_folder import (
    ModelChoice,
    check_model,
    digest_of,
    find_model_folder,
    find_torchscript,
    state_of,
)

HELD = 2
"""Models that a process keeps. More than one, for runs that alternate; not many, for they fill a GPU."""


@dataclass(frozen=True)
class Provider:
    """An embedder that there is.

    Attributes:
        name: what it is called in files.
        folder: name of the folder of its embeddings; empty: ``{name}_embd_parquet``.
        batch_size: clips a batch.
        recommended_eps: `eps` for its embeddings; None where nobody has measured one.
        embedder: makes it, given the size of a batch; None for a model.
        network: for a model, how it is loaded: one of `networks.NETWORKS`. Needs the extra ``models``.
        repository: where the public model is on https://huggingface.co; empty: there is none in particular.
        resolution: pixels a side that the model must read; 0: any.
    """

    name: str
    folder: str = ""
    batch_size: int = 8
    recommended_eps: float | None = None
    embedder: Callable[[int], Embedder] | None = None
    network: str = ""
    repository: str = ""
    resolution: int = 0


def _dct3d(batch_size: int) -> Embedder:
    return Embedder("dct3d", dct3d_batch, N_FRAMES, (SEEN_SIDE, SEEN_SIDE), SEEN_SIDE, batch_size, RECOMMENDED_EPS)


def _cosmos_embed1(resolution: int) -> Provider:
    """The folder is ``ce1_embd_224p_parquet``, in the order of words in which cosmos-curate's dedup reads it.

    NeMo Curator writes ``ce1_embd_parquet`` for all variants, although their lengths differ, and reads any.
    """
    return Provider(
        name=f"ce1_{resolution}p",
        folder=f"ce1_embd_{resolution}p_parquet",
        network="cosmos",
        repository=f"nvidia/Cosmos-Embed1-{resolution}p",
        resolution=resolution,
    )


PROVIDERS: Mapping[str, Provider] = MappingProxyType(
    {
        "dct3d": Provider("dct3d", batch_size=64, recommended_eps=RECOMMENDED_EPS, embedder=_dct3d),
        "cosmos-embed1-224p": _cosmos_embed1(224),
        "cosmos-embed1-336p": _cosmos_embed1(336),
        "cosmos-embed1-448p": _cosmos_embed1(448),
        "internvideo2": Provider("iv2", network="internvideo2", repository="OpenGVLab/InternVideo2-Stage2_1B-224p-f4"),
        "hf": Provider("hf", network="hugging_face"),
        "sentence-transformers": Provider("sentence-transformers", network="sentence_transformers"),
        "sscd": Provider("sscd", network="torchscript"),
    }
)
"""By the name that users give."""

NAMES: Mapping[str, str] = MappingProxyType({algorithm: provider.name for algorithm, provider in PROVIDERS.items()})
"""What each is called in files."""


@dataclass(frozen=True)
class EmbedderSpec:
    """Which embedder is meant.

    Attributes:
        algorithm: one of `PROVIDERS`; ``custom`` for a function.
        model_dir: folder of the model, or the folder that has it under the name of its repository; of ``sscd``, its
            file or the folder with it alone.
        trust_remote_code: whether Python code beside the weights may run.
        batch_size: clips a batch; None: 8 for a model.
        function: frames (t, h, w, 3) uint8 to (d,) float32. Honoured where it has them: its attributes ``name``,
            ``n_frames`` (16), ``frame_size`` (None: the aspect is kept, the shorter side at most 448) and
            ``recommended_eps``.
        backend: ``auto`` takes a GPU where torch sees one; ``cpu``; ``gpu``.
        together: embedders of its run, all of which a process keeps.
    """

    algorithm: str = "dct3d"
    model_dir: str | None = None
    trust_remote_code: bool = False
    batch_size: int | None = None
    function: EmbeddingFunction | None = None
    backend: Literal["auto", "cpu", "gpu"] = "auto"
    together: int = 1
    facts: ClassVar[Mapping[str, str]] = MappingProxyType({})
    counted: ClassVar[tuple[str, ...]] = ()

    @property
    def provider(self) -> Provider:
        """The entry of the table that is meant."""
        return PROVIDERS[self.algorithm]

    @property
    def name(self) -> str:
        """What the embedder is called in files."""
        return getattr(self.function, "name", CUSTOM) if self.function else self.provider.name

    @property
    def folder(self) -> str:
        """Name of the folder of its Parquet files."""
        return (self.provider.folder if self.function is None else "") or f"{self.name}_embd_parquet"

    @property
    def recommended_eps(self) -> float | None:
        """`eps` for its embeddings, where somebody has measured one."""
        if self.function is not None:
            return getattr(self.function, "recommended_eps", None)
        return self.provider.recommended_eps

    @property
    def clips_a_batch(self) -> int:
        """`batch_size`, or what it is by default."""
        return self.batch_size or (1 if self.function is not None else self.provider.batch_size)

    @property
    def model(self) -> ModelChoice | None:
        """The model that is loaded from a folder; None where the embedder needs none."""
        provider = None if self.algorithm == CUSTOM else self.provider
        if provider is None or not provider.network:
            return None
        if provider.network == "torchscript":
            folder = find_torchscript(self.model_dir)
        else:
            folder = find_model_folder(self.model_dir, provider.repository)
        return ModelChoice(
            algorithm=self.algorithm,
            name=provider.name,
            network=provider.network,
            folder=folder,
            repository=provider.repository,
            resolution=provider.resolution,
            trust_remote_code=self.trust_remote_code,
            batch_size=self.clips_a_batch,
            backend=self.backend,
        )

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
            check_function(self.function, NAMES.values())
        elif self.algorithm not in PROVIDERS:
            raise ParameterError(
                f"embedding_algorithm must be one of {', '.join(PROVIDERS)}, or in Python a function; "
                f"got {self.algorithm!r}"
            )
        elif self.model is not None:
            check_model(self.model, self.model_dir)

    def identity(self) -> dict[str, Any]:
        """Values of JSON that are the same if and only if the embeddings are: they belong to the parameters of a run.

        For a model, a digest of its settings, code and weights. Time: that of reading the weights once. A function is
        identified by its names: one whose code has changed needs another name.
        """
        if self.function is not None:
            settings = function_settings(self.function)
            return {"algorithm": CUSTOM, "function": function_name(self.function), **settings}
        if self.model is None:
            return {"algorithm": self.algorithm, "version": VERSION}
        folder = self.model.folder
        return {"algorithm": self.algorithm, "model_sha256": digest_of(folder, state_of(folder))}

    def load(self) -> Embedder:
        """`load_embedder` of it."""
        return load_embedder(self)


_loaded: dict[tuple, Embedder] = {}
_loading = threading.Lock()


def load_embedder(spec: EmbedderSpec) -> Embedder:
    """Make the embedder, once in a process: threads and later tasks get the same one while the files are the same.

    Raises:
        ParameterError, InputError: as `EmbedderSpec.check`, on this machine; or the model cannot be loaded.
    """
    if spec.function is not None:
        spec.check()
        return load_function(spec.function, spec.clips_a_batch)
    if spec.provider.embedder is not None:
        return spec.provider.embedder(spec.clips_a_batch)
    assert spec.model is not None
    with _loading:
        spec.check()
        key = (spec, state_of(spec.model.folder))
        if key not in _loaded:
            from semdedup.video.steps.embed.networks import load_model

            while len(_loaded) >= max(HELD, spec.together):
                del _loaded[next(iter(_loaded))]
            _loaded[key] = load_model(spec.model)
        return _loaded[key]
