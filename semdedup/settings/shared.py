"""What all workflows and stages take beside their own settings: what becomes of earlier results, and what is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypedDict

from semdedup.settings import OUTPUT, Options, setting
from semdedup.settings.kinds import truth

NO_PART = "how files are reached and laid out is no part of the answer"


def clear_output_setting(help: str = "First delete what an earlier run of this wrote to the output path.") -> Any:
    """A field for making results anew."""
    return setting(False, truth(), help, flags=["--overwrite"], unrecorded=NO_PART, heading=OUTPUT)


@dataclass(frozen=True)
class SharedOptions(Options):
    """What becomes of earlier results, and how much is shown."""

    last: ClassVar[tuple[str, ...]] = ("clear_output", "verbose", "take_over", "verify")
    heading: ClassVar[str] = OUTPUT

    clear_output: bool = clear_output_setting()
    verbose: bool = setting(True, truth(), "Show progress.", unrecorded=NO_PART)
    take_over: bool = setting(
        False, truth(), "Go on in place of a run that seems to be at work in the output path.", unrecorded=NO_PART
    )
    verify: bool = setting(
        False, truth(), "Read the files of what is complete already, and compare their checksums.", unrecorded=NO_PART
    )


class Shared(TypedDict, total=False):
    """The same as keywords; `semdedup.settings.documented` names them in the signature."""

    clear_output: bool
    verbose: bool
    take_over: bool
    verify: bool


class SharedKeywords(Shared, total=False):
    """With the options for reading and writing, of those that have them apart."""

    read_kwargs: Mapping[str, Any] | None
    write_kwargs: Mapping[str, Any] | None
