"""What the page shows of clips, pairs and groups: plain values for the template and the script."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from semdedup.calibration.bands import describe
from semdedup.calibration.verdicts import FORMAT
from semdedup.dedup.results.pairs import Id, Pair
from semdedup.display import one_line
from semdedup.report.sample import PairSample
from semdedup.report.strips import ClipStrip
from semdedup.report.survey import DROPPED_PER_GROUP, Survey
from semdedup.video.clip_meta import span_of, well_formed
from semdedup.video.steps.caption.windows import captions_in

LONGEST_ID = 40
"""Characters of an id in a sentence; in full it is beside its clip."""

MOST_CAPTIONS, LONGEST_CAPTION = 4, 400
"""Captions that are shown of a clip, and characters of each: the page has hundreds of clips."""


@dataclass(frozen=True)
class Outcome:
    """What became of rows at the eps of the page, by the rule of the result.

    Attributes:
        witnesses: of each row that goes the row that stays for it, and their similarity; None where that was not
            written, so that the page goes by the scores alone.
        links: how the page leads to a clip's file, by id; where it cannot be opened there is none.
    """

    witnesses: Mapping[Id, tuple[Id, float]] | None = None
    links: Mapping[Id, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cards:
    """Makes the values of the template.

    Attributes:
        clips: what is known of each clip, by id.
        outcome: what became of rows.
    """

    clips: Mapping[Any, ClipStrip]
    outcome: Outcome

    def clip(self, row_id: Id) -> dict[str, Any]:
        """A clip: its picture, what is known of it, and where it plays; where the page cannot lead, its address."""
        clip = self.clips.get(row_id, ClipStrip(str(row_id)))
        known = well_formed(clip.metadata or {})
        link = self.outcome.links.get(row_id, "")
        facts = ["its metadata are malformed"] if clip.meta_fault else []
        start_s, end_s = span_of(known)
        if start_s is not None and end_s is not None:
            facts.append(f"{start_s:.2f}–{end_s:.2f} s")
        if known.get("width") is not None and known.get("height") is not None:
            facts.append(f"{known['width']:.0f}×{known['height']:.0f}")
        if known.get("framerate") is not None:
            facts.append(f"{known['framerate']:g} fps")
        captions = [
            (caption.model, f"{caption.window.start}–{caption.window.end}", _shown(caption.text))
            for caption in captions_in(known)
        ]
        return {
            "id": clip.id,
            "key": key_of(row_id),
            "strip": clip.strip,
            "missing": clip.missing,
            "facts": " · ".join(facts),
            "captions": captions[:MOST_CAPTIONS],
            "more_captions": max(0, len(captions) - MOST_CAPTIONS),
            "source": known.get("video") or known.get("source_video") or "",
            "link": link,
            "address": "" if link else clip.url,
            "plays": clip.preview is not None,
        }

    def pair(self, pair: Pair) -> dict[str, Any]:
        """A row and the other row of its score."""
        return {
            "score": exact(pair.score),
            "cluster": pair.cluster,
            "dropped": self.clip(pair.id),
            "other": self.clip(pair.max_id),
        }

    def groups(self, survey: Survey) -> list[dict[str, Any]]:
        """The groups, each with its first duplicates."""
        return [
            {
                "kept": self.clip(group.kept),
                "dropped": [self.pair(found) for found in group.dropped[:DROPPED_PER_GROUP]],
                "more": max(0, len(group.dropped) - DROPPED_PER_GROUP),
            }
            for group in survey.groups
        ]

    def data(self, sample: PairSample) -> dict[str, Any]:
        """What the script needs of the pairs, and what the file of verdicts says of them."""
        pairs = [self._pair_data(sample, pair) for pair in sample.pairs]
        identity = json.dumps([(pair["id"], pair["max_id"], pair["score"]) for pair in pairs])
        plays = {row_id: clip.preview for row_id, clip in self.clips.items() if clip.preview is not None}
        return {
            "pairs": pairs,
            "judge": list(sample.to_judge),
            "bands": list(sample.bands.edges),
            "band_names": describe(sample.bands),
            "sizes": list(sample.sizes),
            "format": FORMAT,
            "key": hashlib.sha256(identity.encode()).hexdigest()[:24],
            "previews": {key_of(row_id): [preview.video, preview.speed] for row_id, preview in plays.items()},
        }

    def _pair_data(self, sample: PairSample, pair: Pair) -> dict[str, Any]:
        chain = sample.chain(pair)
        found: dict[str, Any] = {
            "id": str(pair.id),
            "max_id": str(pair.max_id),
            "score": exact(pair.score),
            "band": int(sample.bands.of(np.array([pair.score], np.float32))[0]),
            "chain": [[exact(row.score), "" if row.id == row.max_id else _short(row.max_id)] for row in chain],
        }
        if self.outcome.witnesses is not None:
            witness = self.outcome.witnesses.get(pair.id)
            found["gone"] = [witness is not None, pair.max_id in self.outcome.witnesses]
            if witness is not None and witness[0] != pair.max_id:
                found["witness"] = [_short(witness[0]), exact(witness[1])]
        return found


def _shown(caption: str) -> str:
    """A caption on one line, without what would turn or hide the text around it, and not endless."""
    text = one_line(" ".join(caption.split()))
    return text if len(text) <= LONGEST_CAPTION else f"{text[: LONGEST_CAPTION - 1]}…"


def key_of(row_id: Id) -> str:
    """A short name for a clip, safe in an attribute."""
    return hashlib.sha256(f"{type(row_id).__name__} {row_id}".encode(errors="surrogatepass")).hexdigest()[:16]


def exact(score: float) -> float:
    """A float32 score as the float64 of the same value: what the script compares with."""
    return float(np.float32(score))


def _short(row_id: Id) -> str:
    text = str(row_id)
    return text if len(text) <= LONGEST_ID else f"{text[: LONGEST_ID - 12]}…{text[-11:]}"


def shown_ids(survey: Survey) -> Sequence[Id]:
    """The ids of all clips of a page, those first that matter most."""
    ids: list[Id] = [row_id for pair in survey.sample.first for row_id in (pair.max_id, pair.id)]
    for group in survey.groups:
        ids += [group.kept, *(pair.id for pair in group.dropped[:DROPPED_PER_GROUP])]
    return list(dict.fromkeys(ids))
