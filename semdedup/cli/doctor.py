"""`semdedup doctor`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from semdedup.cli.flags import EXIT_FAILED, Command, flag_of, work_flags
from semdedup.compute.options import ClusterOptions
from semdedup.doctor import examine
from semdedup.settings import Setting
from semdedup.settings.kinds import paths
from semdedup.storage.location import Location

READS = Setting(paths(), None, "Paths that every worker must read.", "reads", flags=("--input-path",))
WRITES = Setting(paths(), None, "Folders that every worker must write to.", "writes", flags=("--output-path",))


@click.command(cls=Command)
@flag_of(READS)
@flag_of(WRITES)
@work_flags(dry_run=False)
def doctor(
    reads: Sequence[str] | None,
    writes: Sequence[str] | None,
    cluster: ClusterOptions,
    storage: dict[str, Any],
    verbose: bool,
) -> None:
    """Check versions, GPUs, scheduler, workers, free memory, and whether every worker sees the paths.

    \b
    Example:
      semdedup doctor --scheduler tcp://10.0.0.1:8786 --input-path s3://bucket/emb --output-path s3://bucket/out
    """
    del verbose
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
