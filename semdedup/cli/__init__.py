"""The command line: each command parses, calls one function of the library, and prints what it gives back."""

from __future__ import annotations

import click

from semdedup import __version__
from semdedup.cli.dedup import dedup, extract
from semdedup.cli.demo import demo
from semdedup.cli.doctor import doctor
from semdedup.cli.report import report
from semdedup.cli.shard import shard
from semdedup.cli.video import embed, split


@click.group("semdedup", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="semdedup")
def main() -> None:
    """Remove near-duplicates from video training sets, on Dask, with or without GPUs.

    \b
    Try it:
      semdedup demo
    """


for command in (split, embed, dedup, extract, report, shard, doctor, demo):
    main.add_command(command)
