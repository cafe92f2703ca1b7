"""`semdedup leaks`."""

from __future__ import annotations

import sys
from typing import Any

import click

from semdedup.cli.flags import (
    EXIT_QUARANTINE,
    Command,
    cluster_flags,
    cluster_of,
    flag_of,
    given_of,
    output_flags,
    setting_flags,
    show,
    storage_flags,
    storage_of,
    told_errors,
)
from semdedup.dedup.leaks.search import LeakSearch
from semdedup.dedup.options import FieldOptions
from semdedup.dedup.threshold.rule import EPS

PAIRS_SHOWN = 10


@click.command(cls=Command)
@click.argument("a")
@click.argument("b")
@click.option("--output-path", required=True, help="Folder for results, local or s3://.")
@flag_of(EPS, help="A clip leaks where its score is at least 1 - eps.")
@setting_flags(FieldOptions)
@click.option("--overwrite", is_flag=True, help="First delete what semdedup wrote to the output path before.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and write nothing.")
@cluster_flags
@storage_flags
@output_flags
def leaks(a: str, b: str, verbose: bool, quiet: bool, dry_run: bool, **flags: Any) -> None:
    """Find the clips of B (evaluation) that duplicate clips of A (training).

    A and B are embeddings in Parquet (folder, file or glob), or output folders of `semdedup split`.

    \b
    Example:
      semdedup leaks train/dct3d_embd_parquet eval/dct3d_embd_parquet --output-path leaks
    """
    with told_errors(verbose):
        cluster, storage = cluster_of(flags), storage_of(flags)
        overwrite = flags.pop("overwrite")
        search = LeakSearch(a, b, storage_options=storage, clear_output=overwrite, verbose=not quiet, **given_of(flags))
        if dry_run:
            click.echo("\n".join([f"eps {search.eps:g} ({search.eps_from})", *search.describe()]))
            return
        result = search.run(cluster=cluster)
        show(result)
        for pair in result.pairs(PAIRS_SHOWN):
            click.echo(f"leak: {pair.id!r} of B is {pair.max_id!r} of A, score {pair.score:.6f}")
        sys.exit(EXIT_QUARANTINE if result.n_quarantined else 0)
