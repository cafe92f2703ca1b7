"""`semdedup doctor`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from semdedup.cli.flags import (
    EXIT_FAILED,
    Command,
    cluster_flags,
    cluster_of,
    flag_of,
    output_flags,
    storage_flags,
    storage_of,
    told_errors,
)
from semdedup.doctor import examine
from semdedup.settings import Setting
from semdedup.settings.kinds import paths
from semdedup.storage.location import Location

READS = Setting(paths(), None, "Paths that every worker must read.", "reads", flags=("--input-path",))
WRITES = Setting(paths(), None, "Folders that every worker must write to.", "writes", flags=("--output-path",))


@click.command(cls=Command)
@flag_of(READS)
@flag_of(WRITES)
@cluster_flags
@storage_flags
@output_flags
def doctor(reads: Sequence[str] | None, writes: Sequence[str] | None, verbose: bool, quiet: bool, **flags: Any) -> None:
    """Check versions, GPUs, scheduler, workers, free memory, and whether every worker sees the paths.

    \b
    Example:
      semdedup doctor --scheduler tcp://10.0.0.1:8786 --input-path s3://bucket/emb --output-path s3://bucket/out
    """
    del quiet
    with told_errors(verbose):
        cluster, storage = cluster_of(flags), storage_of(flags)
        table = Table(title="semdedup doctor", title_justify="left", show_header=False)
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        table.add_column()
        places = ([Location.of(path, storage) for path in paths] for paths in (reads or (), writes or ()))
        findings = list(examine(cluster, *places))
        for finding in findings:
            table.add_row(finding.subject, finding.found, "[green]ok[/green]" if finding.ok else "[red]fault[/red]")
        faults = sum(not finding.ok for finding in findings)
        Console().print(table, f"{faults} faults" if faults else "No faults were found.", highlight=False)
        sys.exit(EXIT_FAILED if faults else 0)
