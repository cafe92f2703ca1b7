"""What is written down of videos and clips, as plain values: tables and JSON. Fields have the peers' names, if any."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from semdedup.storage.tables import EMBEDDER, FINGERPRINT, RECOMMENDED_EPS
from semdedup.video.fingerprint import DIM, VERSION
from semdedup.video.steps.caption.captioner import CaptionSpec
from semdedup.video.steps.caption.windows import WINDOWS, is_windows, with_captions
from semdedup.video.steps.protocol import StepSpec
from semdedup.video.steps.table import SCORES, columns_of, counted
from semdedup.video.tree import CLIPS, version_key

DONE, TOO_SHORT, QUARANTINED = "done", "too_short", "quarantined"


@dataclass(frozen=True, slots=True)
class VideoFile:
    """A file of the input, and what distinguishes it from a later version.

    Attributes:
        relative_path: path below the input folder, with ``/``; printable, whatever the name of the file holds.
        url: where it is.
        n_bytes: its size.
        stamp: what its storage says of its version.
        known: whether an earlier run may have written clips of it.
    """

    relative_path: str
    url: str
    n_bytes: int
    stamp: str
    known: bool = False

    @property
    def version(self) -> str:
        """What tells this version of the video from others."""
        return version_key(self.relative_path, self.n_bytes, self.stamp)


ROWS = pa.schema(
    {
        "id": pa.string(),
        "embedding": pa.list_(pa.float32()),
        "video": pa.string(),
        "start_s": pa.float64(),
        "end_s": pa.float64(),
        "duration_s": pa.float64(),
        "width": pa.int32(),
        "height": pa.int32(),
        "fps": pa.float64(),
        "bitrate": pa.int64(),
        "n_frames": pa.int32(),
    }
)
"""Columns of the embeddings: a row a clip. What is beside `embedding` serves to rank duplicates. Steps add others."""

TRACK_ROWS = pa.schema(
    {"video": pa.string(), "t_s": pa.float64(), "fingerprint": pa.list_(pa.int8(), DIM)},
    metadata={FINGERPRINT: VERSION.encode()},
)
"""Columns of the fingerprint tracks: a row for each half second of a video, with the moment in its own time."""

CAPTION_ROWS = pa.schema(
    {
        "id": pa.string(),
        "start_frame": pa.int32(),
        "end_frame": pa.int32(),
        "caption": pa.string(),
        "model": pa.string(),
    }
)
"""Columns of the captions of a model: a row for each window of a clip, both ends included."""

PASSED_OVER = {
    "bad_frames": (pa.int64(), "frames that cannot be decoded"),
    "bad_audio_packets": (pa.int64(), "packets of sound that cannot be decoded"),
    "gap_s": (pa.float64(), "seconds without a new frame"),
    "other_tracks": (pa.int64(), "other video and audio tracks"),
}
"""What of the videos is not in their clips: columns of the table of videos, with their types, and in words."""

VIDEO_COLUMNS = pa.schema(
    {
        "video": pa.string(),
        "url": pa.string(),
        "n_bytes": pa.int64(),
        "stamp": pa.string(),
        "status": pa.string(),
        "reason": pa.string(),
        "detail": pa.string(),
        "width": pa.int64(),
        "height": pa.int64(),
        "bitrate": pa.int64(),
        "duration_s": pa.float64(),
        "n_frames": pa.int64(),
        "n_frames_declared": pa.int64(),
        **{name: kind for name, (kind, _) in PASSED_OVER.items()},
        "clips": pa.list_(pa.string()),
        "clip_seconds": pa.float64(),
        "longest_clip_s": pa.float64(),
        "clip_bytes": pa.int64(),
        "n_rows": pa.int64(),
        **{f"n_{name}": pa.int64() for name in counted()},
        "meta_faults": pa.list_(pa.string()),
        "clip_faults": pa.list_(pa.struct(dict.fromkeys(("id", "reason", "detail", "step"), pa.string()))),
        "part": pa.string(),
        "n_fingerprints": pa.int64(),
        "fingerprint_part": pa.string(),
        **{f"clip_{name}": pa.list_(pa.float32()) for name in SCORES},
        "n_captioned": pa.int64(),
        "n_captions": pa.int64(),
        "caption_part": pa.string(),
    }
)
"""Columns of the table of videos: a row a video, whatever became of it. Tables of before may lack the later ones.

`width`, `height`, `bitrate`: of the video itself, which rank videos that show the same. `n_rows`, `part`: embeddings of
its clips, and the file that they are in; of several embedders `n_rows` counts the clips that all have embedded, and
each has columns of its own, see `of_embedder`. `n_fingerprints`, `fingerprint_part`: those of its track; `n_captions`,
`caption_part`: captions of windows of its clips, of which `n_captioned` have them. `meta_faults`: metadata of clips
that exist which could not be used, with what is wrong with them. `clip_faults`: clips in quarantine, with the step that
failed on it. One that failed to be embedded is among `clips` as well, for its file is kept. `clip_motion`,
`clip_sharpness`: of each of `clips`, in this order, where it is measured.
"""

OF_EACH = ("n_rows", "part")
"""Columns of which each of several embedders has its own."""


def of_embedder(column: str, folder: str) -> str:
    """What a column is called that is of one of several embedders, by its folder: ``n_rows_hf_embd_parquet``."""
    return f"{column}_{folder}"


def type_of(column: str) -> pa.DataType:
    """The type of a column of the table of videos."""
    plain = next((name for name in OF_EACH if column.startswith(f"{name}_")), column)
    return VIDEO_COLUMNS.field(plain).type


def columns_with(names: Iterable[str]) -> pa.Schema:
    """The columns of a table with these, beside `VIDEO_COLUMNS`."""
    more = [pa.field(name, type_of(name)) for name in names if name not in VIDEO_COLUMNS.names]
    return pa.schema([*VIDEO_COLUMNS, *more])


FILES = pa.list_(pa.struct({"name": pa.string(), "bytes": pa.int64(), "checksum": pa.string()}))
"""Column `files` of the table that is stored: what of the folder is a video's own, as written."""

QUARANTINE_COLUMNS = pa.schema({"id": pa.string(), "reason": pa.string(), "source": pa.string(), "detail": pa.string()})


def rows_schema(steps: Sequence[StepSpec], embedder: str = "", recommended_eps: float | None = None) -> pa.Schema:
    """The schema of the embeddings, with the columns of the steps, and in its metadata what the dedup reads."""
    metadata = {EMBEDDER: embedder.encode()}
    if recommended_eps is not None:
        metadata[RECOMMENDED_EPS] = repr(recommended_eps).encode()
    added = [pa.field(name, pa.type_for_alias(kind)) for name, kind in columns_of(steps).items()]
    return pa.schema([*ROWS, *added], metadata=metadata)


def with_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table of embeddings with these columns: null where it was written before a step had a column."""
    columns = [
        table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema.remove_metadata())


def video_row(note: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the table of videos, from all that is known of one; the files of its rows are not yet."""
    facts, clips = note["facts"], note["clips"]
    return {
        **{name: note[name] for name in ("video", "url", "n_bytes", "stamp", "status", "reason", "detail")},
        **{name: facts.get(name, 0) for name in ("width", "height", "bitrate")},
        "meta_faults": note["meta_faults"],
        "clip_faults": note["clip_faults"],
        "duration_s": facts.get("duration_s", 0.0),
        "n_frames": facts.get("n_frames", 0),
        "n_frames_declared": facts.get("n_frames_declared", 0),
        **{name: facts.get(name, 0) for name in PASSED_OVER},
        "other_tracks": len(facts.get("tracks_left_out", ())),
        "clips": [clip["id"] for clip in clips],
        "clip_seconds": round(sum(clip["duration_s"] for clip in clips), 6),
        "longest_clip_s": max((clip["duration_s"] for clip in clips), default=0.0),
        "clip_bytes": sum(clip.get("n_bytes", 0) for clip in clips),
        **{f"n_{name}": sum(clip.get(name, False) for clip in clips) for name in counted()},
        "n_rows": note["n_rows"],
        "part": "",
        **note["of_embedders"],
        "n_fingerprints": note["n_fingerprints"],
        "fingerprint_part": "",
        **{f"clip_{name}": [clip[name] for clip in clips] for name in SCORES if clips and name in clips[0]},
        "n_captioned": sum(bool(clip.get(WINDOWS)) for clip in clips),
        "n_captions": sum(len(clip.get(WINDOWS) or ()) for clip in clips),
        "caption_part": "",
    }


def clip_meta(
    clip: Mapping[str, Any], note: Mapping[str, Any], earlier: Mapping[str, Any], steps: Sequence[StepSpec]
) -> dict[str, Any]:
    """What ``metas/v0/{id}.json`` holds. What others added to it earlier, captions for one, is carried along.

    Args:
        clip, note: what is known of the clip, and of its video.
        earlier: what the file held.
        steps: of the run.
    """
    facts = note["facts"]
    written = clip.get("n_bytes") is not None
    return {
        "windows": [],
        **earlier,
        "id": clip["id"],
        "span_uuid": clip["id"],
        "video": note["video"],
        "source_video": note["url"],
        "duration_span": [clip["start_s"], clip["end_s"]],
        "width_source": facts["width"],
        "height_source": facts["height"],
        "framerate_source": facts["fps"],
        "clip_location": f"{CLIPS}/{clip['id']}.mp4" if written else None,
        "width": clip["width"],
        "height": clip["height"],
        "framerate": clip["fps"],
        "num_frames": clip["n_frames"],
        "video_codec": clip.get("codec"),
        "num_bytes": clip.get("n_bytes"),
        "has_audio": clip.get("audio"),
        "audio_changes": clip.get("audio_changes", []),
        "bad_frames": clip.get("bad_frames", 0),
        "interlaced": clip.get("interlaced"),
        "transfer": clip.get("transfer"),
        "bitrate_source": clip["bitrate"],
        **{name: clip.get(name) for step in steps for name in step.facts if name != WINDOWS},
        **captioned(clip, earlier, steps),
        "valid": written,
    }


def captioned(clip: Mapping[str, Any], earlier: Mapping[str, Any], steps: Sequence[StepSpec]) -> dict[str, Any]:
    """The field `WINDOWS` of metadata with the captions of a run, beside those of others; nothing where there are none.

    Earlier windows that are malformed go.
    """
    spec = next((step for step in steps if isinstance(step, CaptionSpec)), None)
    if spec is None:
        return {}
    before: Any = earlier.get(WINDOWS)
    return {WINDOWS: with_captions(before if is_windows(before) else [], spec.model, clip.get(WINDOWS) or [])}


def meta_of_file(clip: Mapping[str, Any], earlier: Mapping[str, Any], steps: Sequence[StepSpec]) -> dict[str, Any]:
    """The metadata of a clip that is a file, with its captions: what they held, or what the file tells."""
    told = {
        "id": clip["id"],
        "span_uuid": clip["id"],
        "width": clip["width"],
        "height": clip["height"],
        "framerate": clip["fps"],
        "num_frames": clip["n_frames"],
        "valid": True,
    }
    return {**(earlier or told), **captioned(clip, earlier, steps)}


def video_record(note: Mapping[str, Any]) -> dict[str, Any]:
    """What ``processed_videos/{video}.json`` holds."""
    facts = note["facts"]
    return {
        "video": note["video"],
        "status": note["status"],
        "reason": note["reason"],
        "detail": note["detail"],
        "width": facts.get("width"),
        "height": facts.get("height"),
        "framerate": facts.get("fps"),
        "num_frames": facts.get("n_frames"),
        "num_frames_declared": facts.get("n_frames_declared"),
        "duration": facts.get("duration_s"),
        "bitrate": facts.get("bitrate"),
        "video_codec": facts.get("codec"),
        "pixel_format": facts.get("pixel_format"),
        "audio_format": facts.get("audio_codec"),
        "container": facts.get("container"),
        "interlaced": facts.get("interlaced"),
        "transfer": facts.get("transfer"),
        "gap_s": facts.get("gap_s"),
        "bad_frames": facts.get("bad_frames"),
        "bad_audio_packets": facts.get("bad_audio_packets"),
        "tracks_left_out": facts.get("tracks_left_out", []),
        "num_total_clips": len(note["clips"]) + len(note["rejected"]),
        "num_clip_chunks": 1,
    }


def chunk_record(note: Mapping[str, Any]) -> dict[str, Any]:
    """What ``processed_clip_chunks/{video}_0.json`` holds."""
    clips = note["clips"]
    return {
        "video": note["video"],
        "clip_chunk_index": 0,
        "num_clips_passed": len(clips),
        "num_clips_transcoded": sum(clip.get("n_bytes") is not None for clip in clips),
        "num_clips_with_embeddings": note["n_rows"],
        "num_clips_with_caption": sum(bool(clip.get(WINDOWS)) for clip in clips),
        "num_clips_with_webp": sum(clip.get("preview", False) for clip in clips),
        "total_clip_duration": round(sum(clip["duration_s"] for clip in clips), 6),
        "max_clip_duration": max((clip["duration_s"] for clip in clips), default=0.0),
        "clips": [clip["id"] for clip in clips],
        "filtered_clips": note["rejected"],
    }
