"""The page: a survey rendered into one HTML file that needs no other file and no network."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import jinja2
import numpy as np

from semdedup.dedup.threshold.rule import REMOVAL, least_score
from semdedup.report.aligned import AlignedVideos
from semdedup.report.cards import Cards, Outcome, exact
from semdedup.report.quarantine import SetAside
from semdedup.report.strips import ClipStrip
from semdedup.report.survey import Survey

MOST_BARS = 120


@dataclass(frozen=True)
class Background:
    """What the page shows besides the scores.

    Attributes:
        place: the folder of the result.
        quarantine: rows, clips and videos that were set aside.
        steps: parameters, facts, versions and seconds of each step, as the manifest has them.
        across: whether the scores are of one set against another, and not within clusters.
        notes: more sentences on what the page leaves out.
        removal: the removal rule of the result.
        removed: how many rows go by it at the threshold that the page begins with, where that is known.
        embedder: whose embeddings were compared, where the record tells.
        calibration: what `semdedup calibrate` has stored for these scores; empty where there is nothing.
    """

    place: str
    quarantine: Sequence[SetAside] = ()
    steps: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    across: bool = False
    notes: Sequence[str] = ()
    removal: str = REMOVAL.default
    removed: int | None = None
    embedder: str | None = None
    calibration: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Bar:
    """A bar of a chart: heights are parts of the chart's height."""

    height: float
    part: float
    label: str


def render(
    survey: Survey,
    clips: Mapping[Any, ClipStrip],
    background: Background,
    overlaps: AlignedVideos | None = None,
    outcome: Outcome | None = None,
) -> str:
    """The page as text. Memory: the page. Where no overlaps are given there is no section of them."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    style, script = _text("page.css"), _text("page.js")
    cards = Cards(clips, outcome or Outcome())
    rule = "across" if background.across else background.removal
    embedded: set[str] = set()

    def is_first(key: str) -> bool:
        """Whether a picture is there for the first time: it is embedded once, and the script copies it."""
        known = key in embedded
        embedded.add(key)
        return not known

    return environment.from_string(_text("page.html")).render(
        style=style,
        style_hash=_hash(style),
        script=script,
        script_hash=_hash(script),
        survey=survey,
        background=background,
        version=version("semdedup"),
        data={
            "eps": survey.eps,
            "rows": survey.n_rows,
            "curve": survey.curve,
            "place": background.place,
            "embedder": background.embedder,
            "rule": rule,
            **cards.data(survey.sample),
        },
        least=exact(float(least_score(survey.eps))),
        pairs=[cards.pair(found) for found in survey.sample.pairs],
        groups=cards.groups(survey),
        overlaps=overlaps,
        histogram=_histogram(survey.histogram),
        clusters=_clusters(survey.cluster_rows, survey.cluster_duplicates),
        is_first=is_first,
        steps=[_step(name, record) for name, record in background.steps.items()],
        versions=_versions(background.steps),
    )


def _text(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """What a content security policy calls an inline style or script by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _histogram(counts: np.ndarray) -> list[Bar]:
    """Bars on a scale of logarithms: near-duplicates are few, and they are what one looks for."""
    top = math.log1p(int(counts.max(initial=0))) or 1.0
    width = 1 / max(1, len(counts))
    return [
        Bar(math.log1p(int(count)) / top, 0.0, f"score {i * width:.2f} to {(i + 1) * width:.2f}: {int(count):,} rows")
        for i, count in enumerate(counts)
    ]


def _clusters(rows: np.ndarray, duplicates: np.ndarray) -> list[Bar]:
    """Bars of the clusters, largest first; where there are many, each is the mean of some neighbours."""
    order = np.argsort(-rows, kind="stable")
    bars = []
    top = max(1, int(rows.max(initial=0)))
    for some in np.array_split(order, min(MOST_BARS, len(order))) if len(order) else ():
        size, dropped = float(rows[some].mean()), float(duplicates[some].mean())
        what = f"{len(some):,} clusters of {size:,.0f} rows" if len(some) > 1 else f"{size:,.0f} rows"
        bars.append(Bar(size / top, dropped / top, f"{what}, {dropped:,.0f} duplicates"))
    return bars


def _step(name: str, record: Mapping[str, Any]) -> dict[str, Any]:
    facts = {key: value for key, value in record.get("facts", {}).items() if not isinstance(value, (dict, list))}
    parameters = {key: value for key, value in record.get("parameters", {}).items() if value is not None}
    return {
        "name": name,
        "status": record.get("status", ""),
        "seconds": record.get("seconds"),
        "parameters": [(key, format_value(value)) for key, value in sorted(parameters.items())],
        "facts": [(key, format_value(value)) for key, value in sorted(facts.items())],
    }


def _versions(steps: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    found: dict[str, set[str]] = {}
    for record in steps.values():
        for name, found_version in record.get("versions", {}).items():
            found.setdefault(name, set()).add(str(found_version))
    return [(name, ", ".join(sorted(several))) for name, several in sorted(found.items())]


def format_value(value: Any) -> str:
    """A JSON value as text for people."""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {format_value(each)}" for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(format_value(each) for each in value) or "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
