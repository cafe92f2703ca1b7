"""The embedders of a run, as a user has chosen them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from semdedup.errors import ParameterError
from semdedup.storage.location import Paths
from semdedup.video.options import Embedding, EmbedOptions
from semdedup.video.steps.embed.providers import CUSTOM, PROVIDERS, EmbedderSpec


def embedders_of(options: EmbedOptions) -> tuple[EmbedderSpec, ...]:
    """The embedders that are meant, checked, in the order of their names: results do not depend on the user's order.

    Raises:
        ParameterError: as `EmbedderSpec.check`; two would write to one folder; or so many folders of models do not go
            with them.
        InputError: as `EmbedderSpec.check`.
    """
    folders = _folders(options.embedding_algorithm, options.model_dir)
    specs: list[EmbedderSpec] = []
    for algorithm, folder in zip(options.embedding_algorithm, folders, strict=True):
        name, function = (CUSTOM, algorithm) if callable(algorithm) else (algorithm, None)
        spec = EmbedderSpec(name, folder, options.trust_remote_code, options.embedding_batch_size, function)
        spec.check()
        if taken := [other for other in specs if other.folder == spec.folder]:
            raise ParameterError(
                f"embedding_algorithm names two embedders that would write to {spec.folder}: {taken[0].algorithm} and "
                f"{spec.algorithm}. Give each once, and functions names of their own by the attribute name; of two "
                "models for one embedder, each needs an output path of its own."
            )
        specs.append(spec)
    return tuple(sorted((replace(spec, together=len(specs)) for spec in specs), key=lambda spec: spec.name))


def _folders(algorithms: Sequence[Embedding], model_dir: Paths | None) -> Iterator[str | None]:
    """For each embedder the folder of its model: the one that is given, or of several those in order."""
    several = model_dir if isinstance(model_dir, list | tuple) else [model_dir]
    given = [str(folder) for folder in several if folder is not None]
    models = [name for name in algorithms if isinstance(name, str) and name in PROVIDERS and PROVIDERS[name].network]
    if len(given) > 1 and len(given) != len(models):
        raise ParameterError(
            f"model_dir must be one folder, or one for each embedder with a model, in their order; got {len(given)} "
            f"for {len(models)} ({', '.join(models) or 'none has a model'})"
        )
    left = iter(given)
    for name in algorithms:
        if len(given) > 1:
            yield next(left) if name in models else None
        else:
            yield given[0] if given else None
