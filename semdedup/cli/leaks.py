"""`semdedup leaks`."""

from __future__ import annotations

import sys
from typing import Any

import click

from semdedup.cli.flags import (
    EXIT_QUARANTINE,
    OWN_EPS,
    Command,
    argument_of,
    flag_of,
    given_of,
    output_flag,
    setting_flags,
    show,
    show_plan,
    work_flags,
)
from semdedup.compute.options import ClusterOptions
from semdedup.dedup.leaks.search import LeakSearch
from semdedup.dedup.options import FieldOptions
from semdedup.settings.kinds import path
from semdedup.settings.shared import SharedOptions

PAIRS_SHOWN = 10


@click.command(cls=Command)
@argument_of("a", path(), "Embeddings of the training set, or an output of split.")
@argument_of("b", path(), "The same of the evaluation set.")
@output_flag(required=True)
@flag_of(
    OWN_EPS,
    help="A clip leaks where its score is at least 1 - eps. By default what the embedder recommends, else 0.1.",
)
@setting_flags(FieldOptions)
@setting_flags(SharedOptions, only=["clear_output", "take_over", "verify"])
@work_flags()
def leaks(
    a: str,
    b: str,
    as_json: bool,
    dry_run: bool,
    cluster: ClusterOptions,
    storage: dict[str, Any],
    verbose: bool,
    **flags: Any,
) -> None:
    """Find the clips of B (evaluation) that duplicate clips of A (training).

    A and B are embeddings in Parquet (folder, file or glob), outputs of `semdedup split`, or roots of a `semdedup run`.

    \b
    Example:
      semdedup leaks train/dct3d_embd_parquet eval/dct3d_embd_parquet --output-path leaks
    """
    search = LeakSearch(a, b, storage_options=storage, verbose=verbose, **given_of(flags))
    if dry_run:
        show_plan([f"eps {search.eps:g} ({search.eps_from})", *search.describe()], as_json)
        return
    result = search.run(cluster=cluster)
    show(result, as_json)
    for pair in () if as_json else result.pairs(PAIRS_SHOWN):
        click.echo(f"leak: {pair.id!r} of B is {pair.max_id!r} of A, score {pair.score:.6f}")
    sys.exit(EXIT_QUARANTINE if result.n_quarantined else 0)
