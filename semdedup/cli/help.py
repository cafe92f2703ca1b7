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


def write_options(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """Write arguments and options of a command below their headings."""
    found: dict[str, list[tuple[str, str]]] = {heading: [] for heading in FIRST}
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record is not None:
            found.setdefault(heading_of(param), []).append(record)
    last = {heading: found.pop(heading, []) for heading in LAST}
    for heading, records in {**found, **last}.items():
        if records:
            with formatter.section(heading):
                formatter.write_dl(records)
