"""Lance in, Parquet out: ranges of rows of a data set, read by the workers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from semdedup.dedup.input.datasets import lance_place
from semdedup.errors import BadFileError, ParameterError, SemdedupError
from semdedup.extras import pip_install
from semdedup.storage.faults import is_passing
from semdedup.storage.location import FileInfo, Location
from semdedup.storage.stores import lance_options

BLOCK_BYTES, BATCH_ROWS = 32 << 20, 1024
LIST_BYTES, OTHER_BYTES = 4096, 64
"""Bytes of a row that are reckoned with for a list of any length, and for other columns whose types do not tell."""


@dataclass(frozen=True)
class LanceBlock:
    """Rows [start, stop) of a fragment of a version of a data set, to be written as the Parquet file `target`."""

    source: Location
    version: int
    fragment: int
    start: int
    stop: int
    target: Location


def lance_blocks(
    files: Sequence[FileInfo], root: Location, columns: Sequence[str], target: Location, skip_bad_files: bool
) -> tuple[list[LanceBlock], dict[str, str]]:
    """Cut data sets into blocks of about `BLOCK_BYTES`, none of them over the end of a fragment.

    Returns:
        The blocks; and, where they are skipped, the data sets that cannot be read, by URL, each with its fault.
    """
    blocks: list[LanceBlock] = []
    bad: dict[str, str] = {}
    for file in files:
        source, version = root.at(lance_place(file.url)[0]), lance_place(file.url)[1]
        try:
            parts = _parts_of(source, version, columns)
        except BadFileError as error:
            if not skip_bad_files:
                raise
            bad[source.url] = str(error)
            continue
        for number, (fragment, start, stop) in enumerate(parts, len(blocks)):
            blocks.append(LanceBlock(source, version, fragment, start, stop, target / f"{number:08d}.parquet"))
    return blocks, bad


def _parts_of(source: Location, version: int, columns: Sequence[str]) -> list[tuple[int, int, int]]:
    """A fragment, a first row in it and an end, for each block."""
    with opened(source, version) as dataset:
        step = max(1, BLOCK_BYTES // row_bytes([dataset.schema.field(name) for name in _there(dataset, columns)]))
        rows = [(fragment.fragment_id, fragment.count_rows()) for fragment in dataset.get_fragments()]
    return [(number, start, min(start + step, n)) for number, n in rows for start in range(0, n, step)]


@contextlib.contextmanager
def reading_whole(file: FileInfo, root: Location) -> Iterator[tuple[pa.Schema, Iterator[pa.Table]]]:
    """The schema and all rows of a data set, `BATCH_ROWS` at a time."""
    url, version = lance_place(file.url)
    source = root.at(url)
    with opened(source, version) as dataset:
        schema, scanner = dataset.schema, dataset.scanner(batch_size=BATCH_ROWS)
    yield schema, _tables(source, scanner)


def lance_schema(file: FileInfo, root: Location, columns: Sequence[str]) -> tuple[pa.Schema, int]:
    """The named columns that a data set has, with their types, and how many rows."""
    url, version = lance_place(file.url)
    with opened(root.at(url), version) as dataset:
        return pa.schema([dataset.schema.field(name) for name in _there(dataset, columns)]), dataset.count_rows()


@contextlib.contextmanager
def reading_lance(columns: Sequence[str], block: LanceBlock) -> Iterator[tuple[pa.Schema, Iterator[pa.Table]]]:
    """The schema and the rows of a block, `BATCH_ROWS` at a time."""
    with opened(block.source, block.version) as dataset:
        names = _there(dataset, columns)
        fragment = dataset.get_fragment(block.fragment)
        n_rows = block.stop - block.start
        scanner = fragment.scanner(columns=names, offset=block.start, limit=n_rows, batch_size=BATCH_ROWS)
        schema = pa.schema([dataset.schema.field(name) for name in names])
    yield schema, _tables(block.source, scanner)


def _tables(source: Location, scanner: Any) -> Iterator[pa.Table]:
    with _faults(source):
        for batch in scanner.to_batches():
            yield pa.Table.from_batches([batch])


@contextlib.contextmanager
def opened(source: Location, version: int) -> Iterator[Any]:
    """A version of a data set; what Lance raises in the block names the data set.

    Raises:
        BadFileError: it cannot be read.
        StorageError: its store does not answer.
        ParameterError: the package is not there.
    """
    lance = import_lance(str(source))
    with _faults(source):
        yield lance.dataset(source.url, version=version, storage_options=lance_options(source.url, source.options))


@contextlib.contextmanager
def _faults(source: Location) -> Iterator[None]:
    """Errors of Lance as those of ours."""
    try:
        yield
    except (SemdedupError, GeneratorExit, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        ours = isinstance(error, (OSError, ValueError, RuntimeError, pa.ArrowException))
        if not ours and type(error).__name__ != "PanicException":  # of Rust, and no Exception
            raise
        if isinstance(error, OSError) and (error.errno is not None or is_passing(error)):
            raise source.fault("read", error) from error
        reason = (str(error) or type(error).__name__).splitlines()[0][:300]
        raise BadFileError(f"the Lance data set {source} cannot be read: {reason}") from error


def import_lance(what: str) -> Any:
    """The package `lance`. Raises a `ParameterError` with what to install."""
    try:
        import lance
    except ImportError:
        raise ParameterError(f"{what} is Lance, which needs pylance: {pip_install('lance')}") from None
    return lance


def row_bytes(fields: Sequence[pa.Field]) -> int:
    """Bytes of a row of these columns, as far as their types tell."""
    return sum(_bytes_of(field.type) for field in fields) or 1


def _bytes_of(kind: pa.DataType) -> int:
    if pa.types.is_fixed_size_list(kind):
        return max(1, kind.list_size) * _bytes_of(kind.value_type)
    if pa.types.is_nested(kind):
        return LIST_BYTES
    try:
        return max(1, kind.bit_width // 8)
    except ValueError:
        return OTHER_BYTES


def _there(dataset: Any, columns: Sequence[str] | None) -> list[str]:
    found = [name for name in dataset.schema.names if columns is None or name in columns]
    if columns is not None and not found:
        raise BadFileError(
            f"the Lance data set {dataset.uri} has none of the columns {', '.join(columns)}; "
            f"it has {', '.join(dataset.schema.names)}"
        )
    return found
