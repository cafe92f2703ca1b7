"""The clips of the rows that remain, copied beside their metadata as a folder of videos is laid out."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa

from semdedup.errors import InputError, ParameterError
from semdedup.shards.inputs import Inputs, find_inputs
from semdedup.storage.location import Location
from semdedup.video.tree import ANNOTATION_VERSION

FILE_NAME = "file_name"
"""The column by which Hugging Face's VideoFolder knows the file of a row."""

COPIES_IN_FLIGHT = 8


@dataclass(frozen=True)
class Clips:
    """The clips of a folder, by id. Memory: a path for each.

    Attributes:
        inputs: as `shard` finds them.
        by_id: relative path of each.
    """

    inputs: Inputs
    by_id: dict[str, str]

    @classmethod
    def of(cls, path: Location, output: Location) -> Clips:
        """Find the clips of a folder. Raises `InputError` where there are none."""
        inputs = find_inputs(path, output, ANNOTATION_VERSION, False)
        start = len(inputs.folder.url.rstrip("/")) + 1
        return cls(inputs, {inputs.id_of(clip.url): clip.url[start:] for clip in inputs.clips})

    def schema(self, rows: pa.Schema) -> pa.Schema:
        """The columns of rows with the file of each."""
        if FILE_NAME in rows.names:
            raise ParameterError(f"the input has a column {FILE_NAME!r}, which names the file of a clip; rename it")
        return pa.schema([pa.field(FILE_NAME, pa.string()), *rows])

    def copied(self, tables: Iterator[pa.Table], id_field: str, target: Location) -> Iterator[pa.Table]:
        """Copy the clips of rows below a folder, and give the rows with the names of their files.

        Raises:
            InputError: a row has no clip.
        """
        with ThreadPoolExecutor(COPIES_IN_FLIGHT) as pool:
            for table in tables:
                ids = [str(row_id) for row_id in table.column(id_field).to_pylist()]
                absent = [row_id for row_id in ids if row_id not in self.by_id]
                if absent:
                    raise InputError(
                        f"{len(absent):,} rows that stay have no clip in {self.inputs.folder}, such as {absent[0]!r}"
                    )
                names = [self.by_id[row_id] for row_id in ids]
                list(pool.map(lambda name: self._copy(name, target), names))
                files = pa.array([f"clips/{name}" for name in names], pa.string())
                yield table.add_column(0, FILE_NAME, files)

    def _copy(self, name: str, target: Location) -> None:
        with (target / "clips" / name).writing() as path:
            (self.inputs.folder / name).fetch(path)
