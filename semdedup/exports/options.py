"""The settings of an export, each declared here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, get_args

from semdedup.dedup.threshold.rule import EPS, REMOVAL
from semdedup.errors import ParameterError
from semdedup.settings import INPUT, METHOD, OUTPUT, Options, setting
from semdedup.settings.choices import ExportFormat, RemovalRule
from semdedup.settings.kinds import choice, path, paths, text
from semdedup.settings.shared import NO_PART, clear_output_setting
from semdedup.storage.location import Paths


@dataclass(frozen=True)
class ExportOptions(Options):
    """What is exported, and to where."""

    heading: ClassVar[str] = INPUT

    format: ExportFormat = setting(
        "hf",
        choice(*get_args(ExportFormat)),
        "hf: a data set that load_dataset reads; parquet: the same without its card; lance: scores and ids to keep.",
        heading=OUTPUT,
    )
    input_embeddings_path: Paths | None = setting(
        None,
        paths(),
        "The embeddings that the result is of; of semdedup run found by itself. Not needed for lance.",
        unrecorded=NO_PART,
    )
    clips_path: str | None = setting(
        None,
        path(),
        "Output of split, or a folder of MP4 files: the kept clips are copied, as the videos of a data set (hf).",
        unrecorded=NO_PART,
    )
    eps: float | None = setting(
        None, EPS.kind, f"{EPS.help} By default the eps that the result was extracted at.", heading=METHOD
    )
    removal: RemovalRule | None = setting(
        None, REMOVAL.kind, f"{REMOVAL.help} By default the rule of the result.", heading=METHOD
    )
    id_field: str | None = setting(None, text("be the name of a column"), "Column of the ids; that of the result.")
    clear_output: bool = clear_output_setting("First delete what an earlier export wrote to the output path.")

    def check_together(self) -> None:
        """Clips are the videos of a data set."""
        if self.clips_path is not None and self.format != "hf":
            raise ParameterError(f"clips_path goes with format 'hf', not with {self.format!r}")
