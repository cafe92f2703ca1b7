"""What distinguishes `split`, `embed` and `caption` where results go: names in the record, tables, folders of rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from semdedup.runs.places import CAPTIONS_ENDING
from semdedup.runs.record import Record
from semdedup.video.fingerprint import VERSION
from semdedup.video.records import columns_with
from semdedup.video.row_files import CAPTIONS, TRACKS, RowKind, embedding_kinds
from semdedup.video.tree import (
    ANNOTATION_VERSION,
    CHUNK_RECORDS,
    CLIPS,
    FINGERPRINTS,
    METAS,
    PREVIEWS,
    QUARANTINE,
    SUMMARY,
    VIDEO_RECORDS,
)

SPLIT, VIDEOS = "split", "_videos.parquet"
FINGERPRINT_VERSION = "fingerprint_version"
"""Parameter of the steps that write tracks."""


@dataclass(frozen=True)
class Kind:
    """What distinguishes `split`, `embed` and `caption`.

    Attributes:
        step: name in the record.
        table: the table of videos.
        quarantine: the table of videos in quarantine.
        folders: of the embeddings, one for each embedder, in the order of their names.
        owns_clips: whether clips, metadata and records are this step's.
        tracks: whether it writes the fingerprint tracks of the videos.
        captions: folder of the captions; empty where there are none.
    """

    step: str
    table: str
    quarantine: str
    folders: tuple[str, ...]
    owns_clips: bool
    tracks: bool
    captions: str = ""

    def on(self, record: Record, anew: bool = False) -> Kind:
        """The kind as it is in a folder with this record.

        A folder has its tracks from one step: `embed` writes none where another step has them on record: several
        embedders of the same videos would write the same. A step keeps to what it began with in a folder.

        Args:
            record: of the folder.
            anew: as it would be if this step had never been there.
        """
        if self.owns_clips:
            return self
        of = {name for name, entry in record.steps.items() if FINGERPRINT_VERSION in entry["parameters"]}
        has_begun = self.step in record.steps and not anew
        return replace(self, tracks=self.step in of if has_begun else self.tracks and not of - {self.step})

    @property
    def rows(self) -> dict[str, RowKind]:
        """Folders of rows of videos, in Parquet files, and what they hold."""
        captions = {self.captions: CAPTIONS} if self.captions else {}
        return {**embedding_kinds(self.folders), **captions, **({FINGERPRINTS: TRACKS} if self.tracks else {})}

    @property
    def columns(self) -> pa.Schema:
        """Columns of the table of videos."""
        return columns_with(name for rows in self.rows.values() for name in (rows.n_rows, rows.part))

    @property
    def parameters(self) -> dict[str, str]:
        """What the results depend on beside the parameters of the workflow."""
        return {FINGERPRINT_VERSION: VERSION} if self.tracks else {}

    @property
    def clip_quarantine(self) -> str:
        """The table of clips in quarantine."""
        return f"{QUARANTINE}/{'' if self.owns_clips else f'{self.label}_'}clips.parquet"

    @property
    def label(self) -> str:
        """What names of its files have in them, where it makes no clips: its folders."""
        return label_of(self.folders) or self.captions

    @property
    def written(self) -> Mapping[str, re.Pattern[str]]:
        """What the names of the files of the step look like: a record or a table that names others is not believed."""
        names = [re.escape(name) for name in (self.table, self.quarantine, self.clip_quarantine)]
        if self.owns_clips:
            names += [r"[^/]+_(?:embd|caption)_parquet/part-\d+\.parquet", re.escape(SUMMARY)]
            names += [rf"{CLIPS}/[^/]+\.mp4", rf"{PREVIEWS}/[^/]+\.webp", rf"{METAS}/{ANNOTATION_VERSION}/[^/]+\.json"]
            names += [rf"{VIDEO_RECORDS}/.+\.json", rf"{CHUNK_RECORDS}/.+_0\.json"]
        else:
            names += [rf"{re.escape(folder)}/part-\d+\.parquet" for folder in (*self.folders, self.captions) if folder]
        if self.tracks:
            names.append(rf"{FINGERPRINTS}/part-\d+\.parquet")
        return {self.step: re.compile("|".join(names), re.DOTALL)}


def label_of(folders: Sequence[str]) -> str:
    """What a step that embeds clips that exist is called by its folders.

    >>> label_of(["dct3d_embd_parquet", "hf_embd_parquet"])
    'dct3d_embd_parquet+hf_embd_parquet'
    """
    return "+".join(folders)


def split_kind(folders: Sequence[str] = (), captions: str = "") -> Kind:
    """Clips and, if there are folders for them, embeddings and captions."""
    return Kind(SPLIT, VIDEOS, f"{QUARANTINE}/videos.parquet", tuple(folders), True, True, captions)


def embed_kind(folders: Sequence[str], tracks: bool) -> Kind:
    """Embeddings of clips that exist, and tracks of those that are videos themselves, not clips of a split."""
    label = label_of(folders)
    table, quarantine = f"_{label}_clips.parquet", f"{QUARANTINE}/{label}.parquet"
    return Kind(f"embed {label}", table, quarantine, tuple(folders), False, tracks)


def caption_kind(folder: str) -> Kind:
    """Captions of clips that exist."""
    step = f"caption {folder.removesuffix(CAPTIONS_ENDING)}"
    return Kind(step, f"_{folder}_clips.parquet", f"{QUARANTINE}/{folder}.parquet", (), False, False, folder)
