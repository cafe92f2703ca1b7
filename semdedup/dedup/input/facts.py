"""What the footers of Parquet files say: rows, elements and columns, before a row is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from semdedup.compute.session import Session
from semdedup.dedup import sizes
from semdedup.errors import BadFileError
from semdedup.storage.location import FileInfo, Location
from semdedup.storage.tables import open_parquet


@dataclass(frozen=True)
class FileFacts:
    """What the footer of a Parquet file says.

    Attributes:
        url: where it is.
        source: the file that the user gave: the same, or the JSON Lines file that it was made from.
        n_rows: rows.
        n_values: elements of all embeddings together.
        schema: columns and types, serialised; files mostly share one.
    """

    url: str
    source: str
    n_rows: int
    n_values: int
    schema: bytes


def inspect_files(
    embedding_field: str, skip_bad_files: bool, files: Sequence[tuple[Location, str]]
) -> tuple[list[FileFacts], list[str]]:
    """Read the footers of some files; return their facts and the reasons of those that cannot be read."""
    facts, bad = [], []
    for location, source in files:
        try:
            with open_parquet(location) as file:
                metadata, schema = file.metadata, file.schema_arrow
                leaves = [i for i in range(metadata.num_columns) if _root(metadata, i) == embedding_field]
                groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
                n_values = sum(group.column(leaf).num_values for group in groups for leaf in leaves)
                serialised = schema.serialize().to_pybytes()
                facts.append(FileFacts(location.url, source, metadata.num_rows, n_values, serialised))
        except BadFileError as error:
            if not skip_bad_files:
                raise
            bad.append(str(error))
    return facts, bad


def inspect_all(
    session: Session,
    files: Sequence[tuple[Location, str]],
    embedding_field: str,
    skip_bad_files: bool = False,
    name: str = "inspect files",
) -> tuple[list[FileFacts], list[str]]:
    """`inspect_files` on the workers, many files at a time; facts are in the order of the files."""
    groups = [files[i : i + sizes.FILES_PER_INSPECTION] for i in range(0, len(files), sizes.FILES_PER_INSPECTION)]
    inspect = partial(inspect_files, embedding_field, skip_bad_files)
    found = sorted(session.run(name, inspect, groups, unit="groups"), key=lambda pair: pair[0])
    return [file for _, (facts, _) in found for file in facts], [why for _, (_, bad) in found for why in bad]


def inspect_first(files: Sequence[FileInfo], source: Location, embedding_field: str) -> list[FileFacts]:
    """`inspect_files` of the first files, here: what is wrong is refused before there are workers."""
    first = [(source.at(file.url), file.url) for file in files[: sizes.FILES_CHECKED_FIRST]]
    return inspect_files(embedding_field, False, first)[0]


def _root(metadata: Any, leaf: int) -> str:
    return metadata.schema.column(leaf).path.split(".")[0]
