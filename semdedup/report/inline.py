"""Pairs of clips with their pictures, in a notebook: what `DedupResult.show` shows."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import pandas as pd

from semdedup.compute.progress import Reporter
from semdedup.dedup.results.result import DedupResult
from semdedup.display import clock
from semdedup.errors import InputError
from semdedup.report.strips import MOST_BYTES, ClipStrip, load_strips
from semdedup.storage.location import Location, Paths, locations_of
from semdedup.video.child import end_children
from semdedup.video.clip_meta import span_of, well_formed
from semdedup.video.tree import CLIPS, METAS


@dataclass(frozen=True, repr=False)
class PairsWithPictures:
    """Pairs of clips: a table in a terminal, strips of frames side by side in a notebook.

    Attributes:
        pairs: ``id``, ``max_id``, ``cosine_sim_score``, as `DedupResult.pairs` gives them.
        clips: the strip of each clip, by id.
    """

    pairs: pd.DataFrame
    clips: Mapping[Any, ClipStrip]

    def __repr__(self) -> str:
        return self.pairs.to_string(index=False) if len(self.pairs) else "no pairs"

    def _repr_html_(self) -> str:
        head = "<tr><th>score</th><th>id</th><th>max_id: ranks better</th></tr>"
        rows = "".join(f"<tr>{''.join(cells)}</tr>" for cells in self._cells())
        return f'<table class="semdedup">{head}{rows}</table>' if rows else "<p>no pairs</p>"

    def _cells(self) -> Iterator[list[str]]:
        for row_id, max_id, score in self.pairs.itertuples(index=False):
            yield [f"<td>{score:.4f}</td>", *(f"<td>{_figure(self.clips[one])}</td>" for one in (row_id, max_id))]


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
    clips: Paths | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> None:
    """Show `pairs_with_pictures`: pictures in a notebook, a table in a terminal."""
    found = pairs_with_pictures(result, eps, n, clips=clips, storage_options=storage_options)
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
    clips: Paths | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> PairsWithPictures:
    """The n most similar pairs of a result, at most eps apart, with some frames of their clips.

    Args:
        result: of a dedup.
        eps: the threshold; that of the result by default.
        n: the most pairs.
        clips: the output folder of `split`, or a folder of MP4 files, or a list of those; by default the clips of the
            run that the result belongs to.
        storage_options: for fsspec, of `clips`.

    Raises:
        InputError: `clips` names a folder that is not there.

    Time: a reading of the scores, and of 2 n clips.
    """
    pairs = result.pairs(eps, n)
    folders = (
        _clips_of_run(result) if clips is None else list(locations_of(clips, {"storage_options": storage_options}))
    )
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"no such folder: {folder}; give the output of split, or a folder of MP4 files")
    ids = [*pairs["id"], *pairs["max_id"]]
    try:
        found = load_strips(ids, folders, Reporter(False), MOST_BYTES)
    finally:
        end_children()
    return PairsWithPictures(pairs, found)


def _clips_of_run(result: DedupResult) -> list[Location]:
    """The clips of the run whose dedup the result is; none of a dedup by itself."""
    assert result.scores is not None
    output = result.scores.source.parent  # of the dedup, below the root of a run
    roots = [root / CLIPS for root in (output, output.parent)]
    return [root for root in roots if (root / METAS).is_dir()][:1]
