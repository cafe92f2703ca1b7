"""Questions to a table of scores: it is streamed, file by file, and never held. Any number of rows, local or remote."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from semdedup.dedup.input.columns import python_rows
from semdedup.dedup.input.ids import as_ids, id_type
from semdedup.dedup.names import SCORE, cluster_of, find_table
from semdedup.dedup.results.checks import COLUMNS, check_columns, check_together, checked, foreign_files, read_checked
from semdedup.dedup.results.find import find_scores
from semdedup.dedup.results.groups import groups_of
from semdedup.dedup.results.pairs import Explanation, Group, Id, Pair
from semdedup.dedup.results.tallies import CountAt, Histogram, Nearest, Tally
from semdedup.dedup.sizes import ROWS_AT_A_TIME
from semdedup.dedup.threshold.rule import check_eps, duplicate_mask, least_eps, least_score
from semdedup.errors import InputError, ParameterError
from semdedup.storage.location import FileInfo, Location
from semdedup.storage.tables import RowGroups, open_parquet
from semdedup.storage.temporary import temporary_prefix


class NoSuchRowError(InputError):
    """No table of scores has a row of an id."""


@dataclass(frozen=True)
class Scores:
    """The tables ``cluster_{k}.parquet`` of a result, in either layout.

    Attributes:
        files: the tables.
        source: their storage.
        clusters: folder of the clusters, or None.
        across: whether `max_id` is of another set than `id`, of which nothing is dropped; ids may be in both.
        others: of several results that are read together, the folders of clusters of all but the first.
        foreign: those of the tables that no record of ours names; before the first answer they are read as a whole.
    """

    files: tuple[FileInfo, ...]
    source: Location = field(repr=False)
    clusters: Location | None = field(default=None, repr=False)
    across: bool = False
    others: tuple[Location, ...] = field(default=(), repr=False)
    foreign: tuple[FileInfo, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, root: Location) -> Scores:
        """The scores below a folder. Raises `InputError` where there are none."""
        files = tuple(find_scores(root))
        clusters = find_table(root, "clusters")
        foreign = tuple(foreign_files(files, find_table(root, "scores")))
        return cls(files, root, clusters if clusters.url != root.url else None, foreign=foreign)

    @classmethod
    def chained(cls, parts: Sequence[Scores]) -> Scores:
        """The scores of a result and its updates as one; a cluster then has a table in each."""
        folders = [part.clusters for part in parts if part.clusters is not None]
        files = tuple(file for part in parts for file in part.files)
        foreign = tuple(file for part in parts for file in part.foreign)
        return cls(files, parts[0].source, folders[0] if folders else None, others=tuple(folders[1:]), foreign=foreign)

    @cached_property
    def n_rows(self) -> int:
        """Rows of all tables, as their footers tell; their columns are checked. Raises `BadFileError`."""
        n = 0
        for file in self.files:
            with open_parquet(self.source.at(file.url)) as parquet:
                if parquet.metadata.num_rows:
                    check_columns(parquet.schema_arrow, file.url)
                n += parquet.metadata.num_rows
        return n

    @cached_property
    def id_type(self) -> pa.DataType:
        """The type of the ids, text or whole numbers."""
        for file in self.files:
            with open_parquet(self.source.at(file.url)) as parquet:
                if parquet.metadata.num_rows:
                    return check_columns(parquet.schema_arrow, file.url)
        return pa.string()

    def check(self) -> None:
        """Look at tables that are not ours as a whole, once: see `check_together`. Our own cost no time."""
        return self._checked

    @cached_property
    def _checked(self) -> None:
        if self.foreign:
            with tempfile.TemporaryDirectory(prefix=temporary_prefix()) as folder:
                check_together(self.foreign, self.source, Location.of(folder))

    def _read(self, columns: Sequence[str]) -> Iterator[tuple[int, int, pa.RecordBatch]]:
        """(number of a file, the first of these rows in it, some of its rows), checked; no other columns are read."""
        self.check()
        for position, file in enumerate(self.files):
            for start, batch in read_checked(self.source, RowGroups(file.url), columns, rows=ROWS_AT_A_TIME):
                yield position, start, batch

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """(cluster, some rows of it) in order, with no other columns read. Memory: `ROWS_AT_A_TIME` rows.

        Raises:
            BadFileError: a column, an id or a score is not as it must be, see `semdedup.dedup.results.checks`.
            DuplicateIdError: an id is there twice.
        """
        for position, _, batch in self._read(columns):
            yield cluster_of(self.files[position].url), batch

    def values(self) -> Iterator[np.ndarray]:
        """The scores alone, float32 in [0, 1], in pieces."""
        for _, _, batch in self._read([SCORE]):
            yield _scores_of(batch)

    def tally(self, *tallies: Tally) -> None:
        """Read the scores once, and nothing else, and give them to each of the tallies."""
        for position, start, batch in self._read([SCORE]):
            for each in tallies:
                each.take(position, start, _scores_of(batch))

    def pairs(self, places: Sequence[tuple[int, int]]) -> list[Pair]:
        """The pairs at these places, (file, row) each. Only the row groups that hold them are read."""
        self.check()
        found: dict[tuple[int, int], Pair] = {}
        rows_by_file: dict[int, list[int]] = {}
        for position, row in sorted(places):
            rows_by_file.setdefault(position, []).append(row)
        for position, wanted in rows_by_file.items():
            file = self.files[position]
            with open_parquet(self.source.at(file.url)) as parquet:
                for start, rows in _batches_with(parquet, wanted):
                    batch = checked(rows, file.url, start)
                    for row in wanted:
                        if start <= row < start + len(batch):
                            found[position, row] = _pair(batch, row - start, cluster_of(file.url))
        return [found[place] for place in places]

    def count(self, thresholds: Sequence[float]) -> tuple[int, list[int]]:
        """Rows, and how many of them are duplicates at each eps. Time: one reading of the scores."""
        counts = CountAt(thresholds)
        self.tally(counts)
        return counts.n_rows, counts.duplicates

    def histogram(self, n_bins: int = 100) -> np.ndarray:
        """Rows with a score in each of `n_bins` equal bins of [0, 1]; the last one holds 1 too."""
        histogram = Histogram(n_bins)
        self.tally(histogram)
        return histogram.counts

    def suggest_eps(self, target_fraction: float) -> float:
        """The smallest eps at which at most this fraction of the rows remains.

        Exact, and out of core: scores in [0, 1] are ordered as their bits are, so that counting the upper half of the
        bits, and then the lower half within one bin, finds the score at a rank. Time: two readings of the scores.

        Raises:
            ParameterError: the fraction is not in (0, 1], or cannot be reached: rows of score 0 remain at every eps.
        """
        if not 0 < target_fraction <= 1:
            raise ParameterError(f"target_fraction, what remains, must lie in (0, 1]; got {target_fraction}")
        high = np.zeros(1 << 16, dtype=np.int64)
        for values in self.values():
            high += np.bincount(values.view(np.uint32) >> 16, minlength=1 << 16)
        n_rows = int(high.sum())
        to_drop = n_rows - int(np.floor(target_fraction * n_rows))
        if to_drop == 0:
            return 0.0
        bin_, before = _bin_of_rank(high, to_drop)
        low = np.zeros(1 << 16, dtype=np.int64)
        for values in self.values():
            bits = values.view(np.uint32)
            low += np.bincount(bits[bits >> 16 == bin_] & 0xFFFF, minlength=1 << 16)
        rest, _ = _bin_of_rank(low, to_drop - before)
        score = np.array([(bin_ << 16) | rest], dtype=np.uint32).view(np.float32)[0]
        if score <= 0:
            remain = (n_rows - int(_above_zero(high, low, bin_))) / n_rows
            raise ParameterError(
                f"target_fraction {target_fraction:g} cannot be reached: at least {remain:.4g} remains at every eps"
            )
        return least_eps(score)

    def borderline(self, n: int, eps: float) -> list[Pair]:
        """The n pairs whose score is nearest to the threshold, on either side of it, nearest first.

        Time: one reading of the scores, and of the ids in the row groups of these pairs.
        """
        nearest = Nearest(n, least_score(eps))
        self.tally(nearest)
        return self.pairs(nearest.places)

    def groups(self, eps: float, files: Sequence[FileInfo] | None = None) -> Iterator[Group]:
        """Each kept row that has duplicates, with these. Memory: the ids and scores of one cluster's duplicates.

        A duplicate whose most similar better-ranked row is dropped too goes for the sake of the row that this one goes
        for, and so on: ranks rise along the way, so that it ends at a row that is kept.

        Args:
            eps: the threshold.
            files: the tables to look at, one a cluster; all of them by default.
        """
        check_eps(eps)
        self.check()
        for file in self.files if files is None else files:
            found = [
                batch.filter(pa.array(duplicate_mask(_scores_of(batch), eps)))
                for _, batch in replace(self, files=(file,), foreign=()).batches(COLUMNS)
            ]
            if any(map(len, found)):
                yield from groups_of(pa.Table.from_batches(found), cluster_of(file.url), self.across)

    def explain(self, row_id: Id, eps: float | None) -> Explanation:
        """What a row duplicates, and why. Time: a reading of the ids, and of one cluster's metadata.

        Raises:
            NoSuchRowError: there is no such row.
        """
        try:
            wanted = pa.scalar(row_id, self.id_type)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, TypeError) as error:
            raise ParameterError(f"ids are {self.id_type}; got {row_id!r}") from error
        for cluster, batch in self.batches(COLUMNS):
            row = pc.index(batch.column("id"), wanted).as_py()
            if row >= 0:
                pair = _pair(batch, row, cluster)
                known = self.metadata([pair])
                score = np.array([pair.score], dtype=np.float32)
                verdict = None if eps is None else bool(duplicate_mask(score, eps)[0])
                return Explanation(pair, verdict, known.get(pair.id, {}), known.get(pair.max_id, {}))
        raise NoSuchRowError(f"no row {row_id!r} in the scores of {self.source}")

    def metadata(self, pairs: Sequence[Pair]) -> dict[Any, dict[str, Any]]:
        """What the clusters tell of the rows of these pairs, by id; nothing where the clusters are not there.

        Time: a reading of the metadata of the clusters that they lie in; of a match in another cluster also of the ids.
        """
        wanted: dict[int, set[Any]] = {}
        for pair in pairs:
            wanted.setdefault(pair.cluster, set()).update((pair.id, pair.max_id))
        found: dict[Any, dict[str, Any]] = {}
        if self.clusters is None:
            return found
        for cluster, ids in wanted.items():
            found |= self._rows_of(cluster, ids)
        missing = {row_id for ids in wanted.values() for row_id in ids} - found.keys()
        if missing and not self.across:
            for cluster, batch in self.batches(["id"]):
                there = batch.column("id").filter(pc.is_in(batch.column("id"), pa.array(missing, self.id_type)))
                found |= self._rows_of(cluster, set(there.to_pylist())) if len(there) else {}
        return found

    def _rows_of(self, cluster: int, ids: set[Any]) -> dict[Any, dict[str, Any]]:
        """The metadata of some rows of a cluster, by id."""
        assert self.clusters is not None
        found: dict[Any, dict[str, Any]] = {}
        folders = [clusters / f"centroid={cluster}" for clusters in (self.clusters, *self.others)]
        for file in [file for folder in folders for file in folder.files()]:
            with open_parquet(self.clusters.at(file.url)) as parquet:
                schema = parquet.schema_arrow
                names = [name for name in dict.fromkeys(schema.names) if name != "embedding"]
                if "id" not in names or id_type(schema.field("id").type) != self.id_type:
                    continue  # clusters of another program, whose columns have other names: they tell nothing
                among = pa.array(ids, self.id_type)
                for batch in parquet.iter_batches(ROWS_AT_A_TIME, columns=names, use_threads=False):
                    own = as_ids(pa.chunked_array([batch.column("id")]), self.id_type).combine_chunks()
                    chosen = batch.set_column(batch.schema.get_field_index("id"), "id", own)
                    rows = python_rows(chosen.filter(pc.is_in(own, among)))
                    found |= {row.pop("id"): row for row in rows}
        return found


def _scores_of(batch: pa.RecordBatch) -> np.ndarray:
    return batch.column(SCORE).to_numpy()


def _batches_with(parquet: pq.ParquetFile, rows: Sequence[int]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """First row and content of the batches of an open file that may hold one of these rows."""
    first = 0
    for group in range(parquet.metadata.num_row_groups):
        last = first + parquet.metadata.row_group(group).num_rows
        if any(first <= row < last for row in rows):
            start = first
            for batch in parquet.iter_batches(ROWS_AT_A_TIME, [group], list(COLUMNS), use_threads=False):
                yield start, batch
                start += len(batch)
        first = last


def _pair(batch: pa.RecordBatch, row: int, cluster: int) -> Pair:
    row_id, max_id, score = (batch.column(name)[row].as_py() for name in ("id", "max_id", SCORE))
    return Pair(row_id, max_id, score, cluster)


def _bin_of_rank(counts: np.ndarray, rank: int) -> tuple[int, int]:
    """The bin that holds the value of this rank from the top (1 is the largest), and how many values lie above it."""
    from_top = counts[::-1].cumsum()
    position = int(np.searchsorted(from_top, rank))
    above = int(from_top[position - 1]) if position else 0
    return len(counts) - 1 - position, above


def _above_zero(high: np.ndarray, low: np.ndarray, bin_: int) -> int:
    """Scores above 0: all but those whose bits are all 0."""
    return int(high.sum() - (low[0] if bin_ == 0 else 0))
