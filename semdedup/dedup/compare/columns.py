"""What columns clusters must have, and how they are read."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pyarrow as pa

from semdedup.dedup.input.facts import Counted, FileFacts, inspect_first
from semdedup.dedup.input.schema import InputSchema, check_file_schema, unify_schemas
from semdedup.dedup.options import FieldOptions, InputOptions, RankedOptions
from semdedup.dedup.ranking import DISTANCE_COLUMNS, RankingStrategy, check_rankable
from semdedup.errors import BadFileError
from semdedup.settings import settings_of
from semdedup.storage.location import FileInfo, Location


def check_cluster_files(
    files: Sequence[FileInfo], source: Location, fields: InputOptions, strategy: RankingStrategy
) -> None:
    """Refuse on the client, before a cluster is started, what the footers of the first files show to be wrong."""
    check_columns(inspect_first(files, source, counted_of(fields, strategy)), fields, strategy)


def counted_of(fields: FieldOptions, strategy: RankingStrategy) -> Counted:
    """The columns of clusters whose bytes are counted: what is compared and what ranks."""
    return Counted.of(fields, strategy.columns)


def check_columns(facts: Sequence[FileFacts], fields: InputOptions, strategy: RankingStrategy) -> InputSchema:
    """How clusters are read, after checking that all files have the columns that are compared and ranked by.

    Raises:
        BadFileError: a column is missing, there twice, or of a type that cannot be used or differs between files.
        ParameterError: a column that ranks is missing or has no order.
    """
    facts = [file for file in facts if file.n_rows]
    parsed = [
        (pa.ipc.read_schema(pa.py_buffer(file.schema)), file.source)
        for file in {file.schema: file for file in facts}.values()
    ]
    names = {name for schema, _ in parsed for name in schema.names}
    given = {one.attribute: getattr(fields, one.attribute) for one in settings_of(InputOptions)}
    ours = {"id_field": _own_name(fields.id_field, "id", names),
            "embedding_field": _own_name(fields.embedding_field, "embedding", names)}  # fmt: skip
    ranked_by = [name for name in strategy.among(names) if name not in ours.values()]
    wanted = RankedOptions(**{**given, **ours, "metadata_fields": ranked_by})
    for schema, source in parsed:
        check_file_schema(schema, source, wanted)
        check_rankable(schema, strategy, source)
        _check_distances(schema, strategy, source)
    return unify_schemas(facts, wanted)


def _check_distances(schema: pa.Schema, strategy: RankingStrategy, source: str) -> None:
    """Refuse distances to the centroid that are no numbers: text would be ranked by the alphabet."""
    for name in set(strategy.columns) & {*DISTANCE_COLUMNS.values()}:
        if not pa.types.is_floating(schema.field(name).type):
            raise BadFileError(
                f"the column {name!r} of {source} is {schema.field(name).type}; distances must be float16, float32 or "
                "float64. Write them as numbers, or rank by something else: which_to_keep='random'."
            )


def _own_name(wanted: str | None, ours: str, names: Collection[str]) -> str | None:
    """`KMeansStage` calls its columns ``id`` and ``embedding``, whatever they were called in its input."""
    return ours if wanted not in names and ours in names else wanted
