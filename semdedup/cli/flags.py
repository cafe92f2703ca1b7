"""What the commands share: options of several values, groups of flags, exit statuses, errors."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from types import MappingProxyType
from typing import Any, NoReturn

import click
from rich.console import Console
from rich.table import Table

from semdedup.cli.config_file import CLUSTER, STORAGE, config_option
from semdedup.cli.help import write_options
from semdedup.cli.params import FileSetting, SettingArgument, SettingFlag
from semdedup.compute.options import ClusterOptions
from semdedup.ctrl_c import EXIT_INTERRUPTED, SENTENCE
from semdedup.dedup.threshold.rule import EPS, REMOVAL
from semdedup.display import Displayable, plain
from semdedup.errors import ParameterError, SemdedupError
from semdedup.settings import INPUT, OUTPUT, Kind, Options, Setting, settings_of
from semdedup.settings.kinds import path, truth
from semdedup.storage.kwargs import FSSPEC

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

EXIT_FAILED, EXIT_USAGE, EXIT_QUARANTINE = 1, 2, 3

WIDE = 10_000
"""Columns of a table where there is no terminal: paths are not folded."""

OWN_EPS, OWN_REMOVAL = replace(EPS, default=None), replace(REMOVAL, default=None)
"""The same where what is not given is as in the result that a command reads."""

STORAGE_OPTIONS = Setting(
    FSSPEC, None, "Options for fsspec, and profile, that of the AWS credentials file. Never printed or stored.", STORAGE
)
PROGRESS = Setting(truth(), True, "Show progress.", "verbose", flags=("--quiet",), heading="Other")

# What users of the older programs know: an option takes several values separated by spaces, by commas, or repeated.


def flag_of(
    declared: Setting,
    flags: Sequence[str] = (),
    *,
    dest: str = "",
    required: bool = False,
    help: str = "",
    metavar: str = "",
    part: str = "",
) -> Decorator:
    """The flag of one setting; `part` as of `SettingFlag`."""
    declared = replace(declared, help=help or declared.help)
    kind, spelled = declared.kind, flags or declared.flags or [f"--{declared.name.replace('_', '-')}"]
    shape: dict[str, Any]
    text, shape = declared.help, {}
    if not kind.metavar:
        shape = {"flag_value": not declared.default, "default": None}
        text = f"Do not {text[0].lower()}{text[1:]}" if declared.default else text
    elif kind.metavar == "[FOLDER]":
        shape = {"is_flag": False, "flag_value": "", "metavar": kind.metavar}
    else:
        shape = {"multiple": kind.many or len(spelled) > 1, "metavar": metavar or kind.metavar}
        has_default = declared.default not in (None, ()) and not required and "By default" not in text
        text += f" [default: {declared.default}]" * has_default
    shape |= {"help": text, "required": required, "part": part}
    return click.option(*spelled, dest or declared.name, cls=SettingFlag, declared=declared, **shape)


def argument_of(name: str, kind: Kind, help: str, *, metavar: str = "", heading: str = INPUT) -> Decorator:
    """An argument, declared as settings are."""
    declared = Setting(kind, None, help, name, heading=heading)
    return click.argument(name, cls=SettingArgument, declared=declared, metavar=metavar or None)


def output_flag(help: str = "Folder for results, local or s3://.", *, required: bool = False) -> Decorator:
    """The flag of where to write."""
    return flag_of(Setting(path(), None, help, "output_path", heading=OUTPUT), required=required)


def file_setting(declared: Setting, section: Sequence[str] | None = None) -> Decorator:
    """A setting that the file of ``--config`` alone says; `section` as of `FileSetting`."""
    name = f"--{declared.name.replace('_', '-')}"
    return click.option(
        name, declared.name, cls=FileSetting, declared=declared, section=section, hidden=True, help=declared.help
    )


def setting_flags(
    *groups: type[Options],
    only: Sequence[str] | None = None,
    without: Sequence[str] = (),
    required: Sequence[str] = (),
    flags: Mapping[str, Sequence[str]] = MappingProxyType({}),
    metavars: Mapping[str, str] = MappingProxyType({}),
    part: str = "",
) -> Decorator:
    """The flags of groups of settings, each as it is declared; `flags` and `metavars` say what else is shown.

    Settings that are no text have none, and only the file of ``--config`` says them.
    """
    made: dict[str, Any] = {}
    for declared in settings_of(*groups):
        name = declared.name
        if name in made or name == "verbose" or name in without or (only is not None and name not in only):
            continue
        if declared.kind.group is not None:
            for inner in settings_of(declared.kind.group):
                made[f"{name}.{inner.name}"] = flag_of(inner, dest=f"{name}__{inner.name}", part=name)
        if declared.kind.metavar == "MAPPING":
            made[name] = file_setting(declared)
        else:
            metavar = metavars.get(name, "")
            made[name] = flag_of(declared, flags.get(name, ()), required=name in required, metavar=metavar, part=part)

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
            given[group] = {**given.get(group, {}), inner: value}
        elif isinstance(value, Mapping):  # of the file, over which flags win
            given[name] = {**value, **given.get(name, {})}
        else:
            given[name] = value
    return given


class Command(click.Command):
    """A command whose options of several values go on until the next option, and stand in its help by kind."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Arguments and options below headings."""
        write_options(self, ctx, formatter)

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

    The command gets `as_json`, `verbose`, `cluster` if it works `on_dask`, `storage` (options for fsspec) if it touches
    that, and `dry_run`. What the library raises becomes one clear message and an exit status.
    """
    shown: list[Decorator] = [config_option]
    if dry_run:
        shown.append(click.option("--dry-run", is_flag=True, help="Say what would be done, and write nothing."))
    shown += [
        click.option("--json", "as_json", is_flag=True, help="Print what there is to tell as JSON, and nothing else."),
        click.option("--verbose", is_flag=True, help="Show tracebacks of unexpected errors in full."),
        flag_of(PROGRESS, dest="progress"),
    ]
    if storage:
        help = "Options for fsspec. Never printed, logged or stored; prefer --profile."
        shown[:0] = [
            file_setting(STORAGE_OPTIONS, section=()),
            click.option("--storage-options", metavar="JSON", help=help),
            click.option("--profile", metavar="NAME", help="Profile of the AWS credentials file."),
        ]
    if on_dask:
        shown.insert(0, setting_flags(ClusterOptions, part=CLUSTER))

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def command(verbose: bool, progress: bool | None, **flags: Any) -> None:
            with reported_errors(verbose):
                if on_dask:
                    flags["cluster"] = cluster_of(flags)
                if storage:
                    flags["storage"] = storage_of(flags)
                function(**flags, verbose=progress is not False)

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
    options: Any = flags.pop(STORAGE) or {}
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


def kwargs_of(given: dict[str, Any], storage: Mapping[str, Any]) -> dict[str, Any]:
    """Take the options for reading and writing that the file says out of what is given; the store is that of all."""
    names = ("read_kwargs", "write_kwargs")
    return {name: {"storage_options": dict(storage), **given.pop(name, {})} for name in names}


def show_plan(lines: Iterable[str], as_json: bool = False) -> None:
    """Print what a run would do, line by line as it is found out."""
    if as_json:
        show_json({"plan": list(lines)})
        return
    for line in lines:
        click.echo(line)


def show_and_exit(result: Displayable, faults: Sequence[str], clean: bool, as_json: bool = False) -> NoReturn:
    """Print a result and what is wrong with some of its videos, and end with the status that tells of a quarantine."""
    show(result, as_json)
    for fault in faults:
        click.echo(f"quarantine: {fault}", err=True)
    sys.exit(0 if clean else EXIT_QUARANTINE)


def show(result: Displayable, as_json: bool = False) -> None:
    """Print a result as a table, or as JSON."""
    if as_json:
        show_json(result.to_json())
    else:
        print_whole(result.table())


def show_json(found: Mapping[str, Any]) -> None:
    """Print JSON: a line, without NaN, which is no JSON."""
    click.echo(json.dumps(plain(found), allow_nan=False))


def print_whole(table: Table) -> None:
    """Print a table; where there is no terminal, nothing is folded."""
    console = Console(soft_wrap=False, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = WIDE
    console.print(table)
