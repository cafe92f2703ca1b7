"""`semdedup overlaps`."""

from __future__ import annotations

from typing import Any

import click

from semdedup.cli.flags import Command, argument_of, given_of, output_flag, setting_flags, show, show_plan, work_flags
from semdedup.compute.options import ClusterOptions
from semdedup.overlaps.options import OverlapsOptions
from semdedup.overlaps.search import OverlapSearch
from semdedup.settings.kinds import path
from semdedup.settings.shared import SharedOptions


@click.command(cls=Command)
@argument_of("clips", path(), "Output folder of split or embed, or the root of a run.")
@output_flag(required=True)
@setting_flags(OverlapsOptions)
@setting_flags(SharedOptions, only=["clear_output", "take_over", "verify"])
@work_flags()
def overlaps(
    clips: str,
    as_json: bool,
    dry_run: bool,
    cluster: ClusterOptions,
    storage: dict[str, Any],
    verbose: bool,
    **flags: Any,
) -> None:
    """Find which stretch of which video is which stretch of another.

    CLIPS is an output folder of `semdedup split` or `semdedup embed`, or the root of a `semdedup run`.

    \b
    Example:
      semdedup overlaps clips --output-path clips/overlaps
    """
    search = OverlapSearch(clips, storage_options=storage, verbose=verbose, **given_of(flags))
    if dry_run:
        show_plan(search.plan(), as_json)
        return
    show(search.run(cluster=cluster), as_json)
