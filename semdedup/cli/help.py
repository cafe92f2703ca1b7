"""The help of a command: what it takes below headings, which the declarations of its settings name."""

from __future__ import annotations

import click

from semdedup.settings import INPUT, METHOD, OUTPUT
from semdedup.storage.kwargs import STORAGE_HEADING

OTHER = "Other"
FIRST, LAST = (INPUT, METHOD, OUTPUT), ("Cluster", STORAGE_HEADING, OTHER)
"""Headings in their order; those that are not named stand between."""

UNDECLARED = {"storage_options": STORAGE_HEADING, "profile": STORAGE_HEADING}
"""Headings of options that are no settings; the others are in the last one."""


def heading_of(param: click.Parameter) -> str:
    """Under which heading a parameter stands."""
    declared = getattr(param, "declared", None)
    return UNDECLARED.get(param.name or "", OTHER) if declared is None else declared.heading


def records_of(command: click.Command, ctx: click.Context) -> dict[str, list[tuple[str, str]]]:
    """What a command takes, spelled as it is given and with its help, below each heading that has some, in order."""
    found: dict[str, list[tuple[str, str]]] = {heading: [] for heading in FIRST}
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record is not None:
            found.setdefault(heading_of(param), []).append(record)
    last = {heading: found.pop(heading, []) for heading in LAST}
    return {heading: records for heading, records in {**found, **last}.items() if records}


def write_options(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """Write arguments and options of a command below their headings."""
    for heading, records in records_of(command, ctx).items():
        with formatter.section(heading):
            formatter.write_dl(records)
