"""`semdedup calibrate`."""

from __future__ import annotations

from typing import Any

import click

from semdedup.calibration.run import MIN_PRECISION
from semdedup.calibration.run import calibrate as calibrate_result
from semdedup.cli.flags import Command, argument_of, flag_of, show, work_flags
from semdedup.settings.kinds import path


@click.command(cls=Command)
@argument_of("results", path(), "Folder that a dedup wrote, or the root of a run.", metavar="RESULT")
@argument_of("verdicts", path(), "The verdicts, as the page gives them to download.", metavar="FILE")
@flag_of(MIN_PRECISION)
@work_flags(on_dask=False)
def calibrate(
    results: str,
    verdicts: str,
    min_precision: float | None,
    as_json: bool,
    dry_run: bool,
    storage: dict[str, Any],
    verbose: bool,
) -> None:
    """Recommend an eps for a result, from pairs that a person has judged on its page.

    FILE is what the page gives to download. Precision: of the pairs that go, the share that is the same; recall: of
    the pairs that are the same, the share that goes. Each with a 95 % interval. The table is kept in the folder of the
    result, as _calibration.json, and is shown by the next page.

    \b
    Example:
      semdedup report clips/dedup --clips clips
      semdedup calibrate clips/dedup verdicts.json --min-precision 0.95
    """
    found = calibrate_result(results, verdicts, min_precision=min_precision, store=not dry_run, storage_options=storage)
    show(found, as_json)
