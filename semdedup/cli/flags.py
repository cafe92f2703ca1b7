"""What the commands share: options of several values, groups of flags, exit statuses, errors."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NoReturn

import click
from rich.console import Console

from semdedup.compute.cluster import ClusterOptions
from semdedup.display import Displayable
from semdedup.errors import ParameterError, SemdedupError

EXIT_FAILED, EXIT_USAGE, EXIT_QUARANTINE = 1, 2, 3

# What users of the older programs know: an option takes several values separated by spaces, by commas, or repeated.


class ManyValues(click.Option):
    """An option that takes several values: ``--eps 0.1 0.01``, ``--eps 0.1,0.01`` and ``--eps 0.1 --eps 0.01``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.item_type = click.types.convert_type(kwargs.pop("type", str))
        super().__init__(*args, **{**kwargs, "multiple": True, "type": str})

    def type_cast_value(self, ctx: click.Context, value: Any) -> tuple[Any, ...]:
        """Split at commas and convert each value."""
        parts = [part.strip() for text in value or () for part in str(text).split(",")]
        return tuple(self.item_type.convert(part, self, ctx) for part in parts if part)


class Command(click.Command):
    """A command whose `ManyValues` options go on until the next option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the name of such an option before each of its values, which is what Click understands."""
        names = {name for param in self.params if isinstance(param, ManyValues) for name in param.opts}
        spelled: list[str] = []
        current = ""
        for position, arg in enumerate(args):
            name = arg.partition("=")[0]
            if arg == "--":
                spelled += args[position:]
                break
            if arg.startswith("--"):
                current = name if name in names else ""
                spelled.append(arg)
            elif current and spelled[-1] != current:
                spelled += [current, arg]
            else:
                spelled.append(arg)
        return super().parse_args(ctx, spelled)


def cluster_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """Flags of every command that runs on Dask."""
    flags = [
        click.option("--scheduler", metavar="ADDRESS", help="Dask scheduler to work on, tcp://host:8786."),
        click.option("--scheduler-file", metavar="FILE", help="JSON file that a running scheduler wrote."),
        click.option(
            "--n-workers", type=click.IntRange(1), help="Workers to start here; one a core or GPU by default."
        ),
        click.option("--threads-per-worker", type=click.IntRange(1), default=1, show_default=True),
        click.option("--memory-limit", default="auto", show_default=True, help="Memory of each worker, as in 2GiB."),
        click.option("--backend", type=click.Choice(["auto", "cpu", "gpu"]), default="auto", show_default=True),
    ]
    for flag in reversed(flags):
        function = flag(function)
    return function


def storage_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """Flags of every command that touches storage."""
    options = click.option(
        "--storage-options",
        metavar="JSON",
        help="Options for fsspec. Never printed, logged or stored; prefer --profile.",
    )
    profile = click.option("--profile", metavar="NAME", help="Profile of the AWS credentials file.")
    return options(profile(function))


def output_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """Flags on how much to say."""
    verbose = click.option("--verbose", is_flag=True, help="Show tracebacks of unexpected errors in full.")
    return verbose(click.option("--quiet", is_flag=True, help="No progress.")(function))


def cluster_of(flags: dict[str, Any]) -> ClusterOptions:
    """Take the flags of the cluster out of all flags."""
    names = ("scheduler", "scheduler_file", "n_workers", "threads_per_worker", "memory_limit", "backend")
    return ClusterOptions(**{name: flags.pop(name) for name in names})


def storage_of(flags: dict[str, Any]) -> dict[str, Any]:
    """Take the flags of the storage out of all flags."""
    text, profile = flags.pop("storage_options"), flags.pop("profile")
    options: Any = {}
    if text is not None:
        try:
            options = json.loads(text)
        except ValueError as error:
            raise ParameterError(
                f"--storage-options is not valid JSON, at character {getattr(error, 'pos', '?')}"
            ) from None
    if not isinstance(options, dict):
        raise ParameterError('--storage-options must be a JSON object, such as {"anon": true}')
    return {**options, **({"profile": profile} if profile else {})}


@contextlib.contextmanager
def told_errors(verbose: bool) -> Iterator[None]:
    """Turn what the library raises into one clear message and an exit status."""
    try:
        yield
    except SemdedupError as error:
        if verbose:
            raise
        click.secho(f"error: {error}", fg="red", err=True)
        sys.exit(EXIT_USAGE if isinstance(error, ParameterError) else EXIT_FAILED)


def n_clusters_of(text: str) -> int | str:
    """What ``--n-clusters`` means: the library accepts a number or "auto", and says so of anything else."""
    try:
        return int(text)
    except ValueError:
        return text


def show_plan(lines: Iterable[str]) -> None:
    """Print what a run would do, line by line as it is found out."""
    for line in lines:
        click.echo(line)


def show_and_exit(result: Displayable, faults: Sequence[str], clean: bool) -> NoReturn:
    """Print a result and what is wrong with some of its videos, and end with the status that tells of a quarantine."""
    show(result)
    for fault in faults:
        click.echo(f"quarantine: {fault}", err=True)
    sys.exit(0 if clean else EXIT_QUARANTINE)


def show(result: Displayable) -> None:
    """Print a result as a table."""
    Console(soft_wrap=False, markup=False, emoji=False).print(result.table())
