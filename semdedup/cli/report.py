"""`semdedup report`."""

from __future__ import annotations

from typing import Any

import click

from semdedup.cli.flags import Command, flag_of, work_flags
from semdedup.dedup.threshold.rule import EPS
from semdedup.report.write import plot_curve, write_report


@click.command(cls=Command)
@click.argument("results")
@click.option(
    "--clips",
    multiple=True,
    help="Output of split, or a folder of MP4 files: for pictures. Repeatable. That of the run by default.",
)
@click.option("--overlaps", multiple=True, help="Output of overlaps: stretches that videos share. Repeatable.")
@click.option("--output-path", help="The page to write; RESULTS/report.html by default.")
@flag_of(EPS, help="Threshold to begin with; that of the results by default, else 0.1.")
@click.option("--plot", "plot_path", help="Write only the curve, to a .png or .svg file.")
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace a file that is no report of semdedup, or a page with pictures by one without.",
)
@work_flags(on_dask=False)
def report(
    results: str,
    clips: tuple[str, ...],
    overlaps: tuple[str, ...],
    output_path: str | None,
    eps: float | None,
    plot_path: str | None,
    overwrite: bool,
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
        click.echo(f"would write {plot_path or output_path or results.rstrip('/') + '/report.html'}")
    elif plot_path is not None:
        click.echo(f"plot: {plot_curve(results, plot_path, eps=eps, storage_options=storage)}")
    else:
        page = write_report(
            results,
            clips=list(clips) or None,
            output_path=output_path,
            eps=eps,
            overlaps=list(overlaps) or None,
            storage_options=storage,
            overwrite=overwrite,
            verbose=verbose,
        )
        click.echo(f"report: {page}")
