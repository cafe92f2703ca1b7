"""`semdedup report`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from semdedup.cli.flags import OWN_EPS, Command, argument_of, flag_of, output_flag, show_json, show_plan, work_flags
from semdedup.report.write import plot_curve, write_report
from semdedup.settings import INPUT, OUTPUT, Setting
from semdedup.settings.kinds import path, paths, truth

CLIPS = Setting(
    paths(),
    None,
    "Output of split, or a folder of MP4 files: for pictures; or several. That of the run by default.",
    "clips",
    heading=INPUT,
)
OVERLAPS = Setting(
    paths(), None, "Output of overlaps: stretches that videos share; or several.", "overlaps", heading=INPUT
)
PLOT = Setting(
    path(), None, "Write only the curve, to a .png or .svg file.", "plot_path", flags=("--plot",), heading=OUTPUT
)
OVERWRITE = Setting(
    truth(),
    False,
    "Replace a file that is no report of semdedup, or a page with pictures by one without.",
    "overwrite",
    heading=OUTPUT,
)


@click.command(cls=Command)
@argument_of("results", path(), "Folder that a dedup wrote, or the root of a run.", metavar="RESULT")
@flag_of(CLIPS)
@flag_of(OVERLAPS)
@output_flag("The page to write; RESULT/report.html by default.")
@flag_of(OWN_EPS, help="Threshold to begin with. By default that of the results, else 0.1.")
@flag_of(PLOT)
@flag_of(OVERWRITE)
@work_flags(on_dask=False)
def report(
    results: str,
    clips: Sequence[str] | None,
    overlaps: Sequence[str] | None,
    output_path: str | None,
    eps: float | None,
    plot_path: str | None,
    overwrite: bool | None,
    as_json: bool,
    dry_run: bool,
    storage: dict[str, Any],
    verbose: bool,
) -> None:
    """Show a result as one page of HTML: the curve, pairs around any threshold, groups of duplicates, overlaps.

    A person can judge pairs there; `semdedup calibrate` recommends a threshold from the verdicts.

    \b
    Example:
      semdedup report clips/dedup --clips clips
      semdedup report clips/dedup --plot curve.png
    """
    if dry_run:
        show_plan([f"would write {plot_path or output_path or results.rstrip('/') + '/report.html'}"], as_json)
        return
    if plot_path is not None:
        written = {"plot": plot_curve(results, plot_path, eps=eps, storage_options=storage)}
    else:
        page = write_report(
            results,
            clips=clips or None,
            output_path=output_path,
            eps=eps,
            overlaps=overlaps or None,
            storage_options=storage,
            overwrite=bool(overwrite),
            verbose=verbose,
        )
        written = {"report": page}
    if as_json:
        show_json(written)
    else:
        click.echo("\n".join(f"{name}: {place}" for name, place in written.items()))
