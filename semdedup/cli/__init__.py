"""The command line: each command parses, calls one function of the library, and prints what it gives back."""

from __future__ import annotations

import click

from semdedup import __version__
from semdedup.cli.calibrate import calibrate
from semdedup.cli.clean import clean
from semdedup.cli.config import config
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
from semdedup.cli.video import caption, embed, split


class Program(click.Group):
    """The program; its commands are listed in the order of the work."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order in which they were added."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The first sentence of each, whole."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, _sentence(command.help or "")) for name, command in self.commands.items()])


def _sentence(text: str) -> str:
    """The first sentence of a paragraph."""
    return f"{' '.join(text.split()).partition('. ')[0].removesuffix('.')}."


CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group("semdedup", cls=Program, context_settings=CONTEXT)
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
    caption,
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
    config,
):
    main.add_command(command)
