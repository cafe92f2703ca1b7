"""`semdedup status`."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import click
from rich.console import Console
from rich.live import Live

from semdedup.cli.flags import Command, argument_of, show, work_flags
from semdedup.ctrl_c import EXIT_INTERRUPTED
from semdedup.runs.at_work import RUNNING, SECONDS_BETWEEN
from semdedup.runs.status import Status, read_status
from semdedup.settings.kinds import path


@click.command(cls=Command)
@argument_of("output_path", path(), "Folder that the run writes to.", metavar="OUT")
@click.option("--watch", is_flag=True, help="Go on until the run ends.")
@work_flags(on_dask=False, dry_run=False)
def status(output_path: str, watch: bool, as_json: bool, storage: dict[str, Any], verbose: bool) -> None:
    """Tell how far the run is that writes to OUT, from any machine; or how it ended.

    With --watch and --json there is a line of JSON for each change. The exit status is 0 whatever the state, 1 where
    there is no run, and 2 where there is no such path.

    \b
    Example:
      semdedup status out --watch
      semdedup status s3://bucket/out --json
    """
    del verbose
    try:
        found = read_status(output_path, storage)
        if watch and found.state == RUNNING:
            found = _watch(output_path, storage, found, as_json)
    except KeyboardInterrupt:  # of the one who watches
        sys.exit(EXIT_INTERRUPTED)
    show(found, as_json)


def _watch(output_path: str, storage: dict[str, Any], found: Status, as_json: bool) -> Status:
    """Show the status until the run ends; the last one."""
    console = Console()
    if as_json or not console.is_terminal:
        said = ""
        while found.state == RUNNING:
            line = json.dumps(found.to_json()) if as_json else found.line()
            if line != said:
                click.echo(line)
            said = line
            time.sleep(SECONDS_BETWEEN)
            found = read_status(output_path, storage)
        return found
    with Live(found.table(), console=console, transient=True, auto_refresh=False) as live:
        while found.state == RUNNING:
            live.update(found.table(), refresh=True)
            time.sleep(SECONDS_BETWEEN / 2)
            found = read_status(output_path, storage)
    return found
