"""The command line: each command parses, calls one function of the library, and prints what it gives back."""

from __future__ import annotations

import click

from semdedup import __version__
from semdedup.cli.calibrate import calibrate
from semdedup.cli.clean import clean
from semdedup.cli.dedup import dedup, extract
from semdedup.cli.demo import demo
from semdedup.cli.doctor import doctor
from semdedup.cli.estimate import estimate
from semdedup.cli.explain import explain
from semdedup.cli.export import export
from semdedup.cli.leaks import leaks
from semdedup.cli.overlaps import overlaps
from semdedup.cli.pairs import pairs
from semdedup.cli.report import report
from semdedup.cli.run import run
from semdedup.cli.shard import shard
from semdedup.cli.status import status
from semdedup.cli.video import embed, split


class Program(click.Group):
    """The program; its commands are listed in the order of the work."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order in which they were added."""
        return list(self.commands)


@click.group("semdedup", cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="semdedup")
def main() -> None:
    """Turn videos into a training set without near-duplicates, on Dask, with or without GPUs.

    \b
    Try it:
      semdedup demo
    """


for command in (
    run,
    split,
    embed,
    estimate,
    dedup,
    report,
    calibrate,
    extract,
    explain,
    pairs,
    overlaps,
    leaks,
    shard,
    export,
    status,
    clean,
    doctor,
    demo,
):
    main.add_command(command)
