"""The clips of the rows that remain, copied beside their metadata as a folder of videos is laid out."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from semdedup.errors import InputError, ParameterError
from semdedup.shards.clip_columns import column_digests
from semdedup.shards.inputs import Inputs, find_inputs
from semdedup.storage.digests import are_among, digests
from semdedup.storage.location import Location
from semdedup.video.tree import ANNOTATION_VERSION

FILE_NAME = "file_name"
"""The column by which Hugging Face's VideoFolder knows the file of a row."""

COPIES_IN_FLIGHT = 8


@dataclass(frozen=True)
class Clips:
    """The clips of a folder, by id. Memory: their list, and 24 bytes a clip.

    Attributes:
        inputs: as `shard` finds them.
        digests: of their ids, (n,) S16, in ascending order.
        positions: of these in the list of clips, (n,) int64.
    """

    inputs: Inputs
    digests: np.ndarray
    positions: np.ndarray

    @classmethod
    def of(cls, path: Location, output: Location) -> Clips:
        """Find the clips of a folder. Raises `InputError` where there are none."""
        inputs = find_inputs(path, output, ANNOTATION_VERSION, False)
        found = column_digests(inputs.ids())
        order = np.argsort(found)
        return cls(inputs, found[order], order)

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
            start = len(self.inputs.folder.url.rstrip("/")) + 1
            for table in tables:
                ids = [str(row_id) for row_id in table.column(id_field).to_pylist()]
                asked = digests(ids)
                there = are_among(asked, self.digests)
                absent = [row_id for row_id, is_there in zip(ids, there.tolist(), strict=True) if not is_there]
                if absent:
                    raise InputError(
                        f"{len(absent):,} rows that stay have no clip in {self.inputs.folder}, such as {absent[0]!r}"
                    )
                clips = self.inputs.clips.take(self.positions[np.searchsorted(self.digests, asked)])
                names = [url[start:] for url in clips.urls()]
                list(pool.map(lambda name: self._copy(name, target), names))
                files = pa.array([f"clips/{name}" for name in names], pa.string())
                yield table.add_column(0, FILE_NAME, files)

    def _copy(self, name: str, target: Location) -> None:
        with (target / "clips" / name).writing() as path:
            (self.inputs.folder / name).fetch(path)
