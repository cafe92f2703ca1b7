"""`semdedup doctor`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from semdedup.cli.flags import EXIT_FAILED, Command, flag_of, print_whole, show_json, work_flags
from semdedup.compute.options import ClusterOptions
from semdedup.display import one_line
from semdedup.doctor import ADVICE, FAULT, MISSING, OK, examine
from semdedup.settings import INPUT, OUTPUT, Setting
from semdedup.settings.kinds import paths
from semdedup.storage.location import Location

READS = Setting(paths(), None, "Paths that every worker must read.", "reads", flags=("--input-path",), heading=INPUT)
WRITES = Setting(
    paths(), None, "Folders that every worker must write to.", "writes", flags=("--output-path",), heading=OUTPUT
)
COLOURS = {OK: "green", MISSING: "yellow", ADVICE: "yellow", FAULT: "red"}


@click.command(cls=Command)
@flag_of(READS)
@flag_of(WRITES)
@work_flags(dry_run=False)
def doctor(
    reads: str | Sequence[str] | None,
    writes: str | Sequence[str] | None,
    as_json: bool,
    cluster: ClusterOptions,
    storage: dict[str, Any],
    verbose: bool,
) -> None:
    """Check versions, GPUs, scheduler, workers, free memory, and whether every worker sees the paths.

    Every check is shown, also after one that fails. The exit status is 1 where there is a fault.

    \b
    Example:
      semdedup doctor
      semdedup doctor --scheduler tcp://10.0.0.1:8786 --input-path s3://bucket/emb --output-path s3://bucket/out
    """
    del verbose
    findings = list(examine(cluster, *(_places(given, storage) for given in (reads, writes))))
    faults = [one_line(finding.subject) for finding in findings if finding.state == FAULT]
    if as_json:
        show_json({"findings": [asdict(finding) for finding in findings], "faults": len(faults)})
    else:
        table = Table(title="semdedup doctor", title_justify="left", show_header=False)
        table.add_column(style="bold", overflow="fold")
        table.add_column(overflow="fold")
        table.add_column(no_wrap=True)
        for finding in findings:
            state = Text(finding.state, style=COLOURS[finding.state])
            table.add_row(one_line(finding.subject), one_line(" ".join(finding.found.split())), state)
        print_whole(table)
        is_one = len(faults) == 1
        click.echo(
            f"{len(faults)} {'fault' if is_one else 'faults'}: {', '.join(faults)}"
            if faults
            else f"All is well: {len(findings)} checks, no fault"
        )
    sys.exit(EXIT_FAILED if faults else 0)


def _places(given: str | Sequence[str] | None, storage: dict[str, Any]) -> list[Location]:
    several = [given] if isinstance(given, str) else given or ()
    return [Location.of(path, storage) for path in several]
