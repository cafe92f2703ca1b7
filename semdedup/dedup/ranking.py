"""Rank: the order of the rows within a cluster, best first. The better-ranked of two near-duplicates is kept."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.dedup.input.columns import check_once
from semdedup.dedup.input.ids import hash_ids
from semdedup.dedup.names import COSINE_DISTANCE, L2_DISTANCE, OF_BASE
from semdedup.errors import ParameterError
from semdedup.settings import Found, Kind, Setting, check_names, shown
from semdedup.settings.choices import DistanceMetric, WhichToKeep
from semdedup.settings.kinds import choice, several, text, truth, whole

DISTANCE_COLUMNS = {"cosine": COSINE_DISTANCE, "l2": L2_DISTANCE}
WHICH_TO_KEEP = {"best": "best", "hard": "hard", "easy": "easy", "soft": "easy", "random": "random"}
"""What users may write, and the word for it."""

QUALITY = ("width", "height", "bitrate", "duration_s")
"""Columns that tell which copy is the best, those that there are: pixels need both of the first two."""

DIRECTIONS = {"asc": True, "desc": False}
"""What stands after a column in `rank_by`, and whether its smallest value is best then."""

METADATA_COLS = Setting(several("be names of columns, a list of text", text()), (), "Columns.", "metadata_cols")
KEEP = Setting(choice(*WHICH_TO_KEEP), "hard", "Which row of near-duplicates.", "which_to_keep")
METRIC = Setting(choice(*DISTANCE_COLUMNS), "cosine", "Distance that ranks.", "distance_metric")
ASCENDING = Setting(several("be true or false, or a list of these", truth()), True, "Smallest is best.", "ascending")
RANDOM_SEED = Setting(whole(0, 1 << 32), 42, "Seed of the order.", "random_seed")


def _column_and_direction(value: Any) -> str:
    """A column with a direction, as text."""
    column, colon, direction = value.strip().rpartition(":") if isinstance(value, str) else ("", "", "")
    if colon and column and direction.strip() in DIRECTIONS:
        return f"{column.strip()}:{direction.strip()}"
    raise Found(f"{shown(value)}, which does not end in :asc or :desc") if isinstance(value, str) else TypeError


def _rank_by(value: Any) -> tuple[str, ...]:
    """Columns with a direction, from one text or from several."""
    texts = several("", Kind("", lambda text: text)).plain(value)
    parts = [part for text in texts for part in (text.split(",") if isinstance(text, str) else [text])]
    found = tuple(_column_and_direction(part) for part in parts if part != "")
    columns = [each.rpartition(":")[0] for each in found]
    if not found or len(set(columns)) < len(columns):
        raise Found(f"{shown(value)}, which names {'a column twice' if found else 'no column'}")
    return found


RANK_BY = Kind(
    "be columns with a direction, such as 'height:desc,bitrate:desc' (asc: the smallest value is best)",
    _rank_by,
    metavar="COLUMN:asc|desc",
    many=True,
)


@dataclass(frozen=True)
class RankingStrategy:
    """By what the rows of a cluster are ranked.

    Attributes:
        columns: the columns that decide, in this order; none for a random order.
        ascending: for each column whether its smallest value is best.
        id_ascending: direction in which ids break ties.
        random_seed: seed of the random order; None where columns decide.
        is_best: whether the best copy comes first, see `best`: then columns that are absent do not count.
    """

    columns: tuple[str, ...]
    ascending: tuple[bool, ...]
    id_ascending: bool = True
    random_seed: int | None = None
    is_best: bool = False

    @classmethod
    def metadata_based(
        cls, metadata_cols: str | Sequence[str], ascending: bool | Sequence[bool] = True
    ) -> RankingStrategy:
        """Rank by metadata: with ``ascending=True`` the smallest value is best. Nulls come last, ties go by id.

        >>> strategy = RankingStrategy.metadata_based(["height", "bitrate"], ascending=False)   # keep the sharpest copy

        Raises:
            ParameterError: no column, a column twice, or not one direction for each column.
        """
        columns, directions = METADATA_COLS.check(metadata_cols), ASCENDING.check(ascending)
        if isinstance(ascending, (bool, np.bool_)):
            directions *= len(columns)
        if not columns or len(set(columns)) < len(columns):
            raise ParameterError(f"metadata_cols must name at least one column and none twice, got {list(columns)}")
        if len(directions) != len(columns):
            raise ParameterError(
                f"ascending must be one truth value, or one for each of {list(columns)}; got {list(directions)}"
            )
        return cls(columns, directions)

    @classmethod
    def rank_by(cls, columns: str | Sequence[str]) -> RankingStrategy:
        """`metadata_based` in one text: columns with ``:asc`` (the smallest value is best) or ``:desc``.

        >>> strategy = RankingStrategy.rank_by("height:desc,bitrate:desc")

        Raises:
            ParameterError: no column, a column twice, or one without a direction.
        """
        parts = [each.rpartition(":") for each in Setting(RANK_BY, (), "", "rank_by").check(columns)]
        return cls(tuple(column for column, _, _ in parts), tuple(DIRECTIONS[end] for _, _, end in parts))

    @classmethod
    def best(cls) -> RankingStrategy:
        """Rank the best copy first: most pixels (``width`` times ``height``), then the highest ``bitrate``, then the
        longest ``duration_s``. Of these columns those count that there are; nulls come last, ties go by id."""
        return cls(QUALITY, (False,) * len(QUALITY), is_best=True)

    @classmethod
    def random(cls, random_seed: int = 42) -> RankingStrategy:
        """Rank by a seeded hash of the id: random, yet the same for any files, partitions and workers."""
        return cls((), (), random_seed=RANDOM_SEED.check(random_seed))

    @classmethod
    def by_distance(
        cls, which_to_keep: WhichToKeep, distance_metric: DistanceMetric, random_seed: int = 42
    ) -> RankingStrategy:
        """Rank by the distance to the centroid: `hard` farthest first, `easy` nearest first; or `random`, or `best`."""
        which_to_keep, distance_metric = KEEP.check(which_to_keep), METRIC.check(distance_metric)
        if which_to_keep == "random":
            return cls.random(random_seed)
        if which_to_keep == "best":
            return cls.best()
        nearest_first = WHICH_TO_KEEP[which_to_keep] == "easy"
        return cls((DISTANCE_COLUMNS[distance_metric],), (nearest_first,), id_ascending=nearest_first)

    @classmethod
    def described(cls, description: Mapping[str, Any]) -> RankingStrategy:
        """The strategy that `describe` gave these values of."""
        if "best" in description:
            return cls.best()
        if "random_seed" in description:
            return cls.random(description["random_seed"])
        return cls(
            tuple(description["columns"]), tuple(description["ascending"]), id_ascending=description["id_ascending"]
        )

    @classmethod
    def by_id(cls) -> RankingStrategy:
        """The smallest id first."""
        return cls((), ())

    def describe(self) -> dict[str, Any]:
        """The strategy as plain values, for the manifest."""
        if self.is_best:
            return {"best": list(self.columns)}
        if self.random_seed is not None:
            return {"random_seed": self.random_seed}
        return {"columns": list(self.columns), "ascending": list(self.ascending), "id_ascending": self.id_ascending}

    def among(self, names: Collection[str]) -> tuple[str, ...]:
        """The columns to read of a table that has these: of the best copy those that are there, else all."""
        return tuple(column for column in self.columns if column in names or not self.is_best)


def strategy_of(value: Any) -> RankingStrategy:
    """The strategy that a value means: itself, or a mapping of the parameters of `metadata_based` or `random`."""
    if isinstance(value, Mapping):
        names = ["random_seed"] if "random_seed" in value else ["metadata_cols", "ascending"]
        check_names("ranking_strategy", value, names)
        if "random_seed" in value:
            return RankingStrategy.random(value["random_seed"])
        return RankingStrategy.metadata_based(value.get("metadata_cols", ()), value.get("ascending", True))
    if not isinstance(value, RankingStrategy):
        raise Found(f"{type(value).__name__} {shown(value)}")
    return value


def check_rankable(schema: pa.Schema, strategy: RankingStrategy, where: str, complete: bool = True) -> None:
    """Raise a `ParameterError` unless the schema has the strategy's columns, of types that have an order.

    A schema that is not `complete` may lack some: they are in other files.
    """
    if strategy.is_best:
        _check_quality(schema, where, complete)
        return
    for column in strategy.columns:
        if column not in schema.names:
            if not complete:
                continue
            raise ParameterError(
                f"ranking needs the column {column!r}, which {where} does not have; it has {', '.join(schema.names)}. "
                "Name metadata columns in metadata_fields when the rows are clustered."
            )
        check_once(schema.names, [column], where)
        found = schema.field(column).type
        if sort_type(found) is None:
            raise ParameterError(
                f"ranking needs a column with an order; {column!r} in {where} is {found}, which has none: write it as "
                "numbers or text, or rank by another column"
            )


def _check_quality(schema: pa.Schema, where: str, complete: bool) -> None:
    """Raise a `ParameterError` unless the best copy can be told by numbers in the schema."""
    there = [column for column in QUALITY if column in schema.names]
    check_once(schema.names, there, where)
    for column in there:
        found = schema.field(column).type
        kind = sort_type(found)
        if kind is None or not any(is_number(kind) for is_number in NUMBERS):
            raise ParameterError(
                f"which_to_keep='best' ranks by numbers; {column!r} in {where} is {found}: write it as numbers, or say "
                "with rank_by (--rank-by) what to rank by"
            )
    if complete and not {"bitrate", "duration_s"} & {*there} and not {"width", "height"} <= {*there}:
        raise ParameterError(
            f"which_to_keep='best' needs width and height, bitrate or duration_s, and {where} has none of them; it has "
            f"{', '.join(schema.names)}. Say with rank_by (--rank-by) by which columns to rank. Of clusters: name them "
            "in metadata_fields when the rows are clustered"
        )


def rank_order(table: pa.Table, strategy: RankingStrategy, id_field: str = "id") -> np.ndarray:
    """Positions of the rows of a cluster, best rank first.

    Args:
        table: the ids and what the strategy ranks by, n rows; ids are unique, so that the order is total. Rows of a
            base, where the column `OF_BASE` tells of them, rank before all others.
        strategy: what to rank by. Distances are compared as the float32 that is written.

    Returns:
        (n,) int64. Cost: O(n log n).
    """
    ids = table.column(id_field)
    if strategy.random_seed is not None:
        hashes = pa.chunked_array([pa.array(hash_ids(ids, strategy.random_seed))])
        keys = pa.table({"0": hashes, "id": ids})
        order = [("0", "ascending"), ("id", "ascending")]
    else:
        values = _quality(table) if strategy.is_best else [_sortable(table.column(name)) for name in strategy.columns]
        keys = pa.table({**{str(i): column for i, column in enumerate(values)}, "id": ids})
        order = [(str(i), "ascending" if strategy.ascending[i] else "descending") for i in range(len(values))]
        order.append(("id", "ascending" if strategy.id_ascending else "descending"))
    if OF_BASE in table.column_names:
        keys, order = keys.append_column("base", table.column(OF_BASE)), [("base", "descending"), *order]
    return pc.sort_indices(keys, sort_keys=order).to_numpy().astype(np.int64)  # nulls come last by default


def _quality(table: pa.Table) -> list[pa.ChunkedArray]:
    """What ranks the best copy first, all of it descending: pixels, bitrate, duration; those that there are."""
    there = {name: _sortable(table.column(name)) for name in QUALITY if name in table.column_names}
    sides = [there.pop(name).cast(pa.float64()) for name in ("width", "height") if name in there]
    return [*([pc.multiply(*sides)] if len(sides) == 2 else []), *there.values()]


def ranks_of_rows(rows: pa.Table, strategy: RankingStrategy) -> np.ndarray:
    """The rank of each row of a table as for `rank_order`, (n,) int64. The same row may be there twice: then its ranks
    are equal. Cost: O(n log n)."""
    order = rank_order(rows, strategy)
    ids = rows.column("id").take(pa.array(order))
    changed = pc.not_equal(ids.combine_chunks()[1:], ids.combine_chunks()[:-1]).to_numpy(zero_copy_only=False)
    ranks = np.empty(len(rows), dtype=np.int64)
    ranks[order] = np.append(0, np.cumsum(changed)) if len(rows) else 0
    return ranks


SORTED_AS = {
    pa.float16(): pa.float32(),
    pa.string_view(): pa.string(),
    pa.binary_view(): pa.binary(),
    pa.uuid(): pa.binary(16),
    pa.bool8(): pa.bool_(),
    pa.date32(): pa.int32(),
    pa.date64(): pa.int64(),
    pa.time32("s"): pa.int32(),
    pa.time32("ms"): pa.int32(),
    pa.time64("us"): pa.int64(),
    pa.time64("ns"): pa.int64(),
}
"""Types that some PyArrow does not sort, and the types that hold the same values in the same order."""

SORTED = (
    *(pa.types.is_null, pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating),
    *(pa.types.is_string, pa.types.is_large_string),
    *(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary),
)
"""Types that every PyArrow sorts."""


NUMBERS = (pa.types.is_null, pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
"""Types of what tells the best copy."""


def sort_type(found: pa.DataType) -> pa.DataType | None:
    """The type in which values of the type `found` are sorted, None where they have no order.

    Dictionaries are sorted by value, points and spans of time by their number of units, UUIDs by their bytes.
    """
    if pa.types.is_dictionary(found):
        return sort_type(found.value_type)
    if found in SORTED_AS:
        return SORTED_AS[found]
    if isinstance(found, pa.ExtensionType):  # of Python's: read as what it stores where it is not known
        return sort_type(found.storage_type)
    if pa.types.is_timestamp(found) or pa.types.is_duration(found):
        return pa.int64()
    if pa.types.is_decimal(found):
        return found if found.bit_width >= 128 else pa.decimal128(found.precision, found.scale)
    return found if any(is_kind(found) for is_kind in SORTED) else None


def _sortable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column in its `sort_type`, with null for NaN."""
    target = sort_type(column.type)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.cast(column.type.storage_type)
    column = column.cast(target)
    return pc.if_else(pc.is_nan(column), None, column) if pa.types.is_floating(column.type) else column
