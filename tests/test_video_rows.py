"""The table of videos in columns: what it tells is what the rows tell, one by one."""

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from semdedup.video import video_rows
from semdedup.video.counts import Counts
from semdedup.video.merged import Merged, gone_clips, gone_videos, without_lost
from semdedup.video.own_files import OwnFiles
from semdedup.video.parts import Part, plan_parts
from semdedup.video.quarantine import is_tried_again
from semdedup.video.records import FILES, VIDEO_COLUMNS
from semdedup.video.row_files import CAPTIONS, EMBEDDINGS, TRACKS, RowKind
from semdedup.video.video_rows import RowsHeld, VideoRows, rows_memory
from semdedup.video.video_table import Placed

REASONS = {"done": ("",), "too_short": ("",), "quarantined": ("timeout", "truncated")}


def row_of(video: str, rng: np.random.Generator, part: str = "", version: int = 0) -> dict[str, Any]:
    """A row as a task tells it, of a video that ended in some way."""
    status = str(rng.choice(["done"] * 4 + ["too_short", "quarantined"]))
    clips = [f"{video}-{version}-{i}" for i in range(rng.integers(0, 5) if status == "done" else 0)]
    fault = {"reason": "embed_error", "detail": "no", "step": "a"}
    lost = [{"id": clip, **fault} for clip in clips if rng.random() < 0.1]
    return {
        **{field.name: [] if pa.types.is_list(field.type) else 0 for field in VIDEO_COLUMNS},
        **{"video": video, "url": f"/in/{video}", "n_bytes": int(rng.integers(1, 99)), "stamp": f"{version}"},
        **{"status": status, "reason": str(rng.choice(REASONS[status])), "detail": "", "part": part if clips else ""},
        **{"clips": clips, "n_rows": len(clips) - len(lost), "clip_faults": lost, "meta_faults": []},
        **{"duration_s": float(rng.random()), "clip_seconds": float(rng.random()), "gap_s": float(rng.random())},
        "longest_clip_s": float(rng.random()),
        **{"n_fingerprints": int(rng.integers(1, 9)) if clips else 0, "fingerprint_part": part if clips else ""},
        **{"n_captioned": len(clips), "n_captions": 2 * len(clips), "caption_part": part if clips else ""},
    }


@pytest.fixture(autouse=True)
def few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ROWS", 7), ("ROWS_PER_BATCH", 20)):
        monkeypatch.setattr(video_rows, name, value)
    monkeypatch.setattr("semdedup.video.merged.ROWS", 7)


def columns_of(rows: list[dict[str, Any]]) -> VideoRows:
    held = RowsHeld()
    for row in rows:
        held.add(row)
    return held.rows()


def test_rows_come_back_as_they_were_in_any_order(rng: np.random.Generator) -> None:
    rows = [row_of(f"v{i}", rng) for i in rng.permutation(50)]
    found = columns_of(rows)
    assert len(found.batches) > 1
    assert list(found) == rows
    assert [found[0], found[-1]] == [rows[0], rows[-1]]
    assert list(found[3:9]) == rows[3:9]
    order = rng.permutation(50)
    assert list(found.take(order)) == [rows[i] for i in order]
    names = pa.array(["v3", "absent", "v49"])
    assert [i < 0 or rows[i]["video"] for i in found.positions(names)] == ["v3", True, "v49"]
    assert found.tried_again().tolist() == [is_tried_again(row) for row in rows]
    assert list(found.clip_faults()) == [(row["video"], fault) for row in rows for fault in row["clip_faults"]]
    assert list(VideoRows()) == []
    assert VideoRows().positions(names).tolist() == [-1] * 3


def test_counts_are_those_of_the_rows_one_by_one(rng: np.random.Generator) -> None:
    rows = [row_of(f"v{i:03d}", rng) for i in range(60)]
    counts = Counts.of(columns_of(rows))
    assert counts.by_status == Counter(row["status"] for row in rows)
    assert counts.by_reason == Counter(row["reason"] for row in rows if row["status"] == "quarantined")
    assert counts.clips_by_reason["embed_error"] == sum(len(row["clip_faults"]) for row in rows)
    told = counts.summary(["dct3d"])
    assert told["total_num_clips"] == sum(len(row["clips"]) for row in rows)
    assert told["total_num_fingerprints"] == sum(row["n_fingerprints"] for row in rows)
    assert told["total_num_clips_with_embeddings"] == sum(row["n_rows"] for row in rows)
    assert told["too_short_videos"] == [row["video"] for row in rows if row["status"] == "too_short"]
    assert told["total_clip_duration"] == pytest.approx(sum(row["clip_seconds"] for row in rows), abs=1e-6)
    assert told["max_clip_duration"] == max(row["longest_clip_s"] for row in rows)
    assert Counts.of(VideoRows()).summary(())["num_input_videos"] == 0


def before_and_new(rng: np.random.Generator) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows that there were, in order, in files of ten videos; and those of a run, of other and of the same videos."""
    before = [row_of(f"v{2 * i:03d}", rng, f"part-{i // 10:05d}.parquet") for i in range(40)]
    return before, [row_of(f"v{i:03d}", rng, version=1) for i in rng.permutation(30) + 20]


@pytest.mark.parametrize("kind", [EMBEDDINGS, TRACKS, CAPTIONS], ids=lambda kind: kind.name)
@pytest.mark.parametrize("most", [1, 30, 1000])
def test_parts_hold_every_video_once_and_no_more_rows_than_they_may(
    kind: RowKind, most: int, rng: np.random.Generator
) -> None:
    before, new = before_and_new(rng)
    n_rows = kind.n_rows
    plan = plan_parts(kind, columns_of(before), columns_of(new), most)
    anew = {row["video"] for row in new}
    expected = {row["video"] for row in new if row[n_rows]}
    expected |= {row["video"] for row in before if row[n_rows] and row["video"] not in anew}
    stay = {row["video"] for row in before if row[n_rows] and row[kind.part] in plan.kept}
    written = [video for part in plan.parts for video in part.videos["video"].to_pylist()]
    assert sorted([*written, *stay]) == sorted(expected)
    assert written == sorted(written)
    assert {part.name for part in plan.parts}.isdisjoint(plan.kept)
    sizes = [sum(part.videos[n_rows].to_pylist()) for part in plan.parts]
    assert plan.n_rows == sum(sizes)
    assert all(size <= most or len(part.videos) == 1 for size, part in zip(sizes, plan.parts, strict=True))
    assert all(a + b > most for a, b in pairwise(sizes)) or most == 1
    for rows, parts in ((before, plan.of_old), (new, plan.of_new)):
        for row, number in zip(rows, parts, strict=True):
            place = row["video"] in plan.parts[number].videos["video"].to_pylist() if number >= 0 else None
            assert place in (None, True)
    clips = {video: held for part in plan.parts for video, held in zip(*_videos_and_clips(part), strict=True)}
    assert all((clips[row["video"]] is None) for row in new if row[n_rows]), "theirs are in the scratch folder"
    asked_for = [row for row in before if row["video"] in clips.keys() - anew]
    assert all(clips[row["video"]] == (row["clips"] if kind.by == "id" else None) for row in asked_for)


def _videos_and_clips(part: Part) -> tuple[list[str], list[Any]]:
    return part.videos["video"].to_pylist(), part.videos["clips"].to_pylist()


def test_a_run_replaces_its_videos_and_their_files_and_leaves_the_others(rng: np.random.Generator) -> None:
    before, new = before_and_new(rng)
    old, done = columns_of(before), columns_of(new)
    plans = [plan_parts(EMBEDDINGS, old, done, 30), plan_parts(TRACKS, old, done, 50)]
    merged = Merged(old, done, plans)
    files = OwnFiles()
    for row in new:
        files.add([(f"new {row['video']}", 1, "x")])
    known = [[{"name": f"old {row['video']}", "bytes": 1, "checksum": "x"}] for row in before]
    columns = (pa.array(known[start : start + 9], FILES) for start in range(0, len(known), 9))
    found = [
        (row, own[0]["name"])
        for batch, column in merged.batches(columns, files)
        for row, own in zip(batch.to_pylist(), column.to_pylist(), strict=True)
    ]
    expected = {row["video"]: row for row in [*before, *new]}
    assert [row["video"] for row, _ in found] == sorted(expected)
    anew = {row["video"] for row in new}
    for row, name in found:
        parts = {"part": "", "fingerprint_part": ""}
        assert {**row, **parts} == {**expected[row["video"]], **parts}
        assert name == ("new " if row["video"] in anew else "old ") + row["video"]
        for plan in plans:
            there = [*(part.name for part in plan.parts), *plan.kept]
            assert row[plan.kind.part] in there or not row[plan.kind.n_rows]
    placed = Placed(pa.chunked_array([["v000", "gone"]]), pa.chunked_array([["killed", *before[0]["clips"]]]))
    had = {clip for row in before if row["video"] in anew for clip in row["clips"]}
    assert sorted(gone_clips(merged, placed)) == sorted({*had, "killed"})
    assert gone_videos(merged, placed) == ["gone"]


@pytest.mark.parametrize("kind", [EMBEDDINGS, TRACKS, CAPTIONS], ids=lambda kind: kind.name)
def test_videos_whose_rows_are_lost_are_done_again(kind: RowKind, rng: np.random.Generator) -> None:
    before, _ = before_and_new(rng)
    lost = "part-00001.parquet"
    found = without_lost(columns_of(before), kind, "emb", frozenset({f"emb/{lost}", "other.json"}))
    for was, now in zip(before, found, strict=True):
        is_lost = was[kind.part] == lost and was[kind.n_rows] > 0
        assert now == ({**was, kind.part: "", "stamp": "", kind.n_rows: 0} if is_lost else was)


def test_the_memory_of_rows_is_what_is_said_of_it(rng: np.random.Generator) -> None:
    n_clips, rows = 10, []
    for i in range(2000):
        clips = [f"{i:08x}-aaaa-bbbb-cccc-{j:012x}" for j in range(n_clips)]
        rows.append({**row_of(f"folder/video-{i:06d}.mp4", rng), "status": "done", "reason": "", "clips": clips})
        rows[-1].update(stamp="1700000000000000000", clip_faults=[], part="", fingerprint_part="")
    found = sum(batch.nbytes for batch in columns_of(rows).batches)
    expected = rows_memory(2000, 2000 * n_clips, len("folder/video-000000.mp4"))
    assert found == pytest.approx(expected, rel=0.2)
