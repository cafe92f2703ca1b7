"""Parameters of commands that are made from the declarations of settings: flags, arguments, and what only a file says.

The text of a flag, and the value in the file of ``--config``, are checked as the setting is everywhere else. What the
command line says wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from click.shell_completion import CompletionItem

from semdedup.errors import ParameterError
from semdedup.settings import Setting

if TYPE_CHECKING:
    Parameter = click.Parameter
else:
    Parameter = object

FILE = "semdedup.config"
"""Where the context of a command keeps what the file of ``--config`` says of its parameters, by name."""

ONE_OF = (
    {"eps", "target_fraction"},
    {"scheduler", "scheduler_file"},
    {"which_to_keep", "rank_by", "ranking_strategy"},
)
"""Settings of which one may be given: where the command line has one, the file is not asked for the others."""


class InFile(NamedTuple):
    """A value that the file says.

    Attributes:
        place: where it stands, for messages.
        needs: another parameter, without which this one is not asked for; empty where there is none.
    """

    value: Any
    place: str
    needs: str = ""


class Declared(Parameter):
    """A parameter that is the door to a setting.

    Attributes:
        declared: the setting.
        part: the part of a `run` that it is of; empty where it is of the command itself.
    """

    declared: Setting
    part: str = ""

    def handle_parse_result(self, ctx: click.Context, opts: Mapping[str, Any], args: list[str]) -> Any:
        """As of any parameter; what the command line does not say is taken from the file."""
        said: Mapping[str, InFile] = ctx.meta.get(FILE, {})
        found = said.get(self.name or "")
        if found is not None and found.needs and found.needs not in said and opts.get(found.needs) is None:
            found = None
        if found is not None and not any(is_given(other, opts) for other in self._others(ctx)):
            opts = {**opts, self.name or "": found}
        return super().handle_parse_result(ctx, opts, args)

    def _others(self, ctx: click.Context) -> Iterable[Declared]:
        """This one, the other spellings of the same setting, and its rivals."""
        names = {self.declared.name, *rivals_of(self.declared.name)}
        return [other for other in declared_of(ctx.command, self.part) if other.declared.name in names]

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """What a shell offers for its value: paths, or the words that it may be."""
        kind = self.declared.kind
        if kind.metavar == "PATH":
            return [CompletionItem(incomplete, type="file")]
        words = [word for word in kind.metavar.split("|") if "|" in kind.metavar and not word.isupper()]
        return [CompletionItem(word) for word in words if word.startswith(incomplete)]

    def in_file(self, ctx: click.Context, said: InFile) -> Any:
        """The value that the file says; the text of a flag where that is how None is said."""
        try:
            value = self.declared.check(said.value)
        except ParameterError as error:
            raise click.UsageError(f"{said.place}: {error}", ctx) from None
        if value is None:
            return ""
        return said.value if self.declared.kind.group is not None else value


def rivals_of(name: str) -> set[str]:
    """Settings that cannot be given beside one."""
    return {other for names in ONE_OF if name in names for other in names - {name}}


def is_given(param: click.Parameter, opts: Mapping[str, Any]) -> bool:
    """Whether the command line has a parameter, by what its parser gives; of an argument it also gives what is not."""
    value = opts.get(param.name or "")
    return isinstance(value, str) if isinstance(param, click.Argument) else value is not None


class SettingFlag(Declared, click.Option):
    """The flag of a setting.

    Where a setting takes several values, so does the flag: ``--eps 0.1 0.01``, ``--eps 0.1,0.01`` and
    ``--eps 0.1 --eps 0.01``. Where it takes one, two spellings must not say two things.
    """

    def __init__(self, *args: Any, declared: Setting, part: str = "", **kwargs: Any) -> None:
        self.declared, self.part = declared, part
        super().__init__(*args, **kwargs)

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """The value that was meant; None where the flag is not given, and the text itself where it means None."""
        kind = self.declared.kind
        if isinstance(value, InFile):
            return self.in_file(ctx, value)
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


class SettingArgument(Declared, click.Argument):
    """An argument that is a setting."""

    def __init__(self, *args: Any, declared: Setting, **kwargs: Any) -> None:
        self.declared = declared
        super().__init__(*args, **kwargs)

    def handle_parse_result(self, ctx: click.Context, opts: Mapping[str, Any], args: list[str]) -> Any:
        """As of any parameter; where the file says some arguments, the command line may have the others alone."""
        said: Mapping[str, InFile] = ctx.meta.get(FILE, {})
        names = [str(param.name) for param in ctx.command.params if isinstance(param, SettingArgument)]
        texts = [opts[name] for name in names if isinstance(opts.get(name), str)]
        others = [name for name in names if name not in said]
        if len(texts) == len(others) < len(names):
            meant = dict(zip(others, texts, strict=True))
            opts = {**{name: value for name, value in opts.items() if name not in names}, **meant}
        return super().handle_parse_result(ctx, opts, args)

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """The value that was meant."""
        if isinstance(value, InFile):
            return self.in_file(ctx, value)
        if value is None:
            return None
        try:
            return self.declared.check(self.declared.kind.parse(value))
        except ParameterError as error:
            raise click.BadParameter(str(error), ctx, self) from None

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        """What the help says of it, as of options."""
        return self.make_metavar(ctx), self.declared.help


class FileSetting(Declared, click.Option):
    """A setting that is no text: only the file says it.

    Attributes:
        section: the names in it, where it is a section of its own in the file, and not a name in that of the command.
    """

    def __init__(self, *args: Any, declared: Setting, section: Sequence[str] | None = None, **kwargs: Any) -> None:
        self.declared, self.section = declared, section
        super().__init__(*args, **kwargs)

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """The command line does not have it."""

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """The value that the file says; None where it says none."""
        return self.in_file(ctx, value) if isinstance(value, InFile) else None


def declared_of(command: click.Command, part: str = "") -> Sequence[Declared]:
    """The parameters of a command that are settings, in order."""
    return [param for param in command.params if isinstance(param, Declared) and param.part == part]
