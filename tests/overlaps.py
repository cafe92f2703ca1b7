"""Tracks, clips and tables of overlaps made by hand, and the answer that one call over all tracks gives."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from semdedup.overlaps.duplicates import Coverage, Spans
from semdedup.overlaps.match import Tracks, find_stretches

Vectors = Mapping[str, np.ndarray]
Clip = tuple[str, str, float, float]
"""Id, video, start and end."""


def noise(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Vectors of footage that resembles nothing."""
    return rng.integers(-127, 128, (round(2 * seconds), 64)).astype(np.int8)


def track_table(tracks: Vectors) -> pa.Table:
    """The rows of tracks."""
    vectors = np.concatenate([np.empty((0, 64), np.int8), *tracks.values()])
    moments = [(i + 0.5) / 2 for track in tracks.values() for i in range(len(track))]
    return pa.table(
        {
            "video": pa.array([name for name, track in tracks.items() for _ in track], pa.string()),
            "t_s": pa.array(moments, pa.float64()),
            "fingerprint": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 64),
        }
    )


def write_tracks(folder: Path, tracks: Vectors, n_files: int = 1, rows_per_group: int = 50) -> Path:
    """Write the tracks of a folder, a part of the videos to each file."""
    place = folder / "fingerprints"
    place.mkdir(parents=True, exist_ok=True)
    for number, names in enumerate(np.array_split(np.array(list(tracks), dtype=object), n_files)):
        table = track_table({name: tracks[name] for name in names})
        pq.write_table(table, place / f"part-{number:05d}.parquet", row_group_size=rows_per_group)
    return folder


def write_clips(folder: Path, clips: Sequence[Clip], n_files: int = 1) -> None:
    """Write the columns of embeddings that tell of clips."""
    place = folder / "own_embd_parquet"
    place.mkdir(parents=True, exist_ok=True)
    for number, chosen in enumerate(np.array_split(np.arange(len(clips)), n_files)):
        columns = list(zip(*(clips[i] for i in chosen), strict=True)) or [()] * 4
        table = pa.table(dict(zip(("id", "video", "start_s", "end_s"), columns, strict=True)))
        pq.write_table(table, place / f"part-{number:05d}.parquet")


def every_clip(tracks: Vectors, seconds: float = 5) -> list[Clip]:
    """Clips of equal length, one after the other; what is left at the end is in none."""
    return [
        (f"{name}:{start:g}", name, start, start + seconds)
        for name, track in tracks.items()
        for start in np.arange(0, len(track) / 2 - seconds + 1e-9, seconds).tolist()
    ]


def read_overlaps(out: Path) -> pd.DataFrame:
    """The overlaps of an output, in the order of its files."""
    return pa.concat_tables(
        [pq.read_table(file) for file in sorted((out / "overlaps").glob("*.parquet"), key=number)]
    ).to_pandas()


def read_gone(out: Path) -> pd.DataFrame:
    """The clips that go, by id."""
    files = sorted((out / "overlap_duplicates").glob("*.parquet"))
    table = pa.concat_tables([pq.read_table(file) for file in files]).to_pandas()
    return table.sort_values("id", ignore_index=True)


def number(file: Path) -> int:
    """The number in the name of a part."""
    return int(file.stem.rpartition("-")[2])


def expected(
    tracks: Vectors, clips: Sequence[Clip], min_overlap: float = 0.8, **options: Any
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Overlaps and clips that go, of all tracks in one call; tracks in the order of their ranks."""
    names = list(tracks)
    one = Tracks(np.concatenate(list(tracks.values())), np.cumsum([0, *map(len, tracks.values())]))
    found = find_stretches(one, one, **options)
    of = {"video_a": [names[i] for i in found.a], "video_b": [names[i] for i in found.b]}
    table = pd.DataFrame({**{name: getattr(found, name) for name in ("start_a_s", "end_a_s", "start_b_s", "end_b_s",
                                                                     "speed", "score")}, **of})  # fmt: skip
    columns = ["video_a", "start_a_s", "end_a_s", "video_b", "start_b_s", "end_b_s", "speed", "score"]
    ordered = sorted(clips, key=lambda clip: (names.index(clip[1]), clip[2], clip[3], clip[0]))
    spans = Spans(
        np.array([names.index(video) for _, video, _, _ in ordered], dtype=np.int64),
        np.array([start for *_, start, _ in ordered], dtype=float),
        np.array([end for *_, end in ordered], dtype=float),
    )
    coverage = Coverage(spans)
    coverage.add(found, spans)
    gone = coverage.gone(min_overlap)
    rows = {
        "id": [ordered[i][0] for i in gone.clip],
        "video": [names[i] for i in gone.video],
        "start_s": gone.start_s,
        "end_s": gone.end_s,
    }
    return table[columns], pd.DataFrame(rows).sort_values("id", ignore_index=True)
