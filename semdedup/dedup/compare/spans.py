"""How a cluster that is too large for a task is cut: into tiles of its ranks, and the work on a tile into spans.

Plain arithmetic on a few numbers, so that what is sent to a task does not grow with the cluster.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

from semdedup.dedup import sizes


class Tile(NamedTuple):
    """Ranks [start, stop) of one large cluster; the tiles of a cluster before it rank better.

    The rows of a tile are all `of_base`, candidates only, or none of them is.
    """

    number: int
    start: int
    stop: int
    of_base: bool


@dataclass(frozen=True)
class Tiles(Sequence[Tile]):
    """The tiles of one cluster, best ranks first.

    Attributes:
        label: the cluster.
        n_rows: its rows that can be compared, those of a base among them.
        rows_per_tile: rows of each tile, but for the last one, and the last one of a base.
        n_base: how many rows, the first, are those of a base.
    """

    label: int
    n_rows: int
    rows_per_tile: int
    n_base: int = 0

    @property
    def of_base(self) -> int:
        """How many tiles, the first, are those of a base."""
        return -(-self.n_base // self.rows_per_tile)

    @property
    def own(self) -> range:
        """Numbers of the other tiles."""
        return range(self.of_base, len(self))

    def __len__(self) -> int:
        return self.of_base - (-(self.n_rows - self.n_base) // self.rows_per_tile)

    @overload
    def __getitem__(self, number: int) -> Tile: ...

    @overload
    def __getitem__(self, number: slice) -> Sequence[Tile]: ...

    def __getitem__(self, number: int | slice) -> Tile | Sequence[Tile]:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        if not 0 <= number < len(self):
            raise IndexError(number)
        of_base = number < self.of_base
        first, end = (0, self.n_base) if of_base else (self.n_base, self.n_rows)
        start = first + self.rows_per_tile * (number if of_base else number - self.of_base)
        return Tile(number, start, min(start + self.rows_per_tile, end), of_base)


class Span(NamedTuple):
    """The work of a task: the tile of a number is compared with the tiles [first, last), of which it may be the last.

    Attributes:
        tiles: of the cluster.
        number: of the tile whose rows look for better-ranked ones.
        first, last: numbers of the tiles with these.
    """

    tiles: Tiles
    number: int
    first: int
    last: int

    @property
    def whole(self) -> bool:
        """Whether there is no other span of the tile."""
        return self.first == 0 and self.last == self.number + 1


def tiles_per_task(rows_per_tile: int, dim: int) -> int:
    """With how many tiles a task compares one: its operations are at most `sizes.WORK_PER_TASK`.

    A tile of `sizes.rows_compared` rows can be compared with one at least.
    """
    return max(1, sizes.WORK_PER_TASK // (2 * rows_per_tile**2 * dim))


MOST_BLOCK_TASKS = 1 << 20
"""Tasks that compare blocks. Of more, bounds leave so little to do that journals and requests would cost more."""


def blocks_per_task(n_blocks: int, rows_per_block: int, dim: int) -> int:
    """With how many blocks a task compares one, so that no bound is needed to keep within `sizes.WORK_PER_TASK`; with
    more where there would be more tasks than `MOST_BLOCK_TASKS`."""
    pairs = n_blocks * (n_blocks + 1) // 2
    return max(tiles_per_task(rows_per_block, dim), -(-pairs // MOST_BLOCK_TASKS))


def block_tasks(n_blocks: int, rows_per_block: int, dim: int) -> int:
    """How many tasks compare blocks with each other, where none are tiles of one cluster."""
    most = blocks_per_task(n_blocks, rows_per_block, dim)
    return sum(-(-number // most) for number in range(1, n_blocks + 1))


def cut_evenly(n: int, most: int) -> Iterator[tuple[int, int]]:
    """Cut [0, n) into as few parts of at most `most` as can be, of nearly equal length."""
    n_parts = -(-n // most)
    for part in range(n_parts):
        yield n * part // n_parts, n * (part + 1) // n_parts


def tile_spans(tiles: Tiles, dim: int) -> list[Span]:
    """Every pair of a tile of the cluster's own and itself or a better-ranked tile, in spans; the longest come first.

    A task holds two tiles, so that each pair costs the reading of one, however pairs are put together: with one tile
    held, and the others read one after the other, a span reads as little as any other shape would.
    """
    most = tiles_per_task(tiles.rows_per_tile, dim)
    spans = [Span(tiles, number, *ends) for number in tiles.own for ends in cut_evenly(number + 1, most)]
    return sorted(spans, key=lambda span: span.first - span.last)


def tile_tasks(n_rows: int, rows_per_tile: int, dim: int, n_base: int = 0) -> int:
    """How many tasks compare the tiles of a cluster of `n_rows` rows, `n_base` of them of a base.

    As many more merge what they found, one for each tile of several spans; see `tiles.compare_large_clusters`.
    """
    tiles, most = Tiles(0, n_rows, rows_per_tile, n_base), tiles_per_task(rows_per_tile, dim)
    return sum(-(-(number + 1) // most) for number in tiles.own)


def tile_bytes(n_rows: int, rows_per_tile: int, dim: int, n_base: int = 0) -> int:
    """Bytes of embeddings that these tasks read: the own tile of each, and every other tile of its span."""
    tiles = Tiles(0, n_rows, rows_per_tile, n_base)
    others = sum(range(tiles.of_base, len(tiles)))
    return 4 * dim * rows_per_tile * (tile_tasks(n_rows, rows_per_tile, dim, n_base) + others)


def lay_out_bytes(n_rows: int, dim: int) -> tuple[int, int]:
    """Bytes of embeddings that are read and written to lay a cluster out in tiles, each row with the same number.

    Its files are read twice: for what ranks the rows, and to sort the rows of each piece by rank. These are written,
    and read once more by the tiles, which are written.
    """
    return 3 * 4 * n_rows * dim, 2 * 4 * n_rows * dim


def lay_out_reads(n_rows: int, rows_per_tile: int) -> int:
    """Ranges of files that the tiles of a cluster are gathered from: each reads of every piece the rows that are its.

    Pieces have as many rows as tiles, so that this is the square of their number.
    """
    return (-(-n_rows // rows_per_tile)) ** 2
