"""Tables of a result as Dask DataFrames, for those who go on from there with Dask."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from semdedup.arrays import Backend
from semdedup.dedup.base.folders import results_in
from semdedup.dedup.input.convert import refuse_converted
from semdedup.dedup.input.files import EXTENSIONS, find_files
from semdedup.dedup.names import CLUSTER_FOLDER, WITNESSES, find_table
from semdedup.dedup.results.find import find_scores
from semdedup.errors import InputError, ParameterError
from semdedup.storage.location import FileInfo, Location, Paths, locations_of
from semdedup.storage.tables import open_parquet, read_table

if TYPE_CHECKING:
    import dask.dataframe as dd


def read_embeddings(
    path: Paths, *, storage_options: Mapping[str, Any] | None = None, backend: Backend = "cpu"
) -> dd.DataFrame:
    """The input as a Dask DataFrame, one partition a file, columns as they are, Arrow types.

    Args:
        path: file, folder, glob or list of Parquet files.
        storage_options: for fsspec.
        backend: ``cpu`` for pandas partitions, ``gpu`` for cuDF ones.
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
    files = [file for file in find_files(folders, "parquet") if CLUSTER_FOLDER.search(file.url)]
    return _frame(root, files, backend, _centroid_of)


def read_scores(
    path: str, *, storage_options: Mapping[str, Any] | None = None, backend: Backend = "cpu"
) -> dd.DataFrame:
    """The scores of a result, or of all results of a run, as a Dask DataFrame of ``id``, ``max_id``,
    ``cosine_sim_score``; either layout."""
    root = Location.of(path, storage_options)
    return _frame(root, [file for result in results_in(root) for file in find_scores(result)], backend)


def read_duplicates(
    path: str, *, storage_options: Mapping[str, Any] | None = None, backend: Backend = "cpu"
) -> dd.DataFrame:
    """The ids to drop of a result, or of all results of a run, as a Dask DataFrame of ``id``; the root of a result or
    the folder itself."""
    root = Location.of(path, storage_options)
    folders = [find_table(result, "duplicates") for result in results_in(root)]
    witnesses = [folder / WITNESSES for folder in folders]
    return _frame(root, find_files(folders, "parquet", witnesses), backend)


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


def _centroid_of(url: str) -> dict[str, int]:
    match = CLUSTER_FOLDER.search(url)
    return {"centroid": int(match[1])} if match else {}


def _frame(
    root: Location, files: Sequence[FileInfo], backend: Backend, extra: Callable[[str], dict[str, int]] | None = None
) -> Any:
    import dask
    import dask.dataframe as dd

    if backend not in ("cpu", "gpu"):
        raise ParameterError(f"backend must be cpu or gpu; got {backend!r}")
    if not files:
        raise ParameterError(f"no files ending in {' or '.join(EXTENSIONS['parquet'])} in {root}")
    urls = [file.url for file in files]
    with open_parquet(root.at(urls[0])) as file:
        empty = file.schema_arrow.empty_table()
    meta = _to_frame(_with_columns(empty, extra(urls[0]) if extra else {}), backend)
    # Dask would turn lists into text otherwise
    with dask.config.set({"dataframe.convert-string": False}):
        return dd.from_map(
            _read_frame, urls, root=root, backend=backend, extra=extra, columns=list(empty.column_names), meta=meta
        )


def _read_frame(
    url: str, root: Location, backend: Backend, extra: Callable[[str], dict[str, int]] | None, columns: Sequence[str]
) -> Any:
    table = read_table(root.at(url), columns)
    return _to_frame(_with_columns(table, extra(url) if extra else {}), backend)


def _with_columns(table: pa.Table, values: Mapping[str, int]) -> pa.Table:
    for name, value in values.items():
        table = table.append_column(name, pa.array([value] * len(table), pa.int32()))
    return table


def _to_frame(table: pa.Table, backend: Backend) -> Any:
    table = table.replace_schema_metadata(None)
    if backend == "gpu":
        import cudf

        return cudf.DataFrame.from_arrow(table)
    return table.to_pandas(types_mapper=pd.ArrowDtype)
