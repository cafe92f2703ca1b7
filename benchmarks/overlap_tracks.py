"""Tracks that nobody filmed, as many as are wanted, for the speed of the join; and the bare product of their rows."""

import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import distributed
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from semdedup.video.decode import Picture
from semdedup.video.fingerprint import DIM, PER_SECOND
from semdedup.video.pixels import PictureMaker
from semdedup.video.records import TRACK_ROWS
from semdedup.video.track import TrackMaker

SHORTEST_S, LONGEST_S = 60, 600
SHARING = 0.1
"""Share of videos that show a stretch of the one before."""

NOISE = 0.1
"""Of a planted stretch, beside 1 for the standard deviation of the vectors."""

ROWS_PER_FILE = 200_000
BLOCK = 4096
MOST_OPERATIONS = 4e12
"""The bare product is measured on so many; above, it is scaled up."""


def smooth_track(rng: np.random.Generator, n: int) -> np.ndarray:
    """Vectors (n, 64) float32 of shots of 2 to 8 s, which drift slowly between two points of their own."""
    lengths = rng.integers(2 * PER_SECOND, 8 * PER_SECOND, n // (2 * PER_SECOND) + 1)
    shot = np.repeat(np.arange(len(lengths)), lengths)[:n]
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    part = ((np.arange(n) - starts[shot]) / lengths[shot])[:, None]
    ends = rng.normal(size=(2, len(lengths), DIM)).astype(np.float32)
    steps = rng.normal(0, 0.25, (n, DIM))
    return (ends[0][shot] + part * (0.7 * ends[1][shot]) + steps).astype(np.float32)


def write_tracks(root: Path, seconds: int, seed: int = 0) -> tuple[int, int]:
    """Write ``{root}/fingerprints``: so many seconds of video, some of which show stretches of others.

    Returns:
        How many rows there are, and how many planted stretches.
    """
    folder = root / "fingerprints"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    tables: list[pa.Table] = []
    before = np.zeros((0, DIM), np.float32)
    video = rows = held = files = planted = 0
    while rows < seconds * PER_SECOND:
        n = int(rng.integers(SHORTEST_S, LONGEST_S + 1)) * PER_SECOND
        n = max(min(n, seconds * PER_SECOND - rows), 1)
        track = smooth_track(rng, n)
        wanted = int(rng.integers(10, 60)) * PER_SECOND
        if rng.random() < SHARING and min(n, len(before)) > wanted:
            at, place = int(rng.integers(len(before) - wanted)), int(rng.integers(n - wanted))
            track[place : place + wanted] = before[at : at + wanted] + rng.normal(0, NOISE, (wanted, DIM))
            planted += 1
        vectors = np.clip(np.rint(track * 32), -127, 127).astype(np.int8)
        columns: dict[str, Any] = {
            "video": pa.array([f"{video:07d}.mp4"]).take(pa.array(np.zeros(n, np.int8))),
            "t_s": (np.arange(n) + 0.5) / PER_SECOND,
            "fingerprint": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), DIM),
        }
        tables.append(pa.table(columns, schema=TRACK_ROWS))
        before, video, rows, held = track, video + 1, rows + n, held + n
        if held >= ROWS_PER_FILE or rows >= seconds * PER_SECOND:
            pq.write_table(pa.concat_tables(tables), folder / f"part-{files:05d}.parquet")
            tables, held, files = [], 0, files + 1
    return rows, planted


def multiply(n_rows: int, n_products: int) -> float:
    """Seconds that one thread takes for products of blocks of rows, of those that the matrix has."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2 * min(n_rows, BLOCK), DIM)).astype(np.float32)
    one, other = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    out = np.empty((len(one), len(other)), np.float32)
    np.matmul(one, other.T, out=out)
    started = time.monotonic()
    for _ in range(n_products):
        np.matmul(one, other.T, out=out)
    return time.monotonic() - started


def bare_product_s(client: distributed.Client, n_rows: int) -> float:
    """Seconds that all workers together take for the product of each two rows in float32, and nothing else."""
    workers = list(client.scheduler_info(n_workers=-1)["workers"])
    block = min(n_rows, BLOCK)
    operations = n_rows**2 / 2 * DIM * 2
    measured = min(operations, MOST_OPERATIONS)
    each = max(1, round(measured / (block**2 * DIM * 2) / len(workers)))
    tasks = [client.submit(multiply, n_rows, each, workers=[name], pure=False) for name in workers]
    seconds = max(client.gather(tasks))
    return seconds * operations / (each * len(workers) * block**2 * DIM * 2)


def making_s(videos: Sequence[Path]) -> float:
    """Seconds of a processor that the tracks of videos take, whose pictures are decoded already."""
    taken = 0.0
    for path in videos:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            time_base: Fraction = stream.time_base
            maker, track = PictureMaker(Fraction(1), 1 << 30, False), TrackMaker(time_base)
            start = end = 0
            for number, frame in enumerate(container.decode(stream)):
                start = frame.pts if number == 0 else start
                end = frame.pts - start + (frame.duration or 1)
                picture = Picture(frame.pts - start, frame, maker)
                began = time.process_time()
                track.add(picture)
                taken += time.process_time() - began
            began = time.process_time()
            track.finish(end)
            taken += time.process_time() - began
    return taken
