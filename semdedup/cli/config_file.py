"""The file of ``--config``: one form for every command.

On top stand names that commands share, beside a section for each command, whose names are the Python keywords::

    video_dir: videos
    output_path: out
    cluster: {n_workers: 4}
    storage: {profile: mine}
    split: {fixed_stride_split_duration: 5}
    dedup: {n_clusters: 100}

A command reads what is on top and its own section. Names are checked in all of them, values in those that are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import yaml

from semdedup.cli.params import FILE, Declared, FileSetting, InFile, declared_of, rivals_of
from semdedup.compute.options import ClusterOptions
from semdedup.errors import ParameterError
from semdedup.settings import check_names, settings_of

CLUSTER, STORAGE = "cluster", "storage"
WRITTEN_TO = ("run", "split", "embed", "caption", "dedup", "overlaps", "pairs", "leaks", "status", "clean")
"""Commands whose output path is the one on top."""
READ_FROM = ("report", "extract", "explain", "calibrate", "export")
"""Commands that read the result there."""

TOP: Mapping[str, Mapping[str, str]] = {
    "video_dir": {"run": "input_path", "split": "input_path"},
    "output_path": {**dict.fromkeys(WRITTEN_TO, "output_path"), **dict.fromkeys(READ_FROM, "results")},
    "eps": {"shard": "semantic_dedup_epsilon"},
}
"""The names on top, and which parameter of a command each is; of a command that is not named, the one of that name."""

NEEDS = {"semantic_dedup_epsilon": "input_semantic_dedup_path"}
"""Without these, what stands on top is of no use to a command."""


class _Loader(yaml.SafeLoader):
    """YAML as its version 1.2 has it where version 1.1 surprises: 1e-4 is a number, and no name stands twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """The mapping, unless a name stands twice in it: of two sections the first would be lost."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                problem = f"{key.value!r} stands there for the second time"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def config_option(command: Any) -> Any:
    """The flag ``--config``. The file is read before other parameters, which ask for what it says."""
    return click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False),
        is_eager=True,
        expose_value=False,
        callback=_keep,
        metavar="FILE.yaml",
        help="Settings; flags win over them. `semdedup config COMMAND` prints a file to begin with.",
    )(command)


def _keep(ctx: click.Context, _: click.Parameter, path: str | None) -> None:
    if path is None or ctx.resilient_parsing:
        return
    parent = ctx.parent.command if ctx.parent else None
    commands = parent.commands if isinstance(parent, click.Group) else {str(ctx.command.name): ctx.command}
    try:
        ctx.meta[FILE] = said_in(path, str(ctx.command.name), commands)
    except ParameterError as error:
        raise click.UsageError(str(error), ctx) from None


def said_in(path: str, name: str, commands: Mapping[str, click.Command]) -> dict[str, InFile]:
    """What a file says of the parameters of a command, by their names.

    Raises:
        ParameterError: it is no YAML, or has a name that there is not, anywhere; or a section is no mapping.
    """
    data = read_yaml(path)
    sections = {CLUSTER: [one.name for one in settings_of(ClusterOptions)]}
    sections |= {each: list(names_of(command)) for each, command in commands.items() if names_of(command)}
    for key in data.keys() - TOP.keys():
        if owners := [section for section, known in sections.items() if key in known and key not in sections]:
            raise ParameterError(f"{path}: {key} stands in a section: {' or '.join(owners)}")
    check_names(path, data, [*TOP, STORAGE, *sections])
    for section, known in sections.items():
        if data.get(section) is not None:
            check_names(f"{path}: {section}", data[section], known)
    command = commands[name]
    said = {param: InFile(value, path, needs) for param, value, needs in _of_top(name, command, data)}
    own = dict(_of_section(path, name, command, data.get(name) or {}))
    said = {param: value for param, value in said.items() if not rivals_of(param) & own.keys()} | own
    cluster = data.get(CLUSTER) or {}
    for param in declared_of(command, CLUSTER):
        key = param.declared.name
        if key in cluster and not _is_default(param, cluster[key]):
            said[param.name or ""] = InFile(cluster[key], f"{path}: {CLUSTER}")
    for param in declared_of(command):
        if isinstance(param, FileSetting) and param.section is not None and data.get(param.name or "") is not None:
            said[param.name or ""] = InFile(data[param.name or ""], path)
    return said


def _is_default(param: Declared, value: Any) -> bool:
    """Whether null is said where that is the default: as if nothing was."""
    return value is None and param.declared.default is None


def read_yaml(path: str) -> Mapping[Any, Any]:
    """The mapping in a file; of what is wrong the place is told, for the rest may be secret."""
    try:
        data = yaml.load(Path(path).read_text(encoding="utf-8-sig"), _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ParameterError(f"{path} is no YAML{place}: {error.problem or error.context}") from None
    except UnicodeDecodeError as error:
        raise ParameterError(f"{path} is not UTF-8: byte {error.start} cannot be read. Save it as UTF-8.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ParameterError(f"{path} is no YAML: {type(error).__name__}") from None
    except OSError as error:
        raise ParameterError(f"{path} cannot be read: {error.strerror}") from None
    data = {} if data is None else data
    if not isinstance(data, Mapping):
        raise ParameterError(f"{path} must hold a mapping, such as output_path: out; got a {type(data).__name__}")
    return data


def names_of(command: click.Command) -> dict[str, Declared]:
    """The names in the section of a command, with the parameter that each means: keywords, their aliases, flags."""
    found: dict[str, Declared] = {}
    for param in declared_of(command):
        if isinstance(param, FileSetting) and param.section is not None:
            continue
        declared = param.declared
        for name in (declared.name, *declared.aliases) if declared.name not in found else (param.name or "",):
            found.setdefault(name, param)
    return found


def param_on_top(name: str, of: str, command: click.Command) -> Declared | None:
    """The parameter of a command that a name on top is; None where the command has none."""
    wanted = TOP[name].get(of, name if name == "eps" else "")
    return next((param for param in declared_of(command) if param.name == wanted), None)


def _of_top(of: str, command: click.Command, data: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    for name in TOP:
        param = param_on_top(name, of, command)
        if param is not None and data.get(name) is not None:
            yield param.name or "", data[name], NEEDS.get(param.name or "", "")


def _of_section(path: str, name: str, command: click.Command, given: Mapping[str, Any]) -> Iterator[tuple[str, InFile]]:
    names, spelled = names_of(command), dict[str, str]()
    for key, value in given.items():
        if _is_default(names[key], value):
            continue
        param = names[key].name or ""
        other = spelled.setdefault(param, key)
        if other != key and given[other] != value:
            raise ParameterError(f"{path}: {name}: {other} and {key} are one setting; give one of them")
        yield param, InFile(value, f"{path}: {name}")


def parts_of(command: click.Command) -> Sequence[FileSetting]:
    """The sections beside its own that a command reads."""
    return [one for one in declared_of(command) if isinstance(one, FileSetting) and one.section]
