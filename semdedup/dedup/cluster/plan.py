"""What the clustering decides before the first row is read, and what it refuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from semdedup.dedup import sizes
from semdedup.dedup.base.update import Base
from semdedup.dedup.cluster.shuffle import cluster_schema
from semdedup.dedup.input.convert import source_of
from semdedup.dedup.input.facts import FileFacts
from semdedup.dedup.input.found import top_of
from semdedup.dedup.input.partitions import Partition, Slice, cut_partitions
from semdedup.dedup.input.schema import InputSchema, casts_in_words, embedders_of, unify_schemas
from semdedup.dedup.input.usable import first_usable_files
from semdedup.dedup.kernels.kmeans import sample_size
from semdedup.dedup.options import InputOptions, KMeansOptions
from semdedup.dedup.ranking import RankingStrategy, check_rankable
from semdedup.errors import InputError
from semdedup.storage.location import FileInfo, Location

_PLAIN = ("n_rows", "task_bytes", "skipped", "n_sample_parts", "embedders", "casts", "other_bytes", "most_bytes")
FORMAT = 2
"""Of a plan on disk. One of another format is made anew."""


@dataclass(frozen=True)
class Plan:
    """What is decided before the first row is read; kept in the scratch folder, so that a resumed run decides alike.

    Attributes:
        task_bytes: what a task is given to hold, see `sizes.held_bytes`.
        other_bytes: bytes of a row beside its embedding, on average.
        most_bytes: bytes of the largest partition, but where a row has more.
    """

    schema: InputSchema
    partitions: tuple[Partition, ...]
    n_rows: int
    task_bytes: int
    skipped: tuple[str, ...]
    n_sample_parts: int
    embedders: tuple[str, ...] = ()
    casts: tuple[str, ...] = ()
    other_bytes: float = 0.0
    most_bytes: int = 0

    def rows_per_task(self, dim: int) -> int:
        """Rows of `dim` elements that a task holds."""
        return sizes.rows_per_task(self.task_bytes, dim, self.other_bytes)

    def row_bytes(self, dim: int) -> float:
        """Bytes of a row of `dim` elements, as they are held, on average."""
        return sizes.held_bytes(1, dim) + self.other_bytes

    def to_json(self, files: Sequence[FileInfo], scratch: Location) -> dict[str, Any]:
        """As JSON values. A slice names its file by the position in the input, so that both may be moved.

        Slices stand column by column, without what is alike for all: a partition may have thousands of small files.

        Args:
            files: the input.
            scratch: the folder that what is not Parquet was converted in.
        """
        positions = {source_of(file): position for position, file in enumerate(files)}
        start = len(scratch.url) + 1
        partitions = [
            _shortened(
                {
                    "file": [positions[piece.source] for piece in partition],
                    "made": [piece.url[start:] if piece.url != piece.source else "" for piece in partition],
                    **{name: [getattr(piece, name) for piece in partition] for name in _ROWS},
                }
            )
            for partition in self.partitions
        ]
        rest = {name: getattr(self, name) for name in _PLAIN}
        return {"format": FORMAT, "schema": self.schema.to_json(), "partitions": partitions, **rest}

    @classmethod
    def from_json(
        cls, options: InputOptions, value: dict[str, Any], files: Sequence[FileInfo], scratch: Location
    ) -> Plan | None:
        """The reverse of `to_json`; None for a plan of another version."""
        if value.pop("format", None) != FORMAT:
            return None

        def slice_of(position: int, made: str, *rows: int) -> Slice:
            source = source_of(files[position])
            return Slice(scratch.below(made).url if made else source, source, *rows)

        columns = (_whole(partition) for partition in value.pop("partitions"))
        partitions = tuple(tuple(map(slice_of, *found)) for found in columns)
        value |= {name: tuple(value[name]) for name in ("skipped", "embedders", "casts") if name in value}
        schema = InputSchema.from_json(options, value.pop("schema")).below(files)
        return cls(schema=schema, partitions=partitions, **value)

    def without(self, bad: Mapping[str, str]) -> Plan:
        """The plan without these files, by source, each with what is wrong with it.

        Raises:
            InputError: nothing is left.
        """
        kept = [tuple(piece for piece in partition if piece.source not in bad) for partition in self.partitions]
        partitions = tuple(partition for partition in kept if partition)
        if not partitions:
            raise InputError(f"no rows are left: every file was skipped; the first: {next(iter(bad.values()))}")
        n_rows = sum(piece.stop - piece.start for partition in partitions for piece in partition)
        return replace(self, partitions=partitions, n_rows=n_rows, skipped=(*self.skipped, *bad.values()))


_ROWS = ("start", "stop", "first", "row_bytes")
_COLUMNS = ("file", "made", *_ROWS)
"""What is known of a slice on disk: the number of the file, the file made of it, and rows."""


def _shortened(columns: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Columns of the same length, of which those of one value in all rows are that value."""
    return {name: values[0] if len({*values}) == 1 else list(values) for name, values in columns.items()}


def _whole(columns: Mapping[str, Any]) -> list[list[Any]]:
    """The reverse of `_shortened`, without the names, in the order of `_COLUMNS`."""
    n = max((len(values) for values in columns.values() if isinstance(values, list)), default=1)
    found = (columns[name] for name in _COLUMNS)
    return [values if isinstance(values, list) else [values] * n for values in found]


def plan_on_disk(place: Location, inputs: InputOptions, files: Sequence[FileInfo]) -> Plan | None:
    """The plan that an earlier run has left in its scratch folder, if there is one that can be used."""
    return Plan.from_json(inputs, place.read_json(), files, place.parent) if place.exists() else None


def make_plan(
    files: Sequence[FileInfo],
    facts: Sequence[FileFacts],
    skipped: Sequence[str],
    inputs: InputOptions,
    kmeans: KMeansOptions,
    n_slots: int,
    task_memory: int,
    is_local: bool = True,
    device_memory: int | None = None,
) -> Plan:
    """Cut the files into partitions, and decide on the sample, for `n_slots` threads of `task_memory` bytes each.

    Args:
        files: the input.
        facts: of those of them that can be used.
        skipped: what is wrong with the others.
        is_local: whether the files are. What is fetched from a store is cut only where it does not fit into a task.
        device_memory: of a GPU, if tasks have one, bytes for each. Partitions are as large as a task then, whatever
            their number, for it is quicker with many rows; and row groups are cut only where they do not fit there.
    """
    n_rows, n_values = sum(file.n_rows for file in facts), sum(file.n_values for file in facts)
    n_bytes = sum(file.n_bytes for file in facts)
    of_partition = sizes.bytes_per_partition if device_memory is None else sizes.bytes_per_task
    task_bytes = of_partition(n_slots, task_memory, n_bytes)
    most_bytes = sizes.bytes_uncut(n_slots, task_memory, n_bytes)
    if not is_local:
        most_bytes = sizes.most_bytes_per_task(task_memory)
    elif device_memory is not None:
        most_bytes = sizes.most_of_rows(task_memory, device_memory)
    n_clusters = kmeans.k_for(n_rows)
    sample_bytes = 4 * n_values * sample_size(n_rows, n_clusters, kmeans.fit_data_fraction) // n_rows
    return Plan(
        schema=unify_schemas(facts, inputs, top_of(files)).below(files),
        partitions=tuple(cut_partitions(facts, task_bytes, inputs.files_per_partition, most_bytes)),
        n_rows=n_rows,
        task_bytes=task_bytes,
        skipped=tuple(skipped),
        n_sample_parts=n_slots * max(1, -(-sample_bytes // (task_bytes * n_slots))),  # as many for each thread
        embedders=tuple(embedders_of(facts)),
        casts=tuple(casts_in_words(facts, inputs)),
        other_bytes=sum(file.other_bytes for file in facts) / n_rows,
        most_bytes=most_bytes,
    )


def check_embedding_files(
    files: Sequence[FileInfo],
    source: Location,
    inputs: InputOptions,
    ranked_by: RankingStrategy | None = None,
    base: Base | None = None,
) -> None:
    """Refuse on the client, before a cluster is started, what the first files show to be wrong.

    All files are looked at by the workers later; a small input is judged here already.
    """
    usable, every = first_usable_files(files, source, inputs)
    if ranked_by is not None:
        for file in usable:
            schema = pa.ipc.read_schema(pa.py_buffer(file.schema))
            carried = pa.schema([field for field in schema if field.name in inputs.metadata_fields])
            check_rankable(carried, ranked_by, file.source, complete=False)
    if every:
        check_ranking(unify_schemas(usable, inputs, top_of(files)), ranked_by)
    if base is not None and usable:
        schema = unify_schemas(usable, replace(inputs, metadata_fields=()))
        base.check_rows(cluster_schema(schema), embedders_of(usable), _lengths(usable))


def _lengths(facts: Sequence[FileFacts]) -> set[int]:
    """Lengths of the embeddings of files whose footers tell it; none where one does not."""
    found = set()
    for file in facts:
        if not file.n_values or file.n_values % file.n_rows:
            return set()
        found.add(file.n_values // file.n_rows)
    return found


def check_ranking(schema: InputSchema, ranked_by: RankingStrategy | None) -> None:
    """Raise a `ParameterError` unless clusters of this input can be ranked so."""
    if ranked_by is not None:
        check_rankable(cluster_schema(schema), ranked_by, "the table of clusters")
