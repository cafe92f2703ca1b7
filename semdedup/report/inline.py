"""Pairs of clips with their pictures, in a notebook: what `DedupResult.show` shows."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import pandas as pd

from semdedup.compute.progress import Reporter
from semdedup.dedup.results.pairs import table_of
from semdedup.dedup.results.result import DedupResult
from semdedup.display import clock
from semdedup.report.strips import MOST_BYTES, ClipStrip, clip_folders, load_strips
from semdedup.storage.location import Paths, locations_of
from semdedup.video.child import end_children
from semdedup.video.clip_meta import span_of, well_formed

WITHOUT_CLIPS = "no frames: there are no clips beside this result; name their folder with clips="
"""What to do where the clips of a result are not found."""


@dataclass(frozen=True, repr=False)
class PairsWithPictures:
    """Pairs of clips: a table in a terminal, strips of frames side by side in a notebook.

    Attributes:
        pairs: ``id``, ``max_id``, ``cosine_sim_score``, as `DedupResult.pairs` gives them.
        clips: the strip of each clip, by id.
        eps: at which no more than these were looked for.
        across: whether `max_id` is of another set than `id`.
        note: why there are no pictures, where there are none of any clip.
    """

    pairs: pd.DataFrame
    clips: Mapping[Any, ClipStrip]
    eps: float
    across: bool = False
    note: str = ""

    def __repr__(self) -> str:
        return self.pairs.to_string(index=False) if len(self.pairs) else self._none

    def _repr_html_(self) -> str:
        if not len(self.pairs):
            return f"<p>{escape(self._none)}</p>"
        other = "max_id: of the other set" if self.across else "max_id: ranks better"
        head = f'<tr><th>score</th><th style="text-align: left">id</th><th style="text-align: left">{other}</th></tr>'
        rows = "".join(f"<tr>{''.join(cells)}</tr>" for cells in self._cells())
        note = f"<caption>{escape(self.note)}</caption>" if self.note else ""
        return f'<table class="semdedup">{note}{head}{rows}</table>'

    @property
    def _none(self) -> str:
        return f"no pairs at eps {self.eps:g}; a larger eps shows those that are less alike"

    def _cells(self) -> Iterator[list[str]]:
        for row_id, max_id, score in self.pairs.itertuples(index=False):
            figures = (_figure(self.clips[one]) for one in (row_id, max_id))
            yield [f"<td>{score:.4f}</td>", *(f'<td style="text-align: left">{figure}</td>' for figure in figures)]


def _figure(clip: ClipStrip) -> str:
    name, why = escape(clip.id), escape(clip.missing)
    picture = f'<img src="{escape(clip.strip)}" alt="frames of {name}" style="max-width: 24em">' if clip.strip else why
    known = well_formed(clip.metadata or {})
    start_s, end_s = span_of(known)
    span = "" if start_s is None or end_s is None else f" {clock(start_s)} – {clock(end_s)}"
    video = f"<br>{escape(str(known['video']))}{span}" if known.get("video") else ""
    return f"{picture}<br>{name}{video}"


def show_pairs(
    result: DedupResult,
    eps: float | None = None,
    n: int = 5,
    *,
    borderline: bool = False,
    clips: Paths | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> None:
    """Show `pairs_with_pictures`: pictures in a notebook, a table in a terminal."""
    found = pairs_with_pictures(result, eps, n, borderline=borderline, clips=clips, storage_options=storage_options)
    ipython = sys.modules.get("IPython")
    if ipython is not None and ipython.get_ipython() is not None:
        ipython.display.display(found)
    else:
        print(found)


def pairs_with_pictures(
    result: DedupResult,
    eps: float | None = None,
    n: int = 5,
    *,
    borderline: bool = False,
    clips: Paths | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> PairsWithPictures:
    """The n most similar pairs of a result, at most eps apart, with some frames of their clips.

    Args:
        result: of a dedup.
        eps: the threshold; that of the result by default.
        n: the most pairs.
        borderline: take those whose scores are nearest to the threshold, on both sides, as `DedupResult.borderline`.
        clips: the output folder of `split`, or a folder of MP4 files, or a list of those; by default the clips of the
            run that the result belongs to, or of the split in whose folder it is.
        storage_options: for fsspec, of `clips`; those of the result by default.

    Raises:
        InputError: `clips` names a folder that is not there.

    Time: a reading of the scores, and of 2 n clips.
    """
    pairs = table_of(result.borderline(n, eps)) if borderline else result.pairs(eps, n)
    scores = result.scores
    assert scores is not None  # else there would be no pairs
    options = scores.source.options if storage_options is None else storage_options
    given = None if clips is None else locations_of(clips, {"storage_options": options})
    places = dict.fromkeys((scores.source, result.metadata.get("output", scores.source)))
    folders = next((some for place in places if (some := clip_folders(place, given))), ())
    try:
        found = load_strips([*pairs["id"], *pairs["max_id"]], folders, Reporter(False), MOST_BYTES, most_previews=0)
    finally:
        end_children()
    note = "" if folders else WITHOUT_CLIPS
    chosen = result.eps if eps is None else eps
    assert chosen is not None
    return PairsWithPictures(pairs, found, chosen, scores.across, note)
