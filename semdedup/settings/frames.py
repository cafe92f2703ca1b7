"""Which values are frames: told by the module of their class, or by a protocol. No library of frames is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from semdedup.errors import ParameterError

Input: TypeAlias = Any
"""What goes in: a path, a glob, a list of these, or a frame. Frames are of libraries that need not be installed."""

TAKEN = (
    "a Dask, pandas, cuDF or Polars DataFrame, a PyArrow Table, a datasets.Dataset, anything with __arrow_c_stream__, "
    "or a NumPy or CuPy matrix (n, d)"
)
"""The frames that are taken, for messages."""

KINDS = {
    ("dask", "DataFrame"): "dask",
    ("dask_expr", "DataFrame"): "dask",
    ("dask_cudf", "DataFrame"): "dask",
    ("pandas", "DataFrame"): "pandas",
    ("cudf", "DataFrame"): "cudf",
    ("polars", "DataFrame"): "polars",
    ("pyarrow", "Table"): "arrow",
    ("pyarrow", "RecordBatch"): "arrow",
    ("pyarrow", "RecordBatchReader"): "arrow",
    ("datasets", "Dataset"): "datasets",
    ("numpy", "ndarray"): "numpy",
    ("cupy", "ndarray"): "cupy",
}
"""Kinds of frames by the package and the name of a class, or of one that it is derived from."""

SERIES = "it has one column; give a frame with the ids and the embeddings"

NEAR = {
    ("numpy", "MaskedArray"): "fill what is masked: .filled(numpy.nan)",
    ("pandas", "Series"): SERIES,
    ("cudf", "Series"): SERIES,
    ("polars", "Series"): SERIES,
    ("dask", "Series"): SERIES,
    ("dask_expr", "Series"): SERIES,
    ("dask", "Array"): "give a Dask DataFrame with the ids and the embeddings, or .compute() it",
    ("pyarrow", "Array"): SERIES,
    ("pyarrow", "ChunkedArray"): SERIES,
    ("pyarrow", "Dataset"): "give the paths of its files, or .to_table()",
    ("polars", "LazyFrame"): "call .collect()",
    ("datasets", "DatasetDict"): 'give one of its splits, as in ds["train"]',
    ("datasets", "IterableDatasetDict"): "give one of its splits, and not a stream: load it without streaming=True",
    ("datasets", "IterableDataset"): "it is read once and has no length; load it without streaming=True",
    ("torch", "Tensor"): "call .numpy()",
    ("scipy", "spmatrix"): "call .toarray()",
    ("scipy", "sparray"): "call .toarray()",
}
"""What is near to a frame, and what to do with it."""


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame that is given in place of paths. It is equal to itself alone: options that hold one compare at once.

    Attributes:
        value: the frame.
        kind: one of the values of `KINDS`, or ``stream``.
        by_position: whether ids are the positions of the rows, and no column.
        called: what it is called in messages, where its type does not tell.
    """

    value: Any = field(repr=False)
    kind: str
    by_position: bool = False
    called: str = ""

    @property
    def name(self) -> str:
        """What it is called in messages: "the pandas DataFrame"."""
        if self.called:
            return self.called
        package = type(self.value).__module__.split(".")[0]
        spelled = {"dask_expr": "Dask", "dask": "Dask", "numpy": "NumPy", "cupy": "CuPy", "pyarrow": "PyArrow"}
        what = {"numpy": "matrix", "cupy": "matrix"}.get(self.kind, type(self.value).__name__)
        return f"the {spelled.get(package, package)} {what}"

    @property
    def is_lazy(self) -> bool:
        """Whether workers hold it, or will compute it."""
        return self.kind == "dask"


def frame_of(value: Any) -> Frame | None:
    """The value as a frame; None where it is none.

    Raises:
        ParameterError: it is near to a frame, with what to do.
    """
    if isinstance(value, Frame):
        return value
    for base in type(value).__mro__:
        key = (base.__module__.split(".")[0], base.__name__.lstrip("_"))
        if key in NEAR:
            raise ParameterError(f"a {'.'.join(key)} is not taken as a frame: {NEAR[key]}. Frames are {TAKEN}.")
        if key in KINDS:
            return Frame(value, KINDS[key], KINDS[key] in ("numpy", "cupy"))
    if hasattr(type(value), "__arrow_c_stream__"):
        return Frame(value, "stream")
    return None


def is_frame(value: Any) -> bool:
    """Whether the value is taken as a frame."""
    return frame_of(value) is not None


def with_frames(given: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Keywords of which some, as `input_path`, may be frames: these are recognised, and know what their ids are.

    Ids of a matrix are the positions of its rows; those of other frames as well, where `id_field` is None.
    """
    frames = {name: found for name in names if (found := frame_of(given.get(name))) is not None}
    if not frames:
        return dict(given)
    id_field = given.get("id_field", "id")
    marked = {name: replace(frame, by_position=frame.by_position or id_field is None) for name, frame in frames.items()}
    left = [name for name in names if name not in frames and given.get(name) is not None]
    if id_field is None and left:
        raise ParameterError(
            f"id_field=None takes the positions of rows as ids, which goes with frames alone; {left[0]} is a path"
        )
    others = {"id_field": "id"} if id_field is None else {}
    return {**given, **marked, **others, **({"input_filetype": "parquet"} if "input_path" in frames else {})}
