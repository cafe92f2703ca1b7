"""The table of videos as a run leaves it: rows that there were and those of the run, in the order of their names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.video.own_files import InOrder, OwnFiles
from semdedup.video.parts import PartPlan
from semdedup.video.records import FILES
from semdedup.video.row_files import EMBEDDINGS, RowKind
from semdedup.video.video_rows import ROWS, VideoRows
from semdedup.video.video_table import Placed


class Merged:
    """Rows of before and of a run, which has precedence.

    Args:
        before: rows that there were.
        new: those of the run, a video once.
        plans: of the files that their rows will be in, one for each kind of them.
    """

    def __init__(self, before: VideoRows, new: VideoRows, plans: Sequence[PartPlan]) -> None:
        self.before, self.new = before, new
        self.replaced = before.positions(new.column("video"))
        self.replaced = self.replaced[self.replaced >= 0]
        self._rows = VideoRows([*before.batches, *new.batches])
        self._plans = plans
        stays = np.ones(len(before), dtype=bool)
        stays[self.replaced] = False
        positions = np.concatenate([np.flatnonzero(stays), len(before) + np.arange(len(new))])
        order = pc.sort_indices(self._rows.column("video").take(pa.array(positions))).to_numpy()
        self._order = positions[order]

    def batches(self, before: Iterator[pa.ListArray], new: OwnFiles) -> Iterator[tuple[pa.RecordBatch, pa.Array]]:
        """Rows in order with the files of each video, `ROWS` at a time.

        Args:
            before: the files of the rows that there were, in their order, which is that of their names.
            new: those of the rows of the run.
        """
        known = InOrder(before)
        for positions in self._in_order():
            is_new = positions >= len(self.before)
            own = pa.array(new.take((positions[is_new] - len(self.before)).tolist()), FILES)
            files = pa.concat_arrays([known.take(positions[~is_new]), own])
            back = np.empty(len(positions), dtype=np.int64)
            back[np.concatenate([np.flatnonzero(~is_new), np.flatnonzero(is_new)])] = np.arange(len(positions))
            yield self._batch(positions), files.take(pa.array(back))

    def _in_order(self) -> Iterator[np.ndarray]:
        return (self._order[start : start + ROWS] for start in range(0, len(self._order), ROWS))

    def _batch(self, positions: np.ndarray) -> pa.RecordBatch:
        (batch,) = self._rows.take(positions).batches
        for plan in self._plans:
            column, numbers = plan.kind.part, np.concatenate([plan.of_old, plan.of_new])[positions]
            names = pa.array([part.name for part in plan.parts], pa.string())
            changed = pc.coalesce(names.take(pa.array(numbers, mask=numbers < 0)), batch[column])
            batch = batch.set_column(batch.schema.get_field_index(column), column, changed)
        return batch

    def clips_among(self, clips: pa.StringArray) -> pa.StringArray:
        """Those of some clips that a video has."""
        found = [clips[:0]]
        for positions in self._in_order():
            column = self._rows.take(positions).batches[0]["clips"].flatten()
            found.append(column.filter(pc.is_in(column, value_set=clips)))
        return pa.concat_arrays(found)


def without_lost(rows: VideoRows, kind: RowKind, folder: str, lost: frozenset[str]) -> VideoRows:
    """Rows of which those whose file is gone have none, and no stamp, so that their videos are done again.

    Of several embedders then not all have embedded their clips.
    """
    names = pa.array([name.rpartition("/")[2] for name in lost if name.rpartition("/")[0] == folder], pa.string())
    if not len(names):
        return rows
    counts = {kind.n_rows, *(["n_rows"] if kind.vector == EMBEDDINGS.vector else [])}
    batches = []
    for batch in rows.batches:
        is_lost = pc.and_(
            pc.is_in(batch[kind.part], value_set=names), pc.greater(pc.fill_null(batch[kind.n_rows], 0), 0)
        )
        for name, value in (*((count, 0) for count in counts), (kind.part, ""), ("stamp", "")):
            i = batch.schema.get_field_index(name)
            batch = batch.set_column(i, batch.schema.field(i), pc.if_else(is_lost, value, batch[name]))
        batches.append(batch)
    return VideoRows(batches)


def gone_clips(merged: Merged, placed: Placed) -> list[str]:
    """Clips that videos of this run had before, or that killed runs put in place, and that no video has any more.

    Memory: those clips; of a run on a new folder none.
    """
    had = merged.before.take(np.sort(merged.replaced))
    clips = [*(batch["clips"].flatten() for batch in had.batches), *placed.clips.chunks]
    then = pc.unique(pa.chunked_array(clips, pa.string()))
    if not len(then):
        return []
    kept = merged.clips_among(then)
    found: list[str] = then.filter(pc.invert(pc.is_in(then, value_set=kept))).to_pylist()
    return found


def gone_videos(merged: Merged, placed: Placed) -> list[str]:
    """Videos of which killed runs put files in place, and that are not in the table."""
    videos = pc.unique(placed.videos)
    is_gone = (merged.before.positions(videos) < 0) & (merged.new.positions(videos) < 0)
    found: list[str] = videos.filter(pa.array(is_gone)).to_pylist()
    return found
