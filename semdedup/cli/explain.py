"""`semdedup explain`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from semdedup.cli.flags import OWN_EPS, Command, argument_of, flag_of, show_json, work_flags
from semdedup.dedup.results.load import load
from semdedup.dedup.results.scores import NoSuchRowError
from semdedup.overlaps.explain import find_shown
from semdedup.settings import Kind
from semdedup.settings.kinds import path
from semdedup.storage.location import Location


def _id(value: Any) -> str:
    """The text of an id, which is a number for some."""
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise TypeError
    return str(value)


ROW_ID = Kind("be an id: text, or a whole number", _id)


@click.command(cls=Command)
@argument_of("results", path(), "Folder that a dedup wrote, or the root of a run.", metavar="RESULT")
@argument_of("row_id", ROW_ID, "Id of the row.", metavar="ID")
@flag_of(OWN_EPS, help="Threshold. By default that of the results.")
@work_flags(on_dask=False, dry_run=False)
def explain(
    results: str, row_id: str, eps: float | None, as_json: bool, storage: dict[str, Any], verbose: bool
) -> None:
    """Tell why a row went, and which one stays for it, or which video shows it; or why it stays.

    \b
    Example:
      semdedup explain clips/dedup holiday-00012
    """
    shown = find_shown(Location.of(results, storage), row_id)
    result = load(results, storage_options=storage)
    explanation = None
    try:
        explanation = result.explain(result.row_id(row_id), eps)
    except NoSuchRowError:
        if shown is None:
            raise
    if as_json:
        show_json({name: found and asdict(found) for name, found in (("shown", shown), ("row", explanation))})
        return
    for found in (shown, explanation):
        if found is not None:
            click.echo(str(found))
