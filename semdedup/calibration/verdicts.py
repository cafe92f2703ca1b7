"""The file of verdicts: what a person said of pairs on the page of a result."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from semdedup.calibration.bands import Bands
from semdedup.dedup.results.pairs import Id
from semdedup.errors import InputError
from semdedup.storage.location import Location
from semdedup.video.clip_meta import parse_object

FORMAT = "semdedup verdicts 1"
MOST_BYTES = 100 << 20
MOST_EDGES = 1000
HOW = "Judge pairs on the page that semdedup report writes, and download the verdicts there"


@dataclass(frozen=True)
class Verdict:
    """What was said of a pair.

    Attributes:
        id: of the row.
        max_id: of the other row.
        score: of both, float32.
        same: whether they show the same.
    """

    id: Id
    max_id: Id
    score: float
    same: bool


@dataclass(frozen=True)
class Verdicts:
    """The content of a file.

    Attributes:
        name: of the file, to tell.
        bands: between which eps the pairs were drawn at random.
        verdicts: in the order in which they were judged.
    """

    name: str
    bands: Bands
    verdicts: tuple[Verdict, ...]


def read_verdicts(place: Location) -> Verdicts:
    """Read a file of verdicts.

    Raises:
        InputError: it is none; the message says what is wrong.
        StorageError: it cannot be read.
    """
    if not place.exists() or place.is_dir():
        raise InputError(f"no such file: {place}. {HOW}")
    if place.info().n_bytes > MOST_BYTES:
        raise InputError(f"{place} is larger than {MOST_BYTES >> 20} MiB: it is no file of verdicts. {HOW}")
    content = parse_object(place.read_bytes())
    if isinstance(content, str):
        raise InputError(f"{place} {content}: it is no file of verdicts. {HOW}")
    return parse_verdicts(content, str(place))


def parse_verdicts(content: Mapping[str, Any], name: str = "the verdicts") -> Verdicts:
    """The verdicts in the content of a file. Raises an `InputError` for one that is none."""
    if content.get("format") != FORMAT:
        found = json.dumps(content.get("format"), default=str)[:60]
        raise InputError(f"{name} has the format {found}, and not {json.dumps(FORMAT)}. {HOW}")
    bands = Bands(_edges(content.get("bands"), name))
    listed = content.get("verdicts")
    if not isinstance(listed, list) or not listed:
        raise InputError(f"{name} holds no verdicts. {HOW}")
    verdicts = tuple(_verdict(entry, i, name) for i, entry in enumerate(listed))
    seen: dict[Id, Verdict] = {}
    for verdict in verdicts:
        if verdict != seen.setdefault(verdict.id, verdict):
            raise InputError(f"{name} has two different verdicts on {_shown(verdict.id)}; leave one of them in it")
    return Verdicts(name, bands, tuple(seen.values()))


def _edges(value: Any, name: str) -> tuple[float, ...]:
    is_list = isinstance(value, list) and 0 < len(value) <= MOST_EDGES
    if not is_list or not all(_is_number(eps) and 0 <= eps < 1 for eps in value) or sorted({*value}) != value:
        raise InputError(f'"bands" of {name} must be a list of rising eps from 0 to 1; got {_shown(value)}')
    return tuple(float(eps) for eps in value)


def _verdict(entry: Any, position: int, name: str) -> Verdict:
    where = f"verdict {position + 1} of {name}"
    if not isinstance(entry, dict):
        raise InputError(f"{where} is no JSON object: {_shown(entry)}")
    for key in ("id", "max_id"):
        if not isinstance(entry.get(key), str | int) or isinstance(entry[key], bool):
            raise InputError(f'"{key}" of {where} must be text or a whole number; got {_shown(entry.get(key))}')
    if not _is_number(entry.get("score")) or not 0 < entry["score"] <= 1:
        raise InputError(f'"score" of {where} must be a number from 0 to 1; got {_shown(entry.get("score"))}')
    if not isinstance(entry.get("same"), bool):
        raise InputError(f'"same" of {where} must be true or false; got {_shown(entry.get("same"))}')
    return Verdict(entry["id"], entry["max_id"], float(np.float32(entry["score"])), entry["same"])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _shown(value: Any) -> str:
    return repr(value)[:80]
