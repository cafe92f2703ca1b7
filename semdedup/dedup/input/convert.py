"""What is not Parquet is converted first, by the workers into scratch: all that follows reads Parquet only."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import pyarrow as pa

from semdedup.dedup import sizes
from semdedup.dedup.input import arrow, jsonl, lance
from semdedup.dedup.input.arrow import ArrowBlock
from semdedup.dedup.input.datasets import kind_of, lance_place
from semdedup.dedup.input.jsonl import JsonlBlock
from semdedup.dedup.input.lance import LanceBlock
from semdedup.dedup.options import InputOptions
from semdedup.errors import InputError
from semdedup.storage.location import FileInfo, Location
from semdedup.storage.tables import iter_rows, open_parquet, write_batches

Block = JsonlBlock | LanceBlock | ArrowBlock
"""A part of the input of bounded size, and the Parquet file that it becomes."""


def is_converted(file: FileInfo, filetype: str) -> bool:
    """Whether a file of the input is read as something else than Parquet."""
    return kind_of(file.url, filetype) != "parquet"


def blocks_of(
    files: Sequence[FileInfo], root: Location, target: Location, inputs: InputOptions
) -> tuple[list[Block], dict[str, str]]:
    """The blocks of the files that are converted, each with a Parquet file of its own below `target`.

    Of Lance, the client reads how many rows each fragment has. The other result are the data sets whose fault is seen
    by that, where bad files are skipped, by URL.
    """
    filetype = inputs.input_filetype

    def of(kind: str) -> list[FileInfo]:
        return [file for file in files if kind_of(file.url, filetype) == kind]

    of_lance, bad = lance.lance_blocks(of("lance"), root, inputs.columns, target / "lance", inputs.skip_bad_files)
    of_jsonl = jsonl.jsonl_blocks(of("jsonl"), root, target / "jsonl")
    return [*of_jsonl, *of_lance, *arrow.arrow_blocks(of("arrow"), root, target / "arrow")], bad


def convert_block(columns: Sequence[str], block: Block) -> None:
    """Write the named columns of a block as a Parquet file.

    Raises:
        BadFileError: it cannot be read.
    """
    if isinstance(block, JsonlBlock):
        jsonl.convert_block(columns, block)
        return
    reading = (
        lance.reading_lance(columns, block) if isinstance(block, LanceBlock) else arrow.reading_arrow(columns, block)
    )
    with reading as (schema, tables):
        write_batches(block.target, schema.remove_metadata(), (table.replace_schema_metadata(None) for table in tables))


def look_at(file: FileInfo, root: Location, filetype: str, columns: Sequence[str]) -> tuple[pa.Schema, int] | None:
    """The named columns that a file has, with their types, and rows; None where telling would be a long reading.

    The rows are as many as there are, or at least one where there are some.
    """
    kind = kind_of(file.url, filetype)
    if kind == "lance":
        return lance.lance_schema(file, root, columns)
    if kind == "arrow":
        return arrow.arrow_schema(file, root, columns)
    if file.n_bytes > sizes.JSONL_BYTES_CHECKED_FIRST:
        return None
    tables = [jsonl.read_block(columns, block) for block in jsonl.jsonl_blocks([file], root, root)]
    return (tables[0].schema, len(tables[0])) if tables else (pa.schema([]), 0)


@contextlib.contextmanager
def reading_rows(
    file: FileInfo, root: Location, filetype: str = "parquet"
) -> Iterator[tuple[pa.Schema, Iterator[pa.Table]]]:
    """The schema and the rows of a whole file with all its columns, a few at a time.

    Of JSON Lines each table has the columns of its lines, and the schema is that of all, which takes a reading more.

    Raises:
        BadFileError: it cannot be read.
    """
    kind = kind_of(file.url, filetype)
    if kind == "lance":
        with lance.reading_whole(file, root) as found:
            yield found
    elif kind == "arrow":
        with arrow.reading_arrow(None, ArrowBlock(root.at(file.url), root)) as found:
            yield found
    elif kind == "jsonl":
        blocks = jsonl.jsonl_blocks([file], root, root)
        schemas = [jsonl.read_block(None, block).schema for block in blocks]
        together = pa.unify_schemas(schemas, promote_options="permissive") if schemas else pa.schema([])
        yield together, (jsonl.read_block(None, block) for block in blocks)
    else:
        with open_parquet(root.at(file.url)) as parquet:
            yield parquet.schema_arrow, iter_rows(parquet, parquet.schema_arrow.names)


def source_of(file: FileInfo) -> str:
    """What a file of the input is called: for a Lance data set its folder."""
    return lance_place(file.url)[0] if kind_of(file.url, "") == "lance" else file.url


def refuse_converted(files: Sequence[FileInfo], what: str) -> None:
    """Refuse the kinds that only become Parquet in a dedup, where Parquet is needed at once.

    Raises:
        InputError: naming the first one.
    """
    for file in files:
        if is_converted(file, "parquet"):
            raise InputError(f"{what} reads Parquet; {source_of(file)} is not. Write its embeddings as Parquet first.")
