"""The folder that `split` writes: where everything is in it. The names are those of the peers' clip writer::

clips/{id}.mp4                          the clips
metas/v0/{id}.json                      what is known of each
previews/{id}.webp
dct3d_embd_parquet/part-00000.parquet   embeddings, one folder for each embedder
qwen_caption_parquet/part-00000.parquet captions, one folder for each model that captions
fingerprints/part-00000.parquet         fingerprint tracks of the videos: two vectors a second
processed_videos/{video}.json           how each video ended
processed_clip_chunks/{video}_0.json    its clips
summary.json                            counts over everything in the folder
_quarantine/videos.parquet              videos that failed, with the reason
_quarantine/clips.parquet               clips that failed while their video went on
_videos.parquet                         every video that was looked at, with its files: what a later run goes by
"""

from __future__ import annotations

import hashlib
import os

CLIPS, PREVIEWS, METAS = "clips", "previews", "metas"
VIDEO_RECORDS, CHUNK_RECORDS = "processed_videos", "processed_clip_chunks"
FINGERPRINTS = "fingerprints"
SUMMARY, QUARANTINE = "summary.json", "_quarantine"
ANNOTATION_VERSION = "v0"

LONGEST_NAME = 200
"""Most bytes of one part of a path that stays as it is: file systems allow 255, and endings are added."""


def get_output_path_clips(output_path: str) -> str:
    """Folder of the clips: ``{id}.mp4``."""
    return _below(output_path, CLIPS)


def get_output_path_metas(output_path: str, version: str = ANNOTATION_VERSION) -> str:
    """Folder of what is known of each clip: ``{id}.json``."""
    return _below(output_path, METAS, version)


def get_output_path_previews(output_path: str) -> str:
    """Folder of the previews: ``{id}.webp``."""
    return _below(output_path, PREVIEWS)


def get_output_path_processed_videos(output_path: str) -> str:
    """Folder of how each video ended: ``{path of the video}.json``."""
    return _below(output_path, VIDEO_RECORDS)


def get_output_path_processed_clip_chunks(output_path: str) -> str:
    """Folder of the clips of each video: ``{path of the video}_0.json``."""
    return _below(output_path, CHUNK_RECORDS)


def get_output_path_embd_parquet(output_path: str, folder: str) -> str:
    """Folder of the embeddings of one embedder, by its name: ``dct3d_embd_parquet``."""
    return _below(output_path, folder)


def get_output_path_fingerprints(output_path: str) -> str:
    """Folder of the fingerprint tracks of the videos."""
    return _below(output_path, FINGERPRINTS)


def get_output_path_iv2_embd_parquet(output_path: str) -> str:
    """Folder of the embeddings of InternVideo2."""
    return _below(output_path, "iv2_embd_parquet")


def get_output_path_ce1_embd_parquet(output_path: str, variant: str | None = None) -> str:
    """Folder of the embeddings of Cosmos-Embed1, of one variant (``224p``) or of none in particular."""
    return _below(output_path, f"ce1_embd_{variant}_parquet" if variant else "ce1_embd_parquet")


def get_output_path_dct3d_embd_parquet(output_path: str) -> str:
    """Folder of the embeddings of ``dct3d``."""
    return _below(output_path, "dct3d_embd_parquet")


def _below(output_path: str, *parts: str) -> str:
    return "/".join([os.fspath(output_path).rstrip("/") or "/", *parts])


def record_name(relative_path: str) -> str:
    """The path of a video as the path of a record: it cannot leave the folder, and no part of it is too long.

    Different paths have different records, also in stores whose keys may have parts that are empty.

    >>> record_name("a/b.mp4"), record_name("a//b.mp4"), record_name("../../b.mp4")
    ('a/b.mp4', 'a/%2F/b.mp4', '%2E%2E/%2E%2E/b.mp4')
    """
    return "/".join(map(_safe, relative_path.split("/")))


def _safe(part: str) -> str:
    part = part.replace("%", "%25").replace("\0", "%00") or "%2F"
    if part in (".", ".."):
        return part.replace(".", "%2E")
    content = part.encode()
    if len(content) <= LONGEST_NAME:
        return part
    digest = hashlib.sha256(content).hexdigest()[:16]
    return content[: LONGEST_NAME - 17].decode(errors="ignore") + "-" + digest


def file_key(text: str) -> str:
    """A short name for a video, or a version of one, that is safe as the name of a file."""
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def version_key(relative_path: str, n_bytes: int, stamp: str) -> str:
    """A short name for a video as it is now."""
    return file_key("\0".join([relative_path, str(n_bytes), stamp]))


def files_of_clip(clip: str) -> list[str]:
    """Names of what there may be of a clip, but for what is known of it."""
    return [f"{CLIPS}/{clip}.mp4", f"{PREVIEWS}/{clip}.webp"]


def meta_of_clip(clip: str) -> str:
    """Name of what is known of a clip; others add to it."""
    return f"{METAS}/{ANNOTATION_VERSION}/{clip}.json"


def records_of_video(video: str) -> list[str]:
    """Names of the records of a video."""
    name = record_name(video)
    return [f"{VIDEO_RECORDS}/{name}.json", f"{CHUNK_RECORDS}/{name}_0.json"]
