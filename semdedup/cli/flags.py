"""What the commands share: options of several values, groups of flags, exit statuses, errors."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from types import MappingProxyType
from typing import Any, NoReturn

import click
from rich.console import Console

from semdedup.compute.options import ClusterOptions
from semdedup.ctrl_c import EXIT_INTERRUPTED, SENTENCE
from semdedup.display import Displayable
from semdedup.errors import ParameterError, SemdedupError
from semdedup.settings import Options, Setting, settings_of

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

EXIT_FAILED, EXIT_USAGE, EXIT_QUARANTINE = 1, 2, 3

WIDE = 10_000
"""Columns of a table where there is no terminal: paths are not folded."""

# What users of the older programs know: an option takes several values separated by spaces, by commas, or repeated.


class SettingFlag(click.Option):
    """The flag of a setting: its text is read and checked as the setting is everywhere else.

    Where a setting takes several values, so does the flag: ``--eps 0.1 0.01``, ``--eps 0.1,0.01`` and
    ``--eps 0.1 --eps 0.01``. Where it takes one, two spellings must not say two things.
    """

    def __init__(self, *args: Any, declared: Setting, **kwargs: Any) -> None:
        self.declared = declared
        super().__init__(*args, **kwargs)

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """The value that was meant; None where the flag is not given, and the text itself where it means None."""
        kind = self.declared.kind
        if value is None or value == () or isinstance(value, bool):
            return value if isinstance(value, bool) else None
        texts = [value] if isinstance(value, str) else list(value)
        try:
            if kind.many:
                parts = [part.strip() for text in texts for part in (text.split(",") if kind.commas else [text])]
                return self.declared.check([kind.parse(part) for part in parts if part])
            first, *others = [self.declared.check(kind.parse(text)) for text in texts]
            for other in others:
                if other != first:
                    raise ParameterError(f"{self.declared.name} is {first!r} but also {other!r}; give one of them")
        except ParameterError as error:
            raise click.BadParameter(str(error), ctx, self) from None
        return texts[0] if first is None else first


def flag_of(
    declared: Setting,
    flags: Sequence[str] = (),
    *,
    dest: str = "",
    required: bool = False,
    help: str = "",
    metavar: str = "",
) -> Decorator:
    """The flag of one setting."""
    kind, spelled = declared.kind, flags or declared.flags or [f"--{declared.name.replace('_', '-')}"]
    shape: dict[str, Any]
    text, shape = help or declared.help, {}
    if not kind.metavar:
        shape = {"flag_value": not declared.default, "default": None}
        text = f"Do not {text[0].lower()}{text[1:]}" if declared.default else text
    elif kind.metavar == "[FOLDER]":
        shape = {"is_flag": False, "flag_value": "", "metavar": kind.metavar}
    else:
        shape = {"multiple": kind.many or len(spelled) > 1, "metavar": metavar or kind.metavar}
        has_default = declared.default not in (None, ()) and not required and not help
        text += f" [default: {declared.default}]" * has_default
    return click.option(
        *spelled, dest or declared.name, cls=SettingFlag, declared=declared, help=text, required=required, **shape
    )


def setting_flags(
    *groups: type[Options],
    only: Sequence[str] | None = None,
    without: Sequence[str] = (),
    required: Sequence[str] = (),
    flags: Mapping[str, Sequence[str]] = MappingProxyType({}),
    metavars: Mapping[str, str] = MappingProxyType({}),
) -> Decorator:
    """The flags of groups of settings, each as it is declared; `flags` and `metavars` say what else is shown."""
    made: dict[str, Any] = {}
    for declared in settings_of(*groups):
        name = declared.name
        if name in made or name == "verbose" or name in without or (only is not None and name not in only):
            continue
        if declared.kind.group is not None:
            for inner in settings_of(declared.kind.group):
                made[f"{name}.{inner.name}"] = flag_of(inner, dest=f"{name}__{inner.name}")
        elif declared.kind.metavar != "MAPPING":
            made[name] = flag_of(
                declared, flags.get(name, ()), required=name in required, metavar=metavars.get(name, "")
            )

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for flag in reversed(made.values()):
            function = flag(function)
        return function

    return decorate


def given_of(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords that flags mean, of those that are given; a group of settings is a mapping."""
    given: dict[str, Any] = {}
    for name, value in flags.items():
        group, _, inner = name.rpartition("__")
        if value is None or value == ():  # not given
            continue
        if group:
            given.setdefault(group, {})[inner] = value
        else:
            given[name] = value
    return given


class Command(click.Command):
    """A command whose options of several values go on until the next option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the name of such an option before each of its values, which is what Click understands."""
        several = [flag for flag in self.params if isinstance(flag, SettingFlag) and flag.declared.kind.many]
        names = {name for flag in several for name in flag.opts}
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


def work_flags(*, on_dask: bool = True, storage: bool = True, dry_run: bool = True) -> Decorator:
    """The flags that commands share, and what goes on around each.

    The command gets `verbose`, `cluster` if it works `on_dask`, `storage` (options for fsspec) if it touches that, and
    `dry_run`. What the library raises becomes one clear message and an exit status.
    """
    shown: list[Decorator] = [
        click.option("--verbose", is_flag=True, help="Show tracebacks of unexpected errors in full."),
        click.option("--quiet", is_flag=True, help="No progress."),
    ]
    if storage:
        help = "Options for fsspec. Never printed, logged or stored; prefer --profile."
        shown[:0] = [
            click.option("--storage-options", metavar="JSON", help=help),
            click.option("--profile", metavar="NAME", help="Profile of the AWS credentials file."),
        ]
    if on_dask:
        shown.insert(0, setting_flags(ClusterOptions))
    if dry_run:
        shown.insert(0, click.option("--dry-run", is_flag=True, help="Say what would be done, and write nothing."))

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def command(verbose: bool, quiet: bool, **flags: Any) -> None:
            with reported_errors(verbose):
                if on_dask:
                    flags["cluster"] = cluster_of(flags)
                if storage:
                    flags["storage"] = storage_of(flags)
                function(**flags, verbose=not quiet)

        flagged: Callable[..., Any] = command
        for flag in reversed(shown):
            flagged = flag(flagged)
        return flagged

    return decorate


def cluster_of(flags: dict[str, Any]) -> ClusterOptions:
    """Take the flags of the cluster out of all flags."""
    return ClusterOptions.of(
        given_of({declared.name: flags.pop(declared.name) for declared in settings_of(ClusterOptions)})
    )


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
def reported_errors(verbose: bool) -> Iterator[None]:
    """Turn what the library raises into one clear message and an exit status."""
    try:
        yield
    except SemdedupError as error:
        if verbose:
            raise
        click.secho(f"error: {error}", fg="red", err=True)
        sys.exit(EXIT_USAGE if isinstance(error, ParameterError) else EXIT_FAILED)
    except KeyboardInterrupt:
        click.echo(SENTENCE, err=True)
        sys.exit(EXIT_INTERRUPTED)


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
    console = Console(soft_wrap=False, markup=False, emoji=False)
    console.print(result.table(), width=console.width if console.is_terminal else WIDE)
