"""The embedders of a run that has several, and when a clip is a near-duplicate by them: a note beside their results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from semdedup.dedup.names import IDENTIFY, KMEANS
from semdedup.errors import InputError
from semdedup.runs.places import DEDUPS
from semdedup.runs.record import Record
from semdedup.settings.choices import DropWhen
from semdedup.shards.drops import roots_of
from semdedup.storage.location import Location

EMBEDDERS = "embedders"
"""Name of the step that a run with several embedders notes in the record of the first dedup of each."""


class Embedders(NamedTuple):
    """What a run notes: the names of all its embedders, and when a clip is a near-duplicate by them."""

    names: tuple[str, ...]
    duplicate_when: DropWhen

    def to_json(self) -> dict[str, Any]:
        """As parameters of a step."""
        return {"names": list(self.names), "duplicate_when": self.duplicate_when}


def noted_embedders(root: Location, folders: Mapping[str, Location]) -> Embedders | None:
    """What the run with this root has noted; None where it has not more than one embedder.

    Args:
        root: of the run.
        folders: of the results of each, by `results_by_embedder`.

    Raises:
        InputError: some of its embedders have no results yet, or nothing is noted: the run was killed before.
    """
    if not folders:
        return None
    entry = Record(DEDUPS.below(next(iter(folders.values())))[0]).committed(EMBEDDERS)
    noted = None if entry is None else entry["parameters"]
    found = None if noted is None else Embedders(tuple(noted["names"]), noted["duplicate_when"])
    is_done = found is not None and all(_is_complete(folders.get(name)) for name in found.names)
    if found is None or not is_done:
        raise InputError(
            f"{root} holds the results of several embedders, of which not all are complete. Run the same semdedup run "
            "again, or name the folder of one of them: " + ", ".join(folder.name for folder in folders.values())
        )
    return found


def embedders_of(results: Iterable[Location]) -> tuple[str, ...]:
    """Names of the embedders whose vectors results have compared, as far as their records tell."""
    entries = (Record(root).every_step.get(KMEANS, {}) for place in results for root in roots_of(place))
    return tuple(dict.fromkeys(name for entry in entries for name in entry.get("facts", {}).get("embedders", ())))


def _is_complete(folder: Location | None) -> bool:
    return folder is not None and Record(DEDUPS.below(folder)[0]).committed(IDENTIFY) is not None
