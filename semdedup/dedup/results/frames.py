"""Tables of a result as Dask DataFrames, for those who go on from there with Dask."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from semdedup.arrays import Backend
from semdedup.dedup.base.folders import results_in
from semdedup.dedup.input.convert import refuse_converted
from semdedup.dedup.input.files import EXTENSIONS, find_files
from semdedup.dedup.input.numbered import cluster_files
from semdedup.dedup.names import SCORE, WITNESSES, find_table, label_of
from semdedup.dedup.results.checks import COLUMNS, check_columns, checked
from semdedup.dedup.results.scores import Scores
from semdedup.errors import InputError, ParameterError
from semdedup.settings.frames import Frame, frame_of
from semdedup.storage.location import FileInfo, Location, Paths, locations_of
from semdedup.storage.tables import one_batch, open_parquet, read_table

if TYPE_CHECKING:
    import dask.dataframe as dd


def read_embeddings(
    path: Paths, *, storage_options: Mapping[str, Any] | None = None, backend: Backend = "cpu"
) -> dd.DataFrame:
    """The input as a Dask DataFrame, one partition a file, columns as they are, Arrow types.

    Args:
        path: file, folder, glob or list of Parquet files.
        storage_options: for fsspec.
        backend: ``cpu`` for pandas partitions, ``gpu`` for cuDF ones, which have float16 as float32.
    """
    locations = locations_of(path, {"storage_options": storage_options})
    files = find_files(locations, "parquet")
    refuse_converted(files, "read_embeddings")
    return _frame(locations[0], files, backend)


def read_clusters(
    path: str, *, storage_options: Mapping[str, Any] | None = None, backend: Backend = "cpu"
) -> dd.DataFrame:
    """The clusters of a result, or of all results of a run, as a Dask DataFrame, with the column ``centroid``; either
    layout."""
    root = Location.of(path, storage_options)
    folders = [find_table(result, "clusters") for result in results_in(root)]
    files = [file for folder in folders for file in cluster_files(folder)]
    return _frame(root, files, backend, _with_centroid)


def read_scores(
    path: str, *, storage_options: Mapping[str, Any] | None = None, backend: Backend = "cpu"
) -> dd.DataFrame:
    """The scores of a result, or of all results of a run, as a Dask DataFrame of ``id``, ``max_id``,
    ``cosine_sim_score``; either layout. Tables that are not ours are read once at the call, and checked."""
    root = Location.of(path, storage_options)
    scores = Scores.chained([Scores.of(result) for result in results_in(root)])
    scores.check()
    schema = pa.schema([("id", scores.id_type), ("max_id", scores.id_type), (SCORE, pa.float32())])
    return _frame(root, scores.files, backend, _checked_scores, schema)


def read_duplicates(
    path: str, *, storage_options: Mapping[str, Any] | None = None, backend: Backend = "cpu"
) -> dd.DataFrame:
    """The ids to drop of a result, or of all results of a run, as a Dask DataFrame of ``id``; the root of a result or
    the folder itself."""
    root = Location.of(path, storage_options)
    folders = [find_table(result, "duplicates") for result in results_in(root)]
    witnesses = [folder / WITNESSES for folder in folders]
    return _frame(root, find_files(folders, "parquet", witnesses), backend, _checked_ids)


def read_witnesses(
    path: str, *, storage_options: Mapping[str, Any] | None = None, backend: Backend = "cpu"
) -> dd.DataFrame:
    """The witnesses of a result, or of all results of a run, as a Dask DataFrame of ``id``, ``witness_id``,
    ``cosine_sim_score``, a row for each duplicate; the root of a result or the folder itself. The rule ``any`` has
    none.
    """
    root = Location.of(path, storage_options)
    results = results_in(root)
    folders = [result / WITNESSES if (result / WITNESSES).is_dir() else result for result in results]
    for folder, result in zip(folders, results, strict=True):
        if folder.name != WITNESSES:
            raise InputError(f"no witnesses in {result}: the removal rules that write them are witness and components")
    return _frame(root, find_files(folders, "parquet"), backend)


def frame_of_files(root: Location, files: Sequence[FileInfo], backend: Backend = "cpu") -> dd.DataFrame:
    """Parquet files as a Dask DataFrame, one partition a file, Arrow types; `root` has the options to reach them."""
    return _frame(root, files, backend)


Read = Callable[[pa.Table, str], pa.Table]
"""What becomes of the table of a file, given its URL."""


def _as_it_is(table: pa.Table, url: str) -> pa.Table:
    return table


def _with_centroid(table: pa.Table, url: str) -> pa.Table:
    return table.append_column("centroid", pa.array([label_of(url)] * len(table), pa.int32()))


def _checked_scores(table: pa.Table, url: str) -> pa.Table:
    return _checked(table, url, COLUMNS)


def _checked_ids(table: pa.Table, url: str) -> pa.Table:
    return _checked(table, url, ("id",))


def _checked(table: pa.Table, url: str, columns: Sequence[str]) -> pa.Table:
    check_columns(table.schema, url, columns)
    starts = itertools.accumulate(map(len, table.to_batches()), initial=0)
    batches = [checked(batch, url, start) for batch, start in zip(table.to_batches(), starts, strict=False)]
    return pa.Table.from_batches(batches or [checked(one_batch(table), url)])


def _frame(
    root: Location, files: Sequence[FileInfo], backend: Backend, read: Read = _as_it_is, schema: pa.Schema | None = None
) -> dd.DataFrame:
    """A partition for each file, with the columns of this schema, of the first file by default."""
    import dask
    import dask.dataframe as dd

    if backend not in ("cpu", "gpu"):
        raise ParameterError(f"backend must be cpu or gpu; got {backend!r}")
    if not files:
        raise ParameterError(f"no files ending in {' or '.join(EXTENSIONS['parquet'])} in {root}")
    urls = [file.url for file in files]
    if schema is None:
        with open_parquet(root.at(urls[0])) as file:
            schema = file.schema_arrow
    meta = _to_frame(read(schema.empty_table(), urls[0]), backend)
    # Dask would turn lists into text otherwise
    with dask.config.set({"dataframe.convert-string": False}):
        frame: dd.DataFrame = dd.from_map(
            _read_frame,
            urls,
            root=root,
            backend=backend,
            read=read,
            schema=schema,
            columns=list(meta.columns),
            meta=meta,
        )
        return frame


def _read_frame(
    url: str, root: Location, backend: Backend, read: Read, schema: pa.Schema, columns: Sequence[str]
) -> Any:
    checks = read in (_checked_scores, _checked_ids)  # which need all columns; of others Dask may ask for some only
    table = read_table(root.at(url), [name for name in schema.names if checks or name in columns])
    table = read(table if len(table) else schema.empty_table(), url)
    return _to_frame(table.select([name for name in columns if name in table.column_names]), backend)


def _to_frame(table: pa.Table, backend: Backend) -> Any:
    table = table.replace_schema_metadata(None)
    if backend == "gpu":
        import cudf

        return cudf.DataFrame.from_arrow(for_cudf(table))
    return table.to_pandas(types_mapper=pd.ArrowDtype)


def for_cudf(table: pa.Table) -> pa.Table:
    """A table in types that cuDF has: lists of any kind as ``list``, and of float16 as those of float32."""
    schema = [field.with_type(_type_of_cudf(field.type)) for field in table.schema]
    return table.cast(pa.schema(schema))


def _type_of_cudf(found: pa.DataType) -> pa.DataType:
    if any(is_kind(found) for is_kind in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)):
        return pa.list_(_type_of_cudf(found.value_type))
    return pa.float32() if pa.types.is_float16(found) else found


def frame_or_files(given: Any, id_field: str | None, storage_options: Mapping[str, Any] | None) -> Frame:
    """A frame as it is, or the Dask DataFrame of the embeddings at a path.

    Raises:
        ParameterError: ids are to be the positions of rows, and it is a path.
    """
    found = frame_of(given)
    if found is None and id_field is None:
        raise ParameterError(
            "id_field=None takes the positions of rows as ids, which goes with frames alone; got a path. Files need "
            "a column of ids before the run, or are read into a frame"
        )
    return found or Frame(read_embeddings(given, storage_options=storage_options), "dask")
