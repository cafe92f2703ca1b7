"""The two sets: where their embeddings are, and whether they can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from semdedup.dedup.input.facts import FileFacts
from semdedup.dedup.input.schema import InputSchema, check_file_schema, embedders_of, unify_schemas
from semdedup.dedup.options import InputOptions
from semdedup.errors import InputError
from semdedup.storage.location import FileInfo, Location


class Embeddings(NamedTuple):
    """One of the two sets: its files, their storage, and the name to tell the user."""

    files: Sequence[FileInfo]
    source: Location
    name: str


def check_sets(
    a: Sequence[FileFacts], b: Sequence[FileFacts], a_name: str, b_name: str, fields: InputOptions
) -> InputSchema:
    """The columns of both sets, after checking that they can be compared.

    Raises:
        BadFileError: a column is missing or of the wrong type, or ids are text here and numbers there.
        InputError: the sets were embedded by different embedders.
    """
    for file in {file.schema: file for file in (*a, *b)}.values():
        check_file_schema(pa.ipc.read_schema(pa.py_buffer(file.schema)), file.source, fields)
    embedders = embedders_of([*a, *b])
    if len(embedders) > 1:
        found = "; ".join(f"{source} is of {name!r}" for name, source in embedders.items())
        raise InputError(
            f"the embeddings of {a_name} and {b_name} are of different embedders and cannot be compared: {found}. "
            "Embed one of the sets again: semdedup embed."
        )
    return unify_schemas([*a, *b], fields)
