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

_PLAIN = ("n_rows", "task_bytes", "skipped", "n_sample_parts", "embedders", "casts")


@dataclass(frozen=True)
class Plan:
    """What is decided before the first row is read; kept in the scratch folder, so that a resumed run decides alike."""

    schema: InputSchema
    partitions: tuple[Partition, ...]
    n_rows: int
    task_bytes: int
    skipped: tuple[str, ...]
    n_sample_parts: int
    embedders: tuple[str, ...] = ()
    casts: tuple[str, ...] = ()

    def to_json(self, files: Sequence[FileInfo], scratch: Location) -> dict[str, Any]:
        """As JSON values. A slice names its file by the position in the input, so that both may be moved.

        Args:
            files: the input.
            scratch: the folder that what is not Parquet was converted in.
        """
        positions = {source_of(file): position for position, file in enumerate(files)}
        start = len(scratch.url) + 1
        partitions = [
            [
                [positions[s.source], s.url[start:] if s.url != s.source else "", s.start, s.stop, s.first]
                for s in partition
            ]
            for partition in self.partitions
        ]
        rest = {name: getattr(self, name) for name in _PLAIN}
        return {"schema": self.schema.to_json(), "partitions": partitions, **rest}

    @classmethod
    def from_json(
        cls, options: InputOptions, value: dict[str, Any], files: Sequence[FileInfo], scratch: Location
    ) -> Plan:
        """The reverse of `to_json`."""

        def slice_of(position: int, converted: str, *rows: int) -> Slice:
            source = source_of(files[position])
            return Slice(scratch.below(converted).url if converted else source, source, *rows)

        partitions = tuple(tuple(slice_of(*piece) for piece in partition) for partition in value.pop("partitions"))
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


def make_plan(
    files: Sequence[FileInfo],
    facts: Sequence[FileFacts],
    skipped: Sequence[str],
    inputs: InputOptions,
    kmeans: KMeansOptions,
    n_slots: int,
    task_memory: int,
) -> Plan:
    """Cut the files into partitions, and decide on the sample, for `n_slots` threads of `task_memory` bytes each.

    Args:
        files: the input.
        facts: of those of them that can be used.
        skipped: what is wrong with the others.
    """
    n_rows, n_values = sum(file.n_rows for file in facts), sum(file.n_values for file in facts)
    task_bytes = sizes.bytes_per_partition(n_slots, task_memory, 4 * n_values)
    most_bytes = sizes.bytes_per_task(n_slots, task_memory, 4 * n_values)
    n_clusters = kmeans.k_for(n_rows)
    sample_bytes = 4 * n_values * sample_size(n_rows, n_clusters, kmeans.fit_data_fraction) // n_rows
    return Plan(
        schema=unify_schemas(facts, inputs, top_of(files)).below(files),
        partitions=tuple(cut_partitions(facts, task_bytes // 4, inputs.files_per_partition, most_bytes // 4)),
        n_rows=n_rows,
        task_bytes=task_bytes,
        skipped=tuple(skipped),
        n_sample_parts=n_slots * max(1, -(-sample_bytes // (task_bytes * n_slots))),  # as many for each thread
        embedders=tuple(embedders_of(facts)),
        casts=tuple(casts_in_words(facts, inputs)),
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
