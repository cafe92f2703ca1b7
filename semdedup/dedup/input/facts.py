"""What the footers of Parquet files say: rows, elements and columns, before a row is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from semdedup.compute.session import Session
from semdedup.dedup import sizes
from semdedup.dedup.input.columns import storage_of
from semdedup.errors import BadFileError
from semdedup.storage.faults import repeated
from semdedup.storage.location import FileInfo, Location
from semdedup.storage.tables import iter_groups, open_parquet

FOR_A_ROW = {"pre_buffer": False, "buffer_size": 1 << 16}
"""How files are opened of which hardly a row is read."""

GROUPS_ASKED = 16
"""Row groups of a file that are asked how many elements they hold; of more, some are."""


@dataclass(frozen=True)
class FileFacts:
    """What the footer of a Parquet file says.

    Attributes:
        url: where it is.
        source: the file that the user gave: the same, or the JSON Lines file that it was made from.
        n_rows: rows.
        n_values: elements of all embeddings together; of a file of many row groups, as some of these have them.
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
            facts.append(_facts_of(location, source, embedding_field))
        except BadFileError as error:
            if not skip_bad_files:
                raise
            bad.append(str(error))
    return facts, bad


@repeated
def _facts_of(location: Location, source: str, embedding_field: str) -> FileFacts:
    with open_parquet(location, FOR_A_ROW) as file:
        n_rows, schema = file.metadata.num_rows, file.schema_arrow
        n_values = round(_values_per_row(file, embedding_field) * n_rows)
        return FileFacts(location.url, source, n_rows, n_values, schema.serialize().to_pybytes())


def _values_per_row(file: pq.ParquetFile, name: str) -> float:
    """Elements of an embedding on average, by the type of the column or by what the footer says of it.

    PyArrow ends the process where a damaged footer is asked for a column chunk. To read a row of that chunk raises an
    error in the same case, and makes it safe to ask.
    """
    names = file.schema_arrow.names
    found = storage_of(file.schema_arrow.field(names.index(name)).type) if name in names else pa.null()
    if pa.types.is_fixed_size_list(found):
        return float(found.list_size)
    if not pa.types.is_nested(found):
        return 0.0
    metadata = file.metadata
    leaves = [i for i in range(metadata.num_columns) if f"{metadata.schema.column(i).path}.".startswith(f"{name}.")]
    n_rows = n_values = 0
    for group in range(0, metadata.num_row_groups, max(1, metadata.num_row_groups // GROUPS_ASKED)):
        if metadata.row_group(group).num_rows:
            next(iter_groups(file, [group], [name], 1), None)
            n_rows += metadata.row_group(group).num_rows
            n_values += sum(metadata.row_group(group).column(leaf).num_values for leaf in leaves)
    return n_values / max(1, n_rows)


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
