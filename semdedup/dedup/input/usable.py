"""Which files of the input can be used: those that can be read, have rows, and have columns of the right types."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NoReturn

import pyarrow as pa

from semdedup.dedup import sizes
from semdedup.dedup.input.columns import is_fp16_bits
from semdedup.dedup.input.convert import blocks_of, convert_block, is_converted, look_at, source_of
from semdedup.dedup.input.facts import Counted, FileFacts, inspect_files
from semdedup.dedup.input.packed import Found, Packing, inspect_and_pack
from semdedup.dedup.input.schema import check_file_schema
from semdedup.dedup.options import InputOptions
from semdedup.errors import BadFileError, InputError
from semdedup.runs.run import Run
from semdedup.storage.location import FileInfo, Location

LARGE = 1 << 40
"""In place of the size of a file that is not put together with others, for it was made for this run."""


def usable_files(
    run: Run, files: Sequence[FileInfo], source: Location, inputs: InputOptions
) -> tuple[list[FileFacts], list[str]]:
    """Facts of all files that can be read and have rows, in the order of the files, and the faults of the others."""
    blocks, bad_sources = blocks_of(files, source, run.scratch / "converted", inputs)
    if blocks:
        convert = partial(_convert, inputs.skip_bad_files, inputs.columns)
        for entry in run.each(
            "convert to Parquet", convert, blocks, unit="blocks", label=lambda block: str(block.source)
        ):
            if entry.result["bad"]:
                bad_sources.setdefault(blocks[int(entry.key)].source.url, entry.result["bad"])
    made: dict[str, list[Found]] = {}
    for block in blocks:
        made.setdefault(block.source.url, []).append(Found(block.target, block.source.url, LARGE))
    readable: list[Found] = []
    for file in files:
        name = source_of(file)
        if not is_converted(file, inputs.input_filetype):
            readable.append(Found(source.at(file.url), file.url, file.n_bytes))
        elif name not in bad_sources:
            readable += made.get(name, [])
    packing = Packing(run.scratch / "packed", counted_of(inputs), inputs.embedding_encoding, inputs.skip_bad_files)
    facts, bad = inspect_and_pack(run.session, readable, packing)
    usable, unfit = _with_right_columns(facts, inputs)
    skipped = [*bad_sources.values(), *bad, *unfit]
    if not usable:
        _refuse_without_rows(files, skipped)
    return usable, skipped


def first_usable_files(
    files: Sequence[FileInfo], source: Location, inputs: InputOptions
) -> tuple[list[FileFacts], bool]:
    """The usable ones among the first files, looked at here before there are workers, and whether these are all.

    Raises:
        InputError: they are all, and none has rows.
    """
    first = files[: sizes.FILES_CHECKED_FIRST]
    located = [(source.at(file.url), file.url) for file in first if not is_converted(file, inputs.input_filetype)]
    facts, bad = inspect_files(counted_of(inputs), inputs.skip_bad_files, located)
    looked = 0
    for file in (file for file in first if is_converted(file, inputs.input_filetype)):
        try:
            found = look_at(file, source, inputs.input_filetype, inputs.columns)
        except BadFileError as error:
            if not inputs.skip_bad_files:
                raise
            bad.append(str(error))
            found = pa.schema([]), 0
        if found is not None:
            looked += 1
            facts.append(FileFacts("", source_of(file), found[1], 0, found[0].serialize().to_pybytes()))
    usable, unfit = _with_right_columns(facts, inputs)
    every = len(located) + looked == len(files)
    if every and not usable:
        _refuse_without_rows(files, bad + unfit)
    return usable, every


def counted_of(inputs: InputOptions) -> Counted:
    """The columns of an input whose bytes are counted: all that are read."""
    return Counted.of(inputs, inputs.carried)


def _with_right_columns(facts: Sequence[FileFacts], inputs: InputOptions) -> tuple[list[FileFacts], list[str]]:
    """The files that have rows and the right columns, and the faults of those that have not the right columns."""
    usable, skipped = [], []
    right: set[tuple[bytes, bool]] = set()
    for file in facts:
        if not file.n_rows:
            continue
        alike = file.schema, is_fp16_bits(inputs.embedding_encoding, file.source)
        try:
            if alike not in right:
                check_file_schema(pa.ipc.read_schema(pa.py_buffer(file.schema)), file.source, inputs)
            right.add(alike)
        except BadFileError as error:
            if not inputs.skip_bad_files:
                raise
            skipped.append(str(error))
        else:
            usable.append(file)
    return usable, skipped


def _refuse_without_rows(files: Sequence[FileInfo], skipped: Sequence[str]) -> NoReturn:
    paths = sorted({file.url.rsplit("/", 1)[0] for file in files}) if len(files) > 1 else [files[0].url]
    note = f" ({len(skipped)} files were skipped; the first: {skipped[0]})" if skipped else ""
    which = "it is without rows" if len(files) == 1 else f"{len(files)} files, all without rows"
    raise InputError(f"no rows in {', '.join(paths[:5])}: {which}{note}")


def _convert(skip_bad_files: bool, columns: Sequence[str], block: Any) -> dict[str, Any]:
    try:
        convert_block(columns, block)
    except BadFileError as error:
        if not skip_bad_files:
            raise
        return {"bad": str(error)}
    return {"bad": ""}
