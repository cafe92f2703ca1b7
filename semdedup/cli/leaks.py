"""`semdedup leaks`."""

from __future__ import annotations

import sys
from typing import Any

import click

from semdedup.cli.flags import EXIT_QUARANTINE, Command, flag_of, given_of, setting_flags, show, work_flags
from semdedup.compute.options import ClusterOptions
from semdedup.dedup.leaks.search import LeakSearch
from semdedup.dedup.options import FieldOptions
from semdedup.dedup.threshold.rule import EPS
from semdedup.settings.shared import SharedOptions

PAIRS_SHOWN = 10


@click.command(cls=Command)
@click.argument("a")
@click.argument("b")
@click.option("--output-path", required=True, help="Folder for results, local or s3://.")
@flag_of(EPS, help="A clip leaks where its score is at least 1 - eps.")
@setting_flags(FieldOptions)
@setting_flags(SharedOptions, only=["clear_output", "take_over", "verify"])
@work_flags()
def leaks(
    a: str, b: str, dry_run: bool, cluster: ClusterOptions, storage: dict[str, Any], verbose: bool, **flags: Any
) -> None:
    """Find the clips of B (evaluation) that duplicate clips of A (training).

    A and B are embeddings in Parquet (folder, file or glob), outputs of `semdedup split`, or roots of a `semdedup run`.

    \b
    Example:
      semdedup leaks train/dct3d_embd_parquet eval/dct3d_embd_parquet --output-path leaks
    """
    search = LeakSearch(a, b, storage_options=storage, verbose=verbose, **given_of(flags))
    if dry_run:
        click.echo("\n".join([f"eps {search.eps:g} ({search.eps_from})", *search.describe()]))
        return
    result = search.run(cluster=cluster)
    show(result)
    for pair in result.pairs(PAIRS_SHOWN):
        click.echo(f"leak: {pair.id!r} of B is {pair.max_id!r} of A, score {pair.score:.6f}")
    sys.exit(EXIT_QUARANTINE if result.n_quarantined else 0)
