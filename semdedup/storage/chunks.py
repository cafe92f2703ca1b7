"""Files of chunks: batches of rows that lie one after the other, each of them a range of bytes.

Whoever writes such a file gets to know where its chunks end, and passes that on (`storage.arrays.pack_ends`): reading a
chunk, or a run of neighbouring ones, is one request for just these bytes. Of an Arrow file, a store would be asked for
the footer each time, and for what follows the batch.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

from semdedup.storage.location import Location

MOST_AHEAD, BYTES_AHEAD = 16, 32 << 20
"""Ranges of files in a store that are being read at a time, and most bytes of them together."""

READ_TOGETHER, ALIGNMENT = 16 << 20, 64
"""Bytes of local files that are read into one piece of memory, and where each range begins in there, as Arrow likes it.
"""

Item = TypeVar("Item")
Result = TypeVar("Result")

Span = tuple[Location, int, int]
"""A file, and the range of its bytes from a first one to before a last one."""


def ahead(function: Callable[[Item], Result], items: Iterable[Item], n: int) -> Iterator[Result]:
    """``map(function, items)`` with `n` calls in flight, in threads. Memory: `n` results."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(n) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= n:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def read_spans(spans: Sequence[Span]) -> Iterator[bytes | memoryview]:
    """Ranges of files in their order, one request each that is not empty. Of a store some are read at a time: a
    request takes longer than its bytes. Small ones of local files are read into one piece of memory, which lasts as
    long as any of them.

    Memory: one range, or `READ_TOGETHER`; of a store `BYTES_AHEAD` besides.
    """
    if not spans or spans[0][0].is_local:
        return itertools.chain.from_iterable(map(_read_local, _together(spans)))
    largest = max(end - start for _, start, end in spans)
    return ahead(_read, spans, max(1, min(MOST_AHEAD, BYTES_AHEAD // max(1, largest))))


def _together(spans: Sequence[Span]) -> Iterator[Sequence[Span]]:
    """Neighbouring spans of `READ_TOGETHER` bytes at most together, or one."""
    first = held = 0
    for position, (_, start, end) in enumerate(spans):
        if position > first and held + end - start > READ_TOGETHER:
            yield spans[first:position]
            first, held = position, 0
        held += end - start
    if spans:
        yield spans[first:]


def _read_local(spans: Sequence[Span]) -> Iterator[memoryview]:
    """Spans of local files in one piece of memory. That of NumPy has large pages, so that it costs little to fill."""
    sizes = [-(-(end - start) // ALIGNMENT) * ALIGNMENT for _, start, end in spans]
    memory = np.empty(sum(sizes), dtype=np.uint8).data
    for (file, start, end), offset in zip(spans, itertools.accumulate(sizes, initial=0), strict=False):
        n_read = file.read_into(start, memory[offset : offset + end - start]) if start < end else 0
        yield memory[offset : offset + n_read].toreadonly()


def _read(span: Span) -> bytes:
    file, start, end = span
    return file.read_bytes(start, end) if start < end else b""


def write_chunks(location: Location, chunks: Iterable[pa.RecordBatch | pa.Table]) -> list[int]:
    """Write rows one batch after the other into one file, each as an Arrow stream of its own.

    Returns:
        Where each chunk ends; a chunk without rows takes no bytes.
    """
    ends = []
    with location.writing() as path, Path(path).open("wb") as file:
        for chunk in chunks:
            if len(chunk):
                with pa.ipc.new_stream(file, chunk.schema) as writer:
                    writer.write(chunk)
            ends.append(file.tell())
            del chunk  # before the next one is made
    return ends


def read_chunk(location: Location, start: int, end: int) -> pa.RecordBatch:
    """Read one batch that `write_chunks` wrote, by its range of bytes."""
    with pa.ipc.open_stream(pa.py_buffer(location.read_bytes(start, end))) as reader:
        return reader.read_next_batch()


def read_chunks(spans: Sequence[Span]) -> Iterator[list[pa.RecordBatch]]:
    """The batches of runs of neighbouring chunks, by their ranges of bytes; see `read_spans`."""
    return map(_batches, read_spans(spans))


def read_every_chunk(location: Location) -> list[pa.RecordBatch]:
    """All batches of a file, in one request."""
    return _batches(location.read_bytes())


def _batches(content: bytes | memoryview) -> list[pa.RecordBatch]:
    batches: list[pa.RecordBatch] = []
    source = pa.BufferReader(content)
    while source.tell() < len(content):
        with pa.ipc.open_stream(source) as reader:
            batches += reader
    return batches
