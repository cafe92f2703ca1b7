"""The settings of shards, each declared here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, get_args

from semdedup.dedup.threshold.rule import EPS, REMOVAL
from semdedup.errors import ParameterError
from semdedup.settings import INPUT, OUTPUT, Found, Kind, Options, Setting, setting, shown
from semdedup.settings.choices import DropWhen, RemovalRule
from semdedup.settings.kinds import choice, number, path, several, text, truth, whole
from semdedup.settings.shared import SharedOptions
from semdedup.shards.conditions import parsed
from semdedup.shards.layouts import LAYOUTS
from semdedup.storage.kwargs import STORAGE, kwargs_setting
from semdedup.video.tree import ANNOTATION_VERSION

MIB = 1 << 20
DROP_WHEN = Setting(
    choice(*get_args(DropWhen)),
    "either",
    "Which clips go: those that go by overlap or are near-duplicates of others (either), or those of which both is so.",
    "drop_when",
)
DUPLICATE_WHEN = Setting(
    choice(*get_args(DropWhen)),
    "either",
    "Of several embedders: which clips are near-duplicates, those that are so by one of them (either) or all (both).",
    "duplicate_when",
)
SHUFFLE_SEED = replace(whole(), words="be a whole number, or None")


def _embeddings(value: Any) -> bool | str:
    return value if isinstance(value, str) and value else truth().plain(value)


def _folder(text: str) -> bool | str:
    return text or True


def _condition(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    try:
        parsed(value)
    except ValueError as error:
        raise Found(f"{shown(value)}: {error}") from None
    return value


KEEP_IF = replace(
    several("be conditions on columns, as in motion > 0.1 and height >= 480", Kind("", _condition)),
    metavar="CONDITION",
    commas=False,
)


def _layout(value: Any) -> str:
    if not isinstance(value, str) or value not in LAYOUTS:  # as it is now: users may add to it
        raise ValueError
    return value


LAYOUT = Kind(f"be one of {', '.join(LAYOUTS)}", _layout, metavar="|".join(LAYOUTS))


@dataclass(frozen=True)
class ShardOptions(Options):
    """What shards look like."""

    heading: ClassVar[str] = OUTPUT

    annotation_version: str = setting(
        ANNOTATION_VERSION,
        text("be the name of a folder", r"[A-Za-z0-9_-][A-Za-z0-9._-]*"),
        "Which metadata: that of the folder metas/VERSION.",
    )
    layout: str = setting(
        "flat", LAYOUT, "00000.tar, …, samples whole; or the tree of cosmos-curate, binned, in tars by kind."
    )
    samples_per_shard: int = setting(10_000, whole(1), "Most samples of a shard.")
    target_tar_size_mb: float = setting(
        500.0, number(0, open_below=True), "Most MiB of a shard; a sample that is larger has a shard of its own."
    )
    with_embeddings: bool | str = setting(
        False,
        Kind("be true or false, or the name of a folder of embeddings", _embeddings, _folder, "[FOLDER]"),
        "Write {key}.npy too; name the folder of embeddings where there are several.",
    )
    shuffle_seed: int | None = setting(
        None, SHUFFLE_SEED, "Shuffle the samples by this seed; in the order of their ids by default."
    )
    keep_if: tuple[str, ...] = setting(
        (), KEEP_IF, "Keep only clips of which all these are true, as in 'motion > 0.1 and height >= 480'; else all."
    )

    def recorded(self) -> dict[str, Any]:
        """The settings by name, without conditions where there are none, so that datasets of before go on."""
        return {name: value for name, value in super().recorded().items() if name != "keep_if" or value}

    def check_together(self) -> None:
        """A layout may have no place for embeddings."""
        if self.with_embeddings and "npy" not in LAYOUTS[self.layout].tar_columns:
            others = " or ".join(name for name, layout in LAYOUTS.items() if "npy" in layout.tar_columns)
            raise ParameterError(
                f"with_embeddings: the layout {self.layout} has no place for embeddings; take the layout {others}"
            )

    @property
    def most_bytes(self) -> int:
        """Most bytes of the samples of a shard."""
        return int(self.target_tar_size_mb * MIB)


@dataclass(frozen=True)
class DropOptions(Options):
    """What is dropped."""

    input_semantic_dedup_path: str | None = setting(
        None, path(), "Result of dedup, whose duplicates are dropped; none by default.", heading=INPUT
    )
    semantic_dedup_epsilon: float | None = setting(
        None,
        EPS.kind,
        f"{EPS.help} By default the eps that the result was extracted at.",
        aliases=["eps"],
        flags=["--eps", "--semantic-dedup-epsilon"],
    )
    removal: RemovalRule | None = setting(None, REMOVAL.kind, f"{REMOVAL.help} By default the rule of the result.")

    input_overlaps_path: str | None = setting(
        None, path(), "Output of overlaps, whose clips go, too; of a run it is found by itself.", heading=INPUT
    )
    drop_when: DropWhen | None = setting(
        None, DROP_WHEN.kind, f"{DROP_WHEN.help} By default as the run did, else {DROP_WHEN.default}."
    )
    duplicate_when: DropWhen | None = setting(
        None, DUPLICATE_WHEN.kind, f"{DUPLICATE_WHEN.help} By default as the run did."
    )

    def check_together(self) -> None:
        """An eps and a rule need scores."""
        for name in ("semantic_dedup_epsilon", "removal"):
            if self.input_semantic_dedup_path is None and getattr(self, name) is not None:
                raise ParameterError(
                    f"{name} is given, but no scores: name them by input_semantic_dedup_path "
                    "(--input-semantic-dedup-path)"
                )


@dataclass(frozen=True)
class ShardIOOptions(SharedOptions):
    """Where to read and write."""

    input_clip_path: str | None = setting(None, path(), "Output of split, or a folder of MP4 files.", heading=INPUT)
    output_dataset_path: str | None = setting(None, path(), "Folder for the dataset, local or s3://.")
    read_kwargs: dict[str, Any] | None = kwargs_setting(STORAGE, "storage_options of the input.")
    write_kwargs: dict[str, Any] | None = kwargs_setting(STORAGE, "storage_options of the output.")
