"""The search for overlaps on a session: from tracks to tables of overlaps and of the clips that go because of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from semdedup.dedup import sizes
from semdedup.dedup.input.planned import planned_bytes
from semdedup.errors import InputError, IntegrityError
from semdedup.overlaps.blocks import Blocks, Unit, cut_whole, rows_per_block, scatter_tracks, units_of, wanted_bytes
from semdedup.overlaps.clips import ScatterClips, cut_clips, scatter_clips
from semdedup.overlaps.compare import Comparison, compare_blocks, find_duplicates, longest_of, write_overlaps
from semdedup.overlaps.names import (
    DUPLICATE_COLUMNS,
    OVERLAP_DUPLICATES,
    OVERLAPS,
    VIDEO_COLUMNS,
    VIDEOS,
    overlap_columns,
)
from semdedup.overlaps.options import OverlapsOptions
from semdedup.overlaps.ranks import (
    Earlier,
    Places,
    Videos,
    check_once,
    digests_of,
    rank_order,
    ranks_in_base,
    read_earlier,
    read_numbers,
)
from semdedup.overlaps.source import FINGERPRINT_FACT, Source, check_version
from semdedup.overlaps.tracks import Scan, only_version, scan_files
from semdedup.runs.run import Run
from semdedup.storage.arrays import save_array, save_columns, unpack_ends
from semdedup.storage.batches import ROWS_PER_BATCH
from semdedup.storage.chunks import read_every_chunk, write_chunks
from semdedup.storage.location import FileInfo
from semdedup.storage.pieces import cuts_of, pieces_of
from semdedup.storage.tables import FILES_PER_TASK, write_batches, write_table
from semdedup.video.fingerprint import PER_SECOND

SCAN_BYTES = 64 << 20
"""Bytes of small files that a task looks at; a larger file is a task of its own."""


class Ranked(NamedTuple):
    """The videos, how many are of the base, and their order: positions, best first; and what their vectors are."""

    videos: Videos
    order: np.ndarray
    n_earlier: int
    earlier: Earlier | None
    version: str


def join_tracks(run: Run, source: Source, options: OverlapsOptions) -> dict[str, Any]:
    """Compare all videos and write what they share, resuming where an earlier run stopped.

    Returns:
        Facts: see `OverlapsResult`.
    """
    with run.refusing():
        ranked, digests = _ranked(run, source)
        most = _most_rows(run, int(ranked.videos.rows.sum()))
    blocks = _cut(run, source, ranked, digests, most)
    units = units_of(ranked.videos.rows, ranked.videos.file, [file.url for file in source.tracks], most)
    n_videos, rows = len(ranked.order), int(ranked.videos.rows.sum())
    known = {"base_videos": ranked.n_earlier, FINGERPRINT_FACT: ranked.version}
    del ranked, digests  # a hundred bytes a video
    clips = _lay_out(run, source, blocks, units, n_videos)
    task = Comparison(blocks, run.final, options.mirror, options.min_overlap)
    found, counts = _compare(run, task)
    longest = _write(run, task, found)
    clips |= _duplicates(run, task, found)
    return {
        "videos": n_videos,
        **known,
        "video_seconds": rows / PER_SECOND,
        **counts,
        **clips,
        "longest": longest,
    }


def _ranked(run: Run, source: Source) -> tuple[Ranked, np.ndarray]:
    """Find the videos and their ranks; and the digests of their names."""
    scan = Scan(source.root, run.scratch / "scan")
    every = (((number, file), file.n_bytes) for number, file in enumerate(source.tracks))
    groups = [group[i : i + FILES_PER_TASK] for group in sizes.pack(every, SCAN_BYTES)
              for i in range(0, len(group), FILES_PER_TASK)]  # fmt: skip
    items = list(enumerate(groups))
    scanned = run.results("scan tracks", partial(scan_files, scan), items, unit="groups of files", label=_files)
    version = only_version(each["versions"] for each in scanned)
    videos = Videos.of(batch for number, _ in items for batch in read_every_chunk(scan.place(number)))
    if not len(videos):
        raise InputError(f"no rows in the {len(source.tracks):,} files of tracks in {source.root}")
    digests = digests_of(videos.names)
    check_once(videos, digests, source.tracks)
    places, base, earlier = Places.of(digests), np.full(len(videos), -1, dtype=np.int64), None
    numbers = read_numbers(source.root, source.tables, places)
    if numbers is None:
        run.reporter.say(f"ranks: there is no table of videos in {source.root}: videos rank by their paths alone")
    if source.base is not None:
        check_version(version, source.base)
        earlier = read_earlier([source.base.root.at(file.url) for file in source.base.videos])
        base = ranks_in_base(videos, places, earlier, source.base.root)
        gone = len(earlier.rows) - int((base >= 0).sum())
        if gone:
            run.reporter.say(
                f"base: {gone:,} of its videos have no track any more; new ones are not compared with them"
            )
    return Ranked(videos, rank_order(videos.names, numbers, base), int((base >= 0).sum()), earlier, version), digests


def _most_rows(run: Run, n_rows: int) -> int:
    """Rows of a block, as the first of the runs that go on with each other has decided."""
    wanted = wanted_bytes(run.session.n_slots, run.session.task_memory, n_rows)
    return rows_per_block(planned_bytes(run, run.scratch / "plan.json", wanted)[0])


def _cut(run: Run, source: Source, ranked: Ranked, digests: np.ndarray, most: int) -> Blocks:
    """Cut the videos into blocks, and write what tasks need to know of them, and the table of videos."""
    order, rows, n = ranked.order, ranked.videos.rows, ranked.n_earlier
    earlier, new = cut_whole(rows[order[:n]], most), cut_whole(rows[order[n:]], most)
    bounds = [*earlier[:-1].tolist(), *(new + n).tolist()]
    names = _taken(ranked.videos.names, order)
    blocks = Blocks(source.root, run.scratch, tuple(bounds), (), len(earlier) - 1)
    chunks = (pa.table({"video": names.slice(low, high - low)}).combine_chunks() for low, high in pairwise(bounds))
    ends = write_chunks(blocks.names, chunks)
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order))
    save_array(blocks.places, np.stack([rows, ranks], axis=1))
    by_digest = np.argsort(digests, kind="stable")
    save_columns(blocks.ranks, digest=digests[by_digest], rank=ranks[by_digest])
    with run.noting():
        _write_videos(run, ranked, names)
    return Blocks(source.root, run.scratch, tuple(bounds), tuple(ends), len(earlier) - 1)


def _taken(column: pa.ChunkedArray, positions: np.ndarray) -> pa.ChunkedArray:
    """Rows of a column at some positions, in this order."""
    parts = (column.take(pa.array(positions[i : i + ROWS_PER_BATCH])) for i in range(0, len(positions), ROWS_PER_BATCH))
    return pa.chunked_array([chunk for part in parts for chunk in part.chunks], column.type)


def _write_videos(run: Run, ranked: Ranked, names: pa.ChunkedArray) -> None:
    """The videos in the order of their ranks; of a base all that it had come first."""
    order, n = ranked.order, ranked.n_earlier if ranked.earlier is not None else 0
    videos = ranked.videos
    columns = {"video": names.slice(n), "rows": videos.rows[order[n:]], "digest": videos.digest[order[n:]]}
    tables = [pa.table(columns, schema=VIDEO_COLUMNS)]
    if ranked.earlier is not None:
        found = ranked.earlier
        tables.insert(0, pa.table({"video": found.names, "rows": found.rows, "digest": found.digest}, VIDEO_COLUMNS))
    batches = (pa.Table.from_batches([batch]) for table in tables for batch in table.to_batches(ROWS_PER_BATCH))
    write_batches(run.final / VIDEOS / "part-0.parquet", VIDEO_COLUMNS, batches)


def _lay_out(run: Run, source: Source, blocks: Blocks, units: Sequence[Unit], n_videos: int) -> dict[str, Any]:
    """Bring tracks and clips to their blocks; the facts of the clips."""
    tracks, n_rows = _scatter(run, "lay out tracks", partial(scatter_tracks, blocks), units, len(blocks), "rows")
    parts = list(enumerate(cut_clips(source.clips, source.root, SCAN_BYTES)))
    facts = {"clips_from": source.clips.name, "without_track": 0, "without_span": 0}
    scatter = partial(scatter_clips, ScatterClips(blocks, n_videos))
    clips = cuts_of((), 0, len(blocks))
    if parts:
        clips, n_clips = _scatter(run, "lay out clips", scatter, parts, len(blocks), "clips", facts)
    else:
        run.reporter.say(
            f"clips: none in {source.root}, neither embeddings with video, start_s and end_s nor metadata; "
            f"{OVERLAP_DUPLICATES} is empty"
        )
        n_clips = 0
    items = [
        (block, pieces_of(blocks.tracks, tracks, block), pieces_of(blocks.clips, clips, block))
        for block in range(len(blocks))
    ]
    gathered = run.results("gather blocks", blocks.gather, items, unit="blocks")
    if (sum(each["rows"] for each in gathered), sum(each["clips"] for each in gathered)) != (n_rows, n_clips):
        raise IntegrityError(f"{n_rows} rows and {n_clips} clips were laid out, but others gathered")
    for name, words in (("without_track", "of videos without a track"), ("without_span", "without a time")):
        if facts[name]:
            run.reporter.say(f"clips: {facts[name]:,} {words}, which cannot go by overlap")
    return facts


def _scatter(
    run: Run,
    name: str,
    function: Callable[[Any], dict[str, Any]],
    items: Sequence[Any],
    n_blocks: int,
    counted: str,
    facts: dict[str, Any] | None = None,
) -> tuple[np.ndarray, int]:
    """Scatter rows to blocks: where these are in the file of each task, and how many; adds other counts to facts."""
    total = 0

    def ends() -> Iterator[tuple[int, np.ndarray]]:
        nonlocal total
        for entry in run.each(name, function, items):
            total += entry.result[counted]
            for key in facts or ():
                if facts is not None and key in entry.result:
                    facts[key] += entry.result[key]
            yield int(entry.key), unpack_ends(entry.result["ends"])

    return cuts_of(ends(), len(items), n_blocks), total


def _compare(run: Run, task: Comparison) -> tuple[np.ndarray, dict[str, Any]]:
    """Compare all blocks; how many overlaps each two have, (B, B) int64, and facts. Those of a base are not compared
    with each other."""
    n, first_new = len(task.blocks), task.blocks.n_earlier
    jobs = {f"{one}-{other}": (one, other) for other in range(first_new, n) for one in range(other + 1)}
    found = np.zeros((n, n), dtype=np.int64)
    counts = {"overlaps": 0, "pairs": 0, "within": 0, "overlap_seconds": 0.0}
    seconds = np.zeros((n, n))
    for entry in run.each("compare", partial(compare_blocks, task), jobs, unit="pairs of blocks"):
        result, (one, other) = entry.result, jobs[entry.key]
        found[one, other], seconds[one, other] = result["overlaps"], result["seconds"]
        for name in ("overlaps", "pairs", "within"):
            counts[name] += result[name]
    counts["overlap_seconds"] = round(float(seconds.sum()), 3)
    return found, counts


def _write(run: Run, task: Comparison, found: np.ndarray) -> list[dict[str, Any]]:
    """Write the overlaps in order; the longest of them."""
    rows = np.flatnonzero(found.any(axis=1)).tolist()
    items = [(block, np.flatnonzero(found[block]).tolist(), int(found[block].sum())) for block in rows]
    longest = run.results("write overlaps", partial(write_overlaps, task), items, unit="blocks")
    if not items:  # a reader finds the columns
        _write_empty(run, OVERLAPS, overlap_columns(task.mirror))
    return longest_of([row for each in longest for row in each])


def _duplicates(run: Run, task: Comparison, found: np.ndarray) -> dict[str, Any]:
    """Find the clips that go; their facts. Of a base no clips go: they are of better-ranked videos."""
    new = range(task.blocks.n_earlier, len(task.blocks))
    items = [(block, np.flatnonzero(found[:, block]).tolist()) for block in new]
    results = run.results("find duplicates", partial(find_duplicates, task), items, unit="blocks")
    if not any(result["gone"] for result in results):
        _write_empty(run, OVERLAP_DUPLICATES, DUPLICATE_COLUMNS)
    names = {"clips": "clips", "duplicates": "gone", "duplicate_seconds": "seconds"}
    return {name: sum(result[key] for result in results) for name, key in names.items()}


def _write_empty(run: Run, folder: str, schema: pa.Schema) -> None:
    with run.noting():
        write_table(run.final / folder / "part-0.parquet", schema.empty_table())


def _files(item: tuple[int, Sequence[tuple[int, FileInfo]]]) -> str:
    """What a task that looks at files is at, for the error where its worker dies of it."""
    return ", ".join(file.url for _, file in item[1])
