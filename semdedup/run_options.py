"""What the whole way has beside the settings of its parts, each declared here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from semdedup.dedup.threshold.rule import EPS
from semdedup.settings import INPUT, METHOD, Kind, setting
from semdedup.settings.choices import DropWhen
from semdedup.settings.kinds import path, paths
from semdedup.settings.shared import SharedOptions, clear_output_setting
from semdedup.shards.options import DROP_WHEN, DUPLICATE_WHEN
from semdedup.storage.kwargs import FSSPEC, kwargs_setting

if TYPE_CHECKING:
    from semdedup.storage.location import Paths


Eps = float | Mapping[str, float]
"""A threshold of all embedders of a run, or of some of them by their names."""


def _eps_by_embedder() -> Kind:
    def plain(value: Any) -> Eps:
        if not isinstance(value, Mapping):
            found: float = EPS.kind.plain(value)
            return found
        if not value or not all(isinstance(name, str) for name in value):
            raise TypeError
        return {name: EPS.kind.plain(each) for name, each in value.items()}

    def parse(text: str) -> Any:
        if "=" not in text:
            return EPS.kind.parse(text)
        pairs = [part.partition("=") for part in text.split(",")]
        found = {name.strip(): EPS.kind.parse(each.strip()) for name, _, each in pairs}
        return found if len(found) == len(pairs) else text  # one that stands there twice is refused

    return replace(EPS.kind, words=f"{EPS.kind.words}, or be such numbers by embedder, as in hf=0.05", plain=plain,
                   parse=parse)  # fmt: skip


EPS_BY_EMBEDDER = _eps_by_embedder()


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
    eps: Eps | None = setting(
        None,
        EPS_BY_EMBEDDER,
        f"{EPS.help} Of several embedders by name: dct3d=0.4,hf=0.05. By default what each recommends, else 0.1.",
        heading=METHOD,
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
