"""Where what a command needs lies in the folder that it is given: the root of a run, or what another command wrote.

The root of a run holds ``clips`` (what `split` wrote), ``dedup``, ``dedup-0002``, … (results) and ``overlaps``, …. Of
several embedders each has its results in a folder of its own: ``dedup_hf/dedup``, ``dedup_hf/dedup-0002``, …. The
output of a split holds a folder of embeddings for each embedder, and may hold results below it. Any other folder is
taken as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from semdedup.errors import InputError, OutputConflictError
from semdedup.runs.numbered import Numbered
from semdedup.runs.record import FILE_NAME, Record
from semdedup.storage.location import Location

CLIPS, METAS, TRACKS, EMBEDDINGS_ENDING = "clips", "metas", "fingerprints", "_embd_parquet"
"""Below the root of a run, and below the output of a split: clips, what is known of them, fingerprint tracks, and how
the folders of embeddings end."""

CAPTIONS_ENDING = "_caption_parquet"
"""How the folders of captions end there."""

DEDUPS, OVERLAPS = Numbered("dedup"), Numbered("overlaps")
"""Below the root of a run: ``dedup``, then ``dedup-0002``, …, with those before it for its base; so of overlaps."""

OF_EMBEDDER = "dedup_"
"""How the folders with the results of one of several embedders begin, before its name."""

Part = Literal["clips", "embeddings", "results", "overlaps"]
"""What a command needs: clips with what `split` wrote beside them; embeddings; results of a dedup; or of overlaps."""

OF_SPLIT, OF_RESULTS, COMPARED = "split", {"kmeans", "pairwise", "identify"}, "pairwise"
"""Steps by which records tell what a folder is."""

OF_A_RESULT = re.compile(
    r"[_.].*|kmeans_results|clustering_results|pairwise_results|extraction|duplicates|witnesses|eps_.*|.*\.html"
)
"""Names in the folder of a result that holds nothing else."""


def find_part(path: Location, part: Part) -> tuple[Location, ...]:
    """The folders that hold what is needed, in the one that is given; mostly one.

    Of anything but a root of a run and the output of a split that is the folder itself, which need not hold it; and
    there are no overlaps but below a root.

    Raises:
        InputError: embeddings are needed, and the folder is of ours and has none, or those of several embedders; or
            results are, and there are those of several embedders.

    Cost: some requests, of which one lists the folder.
    """
    if part == "overlaps":
        return tuple(OVERLAPS.below(path)) if not (path / FILE_NAME).exists() else ()
    if part == "results":
        return _results(path)
    if path.name.endswith(EMBEDDINGS_ENDING) or not path.is_dir():
        return (path,)
    split = path / CLIPS if is_root(path) else path
    return (_clips(split) if part == "clips" else _embeddings(path, split),)


def results_by_embedder(root: Location) -> dict[str, Location]:
    """The folders with the results of each of several embedders of a run, by their names, in order; else none."""
    names = root.folder_names() if root.is_dir() else []
    folders = {name.removeprefix(OF_EMBEDDER): root / name for name in sorted(names) if name.startswith(OF_EMBEDDER)}
    return {name: folder for name, folder in folders.items() if DEDUPS.below(folder)}


def around(path: Location) -> Iterator[Location]:
    """A folder, and those around it that may be the root of the run that it is of."""
    yield path
    yield path.parent
    if path.parent.name.startswith(OF_EMBEDDER):
        yield path.parent.parent


def _results(path: Location) -> tuple[Location, ...]:
    """The results in a folder; the folder itself where it is one, or holds none."""
    below = () if _steps(path) & OF_RESULTS else tuple(DEDUPS.below(path))
    several = {} if below or _steps(path) else results_by_embedder(path)
    if several:
        raise InputError(
            f"{path} holds the results of several embedders: {', '.join(folder.name for folder in several.values())}; "
            "name one of these folders"
        )
    return below or (path,)


def is_root(path: Location) -> bool:
    """Whether a folder is the root of a run: a split lies below it, and not in it."""
    return not _is_split(path) and _is_split(path / CLIPS)


def _is_split(path: Location) -> bool:
    return (path / FILE_NAME).exists() or any((path / name).is_dir() for name in (METAS, TRACKS))


def _clips(split: Location) -> Location:
    """The output of a split, of which the folder of the clips may be given as well."""
    inside = split.name == CLIPS and (split.parent / METAS).is_dir() and not (split / METAS).is_dir()
    return split.parent if inside else split


def _embeddings(path: Location, split: Location) -> Location:
    """The folder of embeddings of a split, or the folder itself where it holds none and is not of ours."""
    listed = split.folder_names()
    names = [name for name in listed if name.endswith(EMBEDDINGS_ENDING)]
    if len(names) > 1:
        raise InputError(
            f"{split} holds the embeddings of several embedders: {', '.join(names)}; name one of these folders"
        )
    if names:
        return split / names[0]
    steps = _steps(split)
    if COMPARED in steps and all(OF_A_RESULT.fullmatch(name) for name in listed):
        raise InputError(
            f"{path} is a result of semdedup dedup, and the embeddings that it was made of are not in it. Give their "
            "folder, the output of semdedup split or embed, or the root of a run."
        )
    if OF_SPLIT in steps:
        raise InputError(
            f"{split} is the output of a split without embeddings: it has no folder *{EMBEDDINGS_ENDING}. Make them: "
            f"semdedup embed --input-clip-path {split}"
        )
    return split


def _steps(path: Location) -> set[str]:
    """The steps on record in a folder; none where there is no record, or one of something else."""
    try:
        record = Record(path)
    except OutputConflictError:
        return set()
    return {*record.old, *record.every_step}
