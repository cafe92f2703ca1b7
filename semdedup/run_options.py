"""What the whole way has beside the settings of its parts, each declared here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from semdedup.dedup.threshold.rule import EPS
from semdedup.settings import INPUT, METHOD, setting
from semdedup.settings.choices import DropWhen
from semdedup.settings.kinds import path, paths
from semdedup.settings.shared import SharedOptions, clear_output_setting
from semdedup.shards.options import DROP_WHEN, DUPLICATE_WHEN
from semdedup.storage.kwargs import FSSPEC, kwargs_setting

if TYPE_CHECKING:
    from semdedup.storage.location import Paths


@dataclass(frozen=True)
class RunOptions(SharedOptions):
    """What the whole way has beside the settings of its parts."""

    input_path: Paths | None = setting(
        None,
        paths(),
        "Folder of videos, searched at any depth, file or glob; or several.",
        aliases=["video_dir"],
        flags=["--video-dir", "--input-video-path"],
        heading=INPUT,
    )
    output_path: str | None = setting(None, path(), "Folder for clips, dedup, report and dataset; local or s3://.")
    eps: float | None = setting(
        None, EPS.kind, f"{EPS.help} By default what the embedder recommends, else 0.1.", heading=METHOD
    )
    drop_when: DropWhen | None = setting(
        None,
        DROP_WHEN.kind,
        f"{DROP_WHEN.help} By default as in earlier runs there, else {DROP_WHEN.default}.",
        heading=METHOD,
    )
    duplicate_when: DropWhen | None = setting(
        None,
        DUPLICATE_WHEN.kind,
        f"{DUPLICATE_WHEN.help} By default as in earlier runs there, else {DUPLICATE_WHEN.default}.",
        heading=METHOD,
    )
    storage_options: dict[str, Any] | None = kwargs_setting(FSSPEC, "Options for fsspec.")
    clear_output: bool = clear_output_setting(
        "Make overlaps, dedup and dataset anew; clips where their own parameters changed."
    )
