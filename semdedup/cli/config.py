"""`semdedup config`: a file for ``--config`` to begin with, made from the declarations of the settings."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping

import click
import yaml

from semdedup.cli.config_file import CLUSTER, STORAGE, TOP, names_of, param_on_top, parts_of
from semdedup.cli.params import Declared, FileSetting, declared_of
from semdedup.compute.options import SITE, ClusterOptions
from semdedup.settings import Setting, meant, settings_of

WIDTH = 110
SAID = ("INTEGER", "FLOAT", "BYTES", "|")
"""In the names of values of which the help does not say everything: what they must be is added."""

OF_SITE = "site"
"""In place of a command: the file of a site."""
ENVIRONMENT = f"DASK_{SITE.replace('.', '__').upper()}__N_WORKERS"


@click.command()
@click.argument("name", metavar="COMMAND", shell_complete=lambda ctx, _, begun: _completed(ctx, begun))
@click.pass_context
def config(ctx: click.Context, name: str) -> None:
    """Print a file of settings for a command, to begin with: YAML in which everything is explained.

    Each setting has its default there, behind a #; what must be given has no value yet. With `site` in place of a
    command: what is said once for all runs on a machine or a cluster, in Dask's configuration.

    \b
    Example:
      semdedup config run > run.yaml
      semdedup run --config run.yaml
      semdedup config site > ~/.config/dask/semdedup.yaml
    """
    commands = _commands(ctx)
    if name == OF_SITE:
        click.echo("\n".join(site_template()))
        return
    if name not in commands:
        message = f"there is no command {name!r}{meant(name, commands)}; there are {', '.join(commands)}, and {OF_SITE}"
        raise click.BadParameter(message, ctx, param_hint="COMMAND")
    click.echo("\n".join(template(name, commands)))


def _commands(ctx: click.Context) -> dict[str, click.Command]:
    """The commands that have settings."""
    group = ctx.parent.command if ctx.parent else None
    commands = group.commands if isinstance(group, click.Group) else {}
    return {name: command for name, command in commands.items() if names_of(command)}


def _completed(ctx: click.Context, begun: str) -> list[str]:
    return [name for name in (*_commands(ctx), OF_SITE) if name.startswith(begun)]


def site_template() -> Iterator[str]:
    """The lines of the file of a site, for ~/.config/dask or /etc/dask."""
    sections = SITE.split(".")
    yield "# What a site says of semdedup, a file of Dask's configuration: ~/.config/dask/semdedup.yaml or /etc/dask/."
    yield f"# The environment wins over it, as in {ENVIRONMENT}=4; flags, keywords and --config over both."
    yield "# A line '#name: value' is a setting with its default: take away the # and change the value."
    yield from ("", *(f"{'  ' * depth}{section}:" for depth, section in enumerate(sections)))
    for declared in settings_of(ClusterOptions):
        if declared.site:
            yield from _lines(declared, declared.name, "  " * len(sections))


def template(name: str, commands: Mapping[str, click.Command]) -> Iterator[str]:
    """The lines of the file for a command."""
    command = commands[name]
    yield f"# Settings of `semdedup {name}`, for its --config; flags win over them."
    yield "# A line '#name: value' is a setting with its default: take away the # and change the value."
    yield "# Other commands may read the same file: what stands on top is for all, and each has a section of its own."
    on_top = {top: param for top in TOP if (param := _on_top(top, name, command)) is not None}
    for top, param in on_top.items():
        yield ""
        yield from _lines(param.declared, top, "", param.required)
    if declared_of(command, CLUSTER):
        yield from ["", "# Which Dask cluster to work on, or how to start one here.", f"{CLUSTER}:"]
        for param in declared_of(command, CLUSTER):
            yield from _lines(param.declared, param.declared.name, "  ")
    for section in declared_of(command):
        if isinstance(section, FileSetting) and section.name == STORAGE:
            yield ""
            yield from _comment(section.declared.help, "")
            yield f"#{STORAGE}: {{}}"
    shown = {id(param) for param in on_top.values()}
    own = {param.declared.name: param for param in names_of(command).values() if id(param) not in shown}
    yield from ["", f"{name}:", *_section(own.values())]
    for part in parts_of(command):
        names = names_of(commands[str(part.name)])
        settings = {names[each].declared.name: names[each] for each in part.section or () if each in names}
        settings |= {own.declared.name: own for own in declared_of(command, str(part.name))}  # with its defaults
        yield from ["", f"{part.name}:", *_section(settings.values())]


def _on_top(top: str, name: str, command: click.Command) -> Declared | None:
    """The parameter that stands on top; a list of eps would be one for no other command."""
    param = param_on_top(top, name, command)
    return None if param is None or (top == "eps" and param.declared.kind.many) else param


def _section(params: Iterable[Declared]) -> Iterator[str]:
    for param in params:
        yield from _lines(param.declared, param.declared.name, "  ", param.required)


def _lines(declared: Setting, name: str, indent: str, is_required: bool = False) -> Iterator[str]:
    """A setting: what it is, and its default."""
    kind = declared.kind
    must = f" Must {kind.words}." if any(word in kind.metavar for word in SAID) else ""
    yield from _comment(f"{declared.help}{must}{' Required.' if is_required else ''}", indent)
    if kind.group is not None:
        yield f"{indent}{name}:"
        for inner in settings_of(kind.group):
            yield from _lines(inner, inner.name, f"{indent}  ")
    elif is_required:
        yield f"{indent}{name}:"
    else:
        default = list(declared.default) if isinstance(declared.default, tuple) else declared.default
        value = yaml.safe_dump(default, default_flow_style=True).removesuffix("\n").removesuffix("\n...")
        yield f"{indent}#{name}: {value}"


def _comment(text: str, indent: str) -> list[str]:
    """Text as a comment; lines that go on are indented, so that none looks like a setting."""
    return textwrap.wrap(
        text, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}#   ", break_on_hyphens=False
    )
