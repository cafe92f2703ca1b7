"""JSON Lines in, Parquet out: everything after this step reads Parquet only."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.json

from semdedup.errors import BadFileError
from semdedup.storage.location import FileInfo, Location
from semdedup.storage.tables import CORRUPT, write_table

BLOCK_BYTES = 32 << 20


@dataclass(frozen=True)
class JsonlBlock:
    """Bytes [start, stop) of a file, to be written as the Parquet file `target`. Lines belong where they begin."""

    source: Location
    n_bytes: int
    start: int
    stop: int
    target: Location


def jsonl_blocks(files: Sequence[FileInfo], root: Location, target: Location) -> list[JsonlBlock]:
    """Cut files into blocks of bounded size, each with a Parquet file to be written below `target`."""
    blocks: list[JsonlBlock] = []
    for file in files:
        for start in range(0, file.n_bytes, BLOCK_BYTES):
            stop = min(start + BLOCK_BYTES, file.n_bytes)
            name = f"{len(blocks):08d}.parquet"
            blocks.append(JsonlBlock(root.at(file.url), file.n_bytes, start, stop, target / name))
    return blocks


def convert_block(columns: Sequence[str], block: JsonlBlock) -> None:
    """Write what `read_block` reads as a Parquet file."""
    write_table(block.target, read_block(columns, block))


def read_block(columns: Sequence[str] | None, block: JsonlBlock) -> pa.Table:
    """Read named columns, or all, of the lines that begin in a block. Memory: about four times the bytes of the block.

    Raises:
        BadFileError: a line is not a JSON object; the message names the file and the bytes.
    """
    lines = _lines_of(block)
    try:
        table = _parse(lines)
        kept = table if columns is None else table.select([name for name in columns if name in table.column_names])
        kept.validate(full=True)  # the parser takes bytes for text that are none
    except CORRUPT as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise BadFileError(
            f"the file {block.source} cannot be read as JSON Lines, bytes {block.start} to {block.stop}: {reason}"
        ) from error
    if columns is not None and not kept.num_columns and len(table):
        raise BadFileError(
            f"the file {block.source} has none of the columns {', '.join(columns)}; "
            f"it has {', '.join(table.column_names)}"
        )
    return kept


def _lines_of(block: JsonlBlock) -> bytes:
    """The lines whose first byte is in the block; the last of them may end beyond it."""
    data = block.source.read_bytes(max(block.start - 1, 0), block.stop)
    if block.start > 0:  # the byte before the block tells whether a line begins with it
        cut = data.find(b"\n")
        if cut < 0:
            return b""
        data = data[cut + 1 :]
    position = block.stop
    if not data and position < block.n_bytes:
        return b""
    while position < block.n_bytes and not data.endswith(b"\n"):
        more = block.source.read_bytes(position, min(position + (1 << 20), block.n_bytes))
        line_end = more.find(b"\n")
        if line_end >= 0:
            return data + more[: line_end + 1]
        data += more
        position += len(more)
    return data


def _parse(lines: bytes) -> pa.Table:
    if not lines.strip():
        return pa.table({})
    options = pa.json.ReadOptions(use_threads=False, block_size=max(len(lines) + 1, 1 << 16))
    table = pa.json.read_json(io.BytesIO(lines), read_options=options)
    meant = [(field.name, _meant(field.type)) for field in table.schema if _meant(field.type) != field.type]
    if meant:
        parsing = pa.json.ParseOptions(explicit_schema=pa.schema(meant), unexpected_field_behavior="infer")
        table = pa.json.read_json(io.BytesIO(lines), read_options=options, parse_options=parsing)
    return table


def _meant(found: pa.DataType) -> pa.DataType:
    """The type that is meant where the parser takes values for another.

    Text that looks like a date stays text: an id "2024-01-01" is no point in time. JSON writes 1.0 as 1: lists of
    whole numbers, or of nulls only, become lists of float64.
    """
    if pa.types.is_timestamp(found):
        return pa.string()
    if pa.types.is_list(found) and (pa.types.is_integer(found.value_type) or pa.types.is_null(found.value_type)):
        return pa.list_(pa.float64())
    return found
