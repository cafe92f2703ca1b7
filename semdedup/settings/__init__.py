"""Settings, each declared once: its name, type, range, default and a sentence of help.

A group of settings is a small frozen dataclass of `Options`, whose fields are declared with `setting`. From the
declaration come the check with its message, the keyword of workflow and stage with its aliases, the key in YAML, the
flag of the command line with its help, and what of it a record of a step holds. Every wrong value gets one sentence::

    n_clusters must be a whole number of at least 1, or 'auto'; got 'many'
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from inspect import Parameter, signature
from typing import Any, ClassVar, Self, TypeVar, get_args, get_type_hints

import numpy as np

from semdedup.errors import ParameterError
from semdedup.settings import site as of_site
from semdedup.settings.reprs import Shown, shown_parameters

INPUT, METHOD, OUTPUT = "Input", "Method", "Output"
"""Headings of the help of a command, as `heading`; those of a cluster and of a store are where their settings are."""

T = TypeVar("T", bound=type)
V = TypeVar("V")


class Found(ValueError):
    """What was found in place of a value, in words, where showing the value itself would not do."""


@dataclass(frozen=True)
class Kind:
    """What values a setting takes.

    Attributes:
        words: what follows "must" in the message.
        plain: gives the value as it is kept and recorded; raises ValueError or TypeError for one that cannot be.
        parse: what the text of a flag means; the text itself where it means nothing, for `plain` to refuse.
        metavar: what stands for the value in the help of a flag; empty for a flag without a value.
        many: whether a flag takes several values.
        commas: whether commas part them there.
        group: the options of which a value is made, where a mapping of them is a value.
    """

    words: str
    plain: Callable[[Any], Any]
    parse: Callable[[str], Any] = str
    metavar: str = "TEXT"
    many: bool = False
    commas: bool = True
    group: type[Options] | None = None


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        kind: what values it takes.
        default: its value where none is given; None is then a value, too.
        help: one sentence.
        name: its keyword in Python and its key in YAML.
        attribute: the field that holds it.
        aliases: older keywords of the same.
        flags: its flags; the name with dashes where none are given.
        unrecorded: why results of two values are the same, so that the record of a step leaves it out.
        heading: under which it stands in the help of a command.
        site: the section of Dask's configuration in which a site may say another default; empty where it may not.
    """

    kind: Kind
    default: Any
    help: str
    name: str = ""
    attribute: str = ""
    aliases: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    unrecorded: str = ""
    heading: str = METHOD
    site: str = ""

    def check(self, value: Any) -> Any:
        """The value made plain. Raises the `ParameterError` that goes with a wrong one."""
        if value is None and self.default is None:
            return None
        try:
            return self.kind.plain(value)
        except ParameterError:
            raise
        except (ValueError, TypeError, OverflowError) as error:
            found = str(error) if isinstance(error, Found) else shown(value)
            raise ParameterError(f"{self.name} must {self.kind.words}; got {found}") from None

    def standing(self) -> Any:
        """The default that holds here: what the site says, where it may and does."""
        found = of_site.said(self.site, self.name) if self.site else None
        if found is None:
            return self.default
        try:
            return self.check(found)
        except ParameterError as error:
            raise ParameterError(f"{of_site.place(self.site)}: {error}") from None

    def of(self, given: Mapping[str, Any]) -> Any:
        """Its value among keywords, by its name or an alias; the default that holds here where there is none.

        Raises:
            ParameterError: two spellings have two values, or the value is wrong.
        """
        spelled = {name: given[name] for name in (self.name, *self.aliases) if name in given}
        values = {name: self.check(value) for name, value in spelled.items() if not _same(value, self.default)}
        (first, value), *others = values.items() or [(self.name, self.default if spelled else self.standing())]
        for other, another in others:
            if not _same(value, another):
                raise ParameterError(
                    f"{first} is {shown(value)} but {other}, its alias, is {shown(another)}; give one of them"
                )
        return value


def setting(
    default: Any,
    kind: Kind,
    help: str,
    *,
    name: str = "",
    aliases: Sequence[str] = (),
    flags: Sequence[str] = (),
    unrecorded: str = "",
    heading: str = "",
    site: str = "",
) -> Any:
    """A field of `Options`, see `Setting`; its heading is that of the group where none is given."""
    declared = Setting(kind, default, help, name, "", tuple(aliases), tuple(flags), unrecorded, heading, site)
    return dataclasses.field(default=default, metadata={"setting": declared}, repr=kind.metavar != "MAPPING")


class Options:
    """Base of the dataclasses of settings: values are checked and made plain when an object is made.

    Attributes:
        last: names of those that are listed after the others.
        heading: under which they stand in the help of a command.
    """

    last: ClassVar[tuple[str, ...]] = ()
    heading: ClassVar[str] = METHOD

    def __post_init__(self) -> None:
        for declared in settings_of(type(self)):
            object.__setattr__(self, declared.attribute, declared.check(getattr(self, declared.attribute)))
        self.check_together()

    def check_together(self) -> None:
        """Refuse values that do not go with one another."""

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """From keywords, among which there may be those of other groups."""
        return cls(**{declared.attribute: declared.of(given) for declared in settings_of(cls)})

    @classmethod
    def named(cls, given: Mapping[str, Any], whose: str) -> Self:
        """From a mapping that a user wrote. Raises a `ParameterError` for a name that is none of them."""
        check_names(
            whose, given, [name for declared in settings_of(cls) for name in (declared.name, *declared.aliases)]
        )
        return cls.of(given)

    def recorded(self) -> dict[str, Any]:
        """The settings that the result depends on, by name, as JSON values."""
        held = {declared.name: getattr(self, declared.attribute) for declared in settings_of(type(self))
                if not declared.unrecorded}  # fmt: skip
        return {name: list(value) if isinstance(value, tuple) else value for name, value in held.items()}


def settings_of(*groups: type[Options]) -> tuple[Setting, ...]:
    """The settings that some groups declare, in order."""
    return tuple(
        dataclasses.replace(field.metadata["setting"], name=field.metadata["setting"].name or field.name,
                            attribute=field.name, heading=field.metadata["setting"].heading or group.heading)
        for group in groups
        for field in sorted(dataclasses.fields(group), key=lambda one: one.name in group.last)  # type: ignore[arg-type]
    )  # fmt: skip


def asking_the_site(cls: T) -> T:
    """Let the constructor of a group take from the site what is not given."""
    init = cls.__init__  # type: ignore[misc]

    @wraps(init)
    def init_here(self: Any, *args: Any, **given: Any) -> None:
        named = signature(init).bind(self, *args, **given).arguments
        asked = {one.attribute: one.standing() for one in settings_of(cls) if one.site and one.attribute not in named}
        init(self, *args, **given, **asked)

    cls.__init__ = init_here  # type: ignore[misc]
    return cls


def check_names(whose: str, given: Any, known: Iterable[str]) -> None:
    """Refuse what is no mapping, or has names that are not known."""
    known = list(known)
    if not isinstance(given, Mapping):
        raise ParameterError(f"{whose} must be a mapping of parameters; got {shown(given)}")
    for name in given:
        if name not in known:
            raise ParameterError(
                f"{whose} has no parameter {name!r} here{meant(name, known)}; it has {', '.join(known)}"
            )


def meant(name: Any, known: Iterable[str]) -> str:
    """What a wrong name was probably to be, in a message; empty where nothing is near.

    >>> meant("n_cluster", ["eps", "n_clusters"]), meant("x", ["eps"])
    (" (did you mean 'n_clusters'?)", '')
    """
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def taken(cls: type, given: Mapping[str, Any], **others: Any) -> dict[str, Any]:
    """The keywords that a class takes, of all that were given; and others."""
    return {**{name: given[name] for name in signature(cls).parameters if name in given}, **others}


def documented(*groups: type[Options]) -> Callable[[T], T]:
    """Put the help of the settings below the docstring of a class, and its ``**shared`` keywords in its signature."""

    def decorate(cls: T) -> T:
        declared = settings_of(*groups)
        lines = [f"    {one.name}: {one.help}" for one in declared]
        cls.__doc__ = "\n".join([inspect.cleandoc(cls.__doc__ or ""), "", "Settings:", *lines, ""])
        init = _spelled_out(cls.__init__, {one.name: one.default for one in declared})  # type: ignore[misc]
        cls.__init__ = init  # type: ignore[misc]
        return cls

    return decorate


def _spelled_out(init: Callable[..., None], defaults: Mapping[str, Any]) -> Callable[..., None]:
    """A constructor with the keywords of its last parameter, ``**shared: Unpack[…]``, each with its default."""
    *own, shared = signature(init).parameters.values()
    (keywords,) = get_args(get_type_hints(init)[shared.name])
    spelled = [Parameter(name, Parameter.KEYWORD_ONLY, default=defaults[name], annotation=kind)
               for name, kind in get_type_hints(keywords).items()]  # fmt: skip
    whole = signature(init).replace(parameters=[*own, *spelled])
    standard = {name: one.default for name, one in whole.parameters.items()}

    @wraps(init)
    def spelled_out(*args: Any, **given: Any) -> None:
        bound = whole.bind(*args, **given)
        args[0].named = frozenset(bound.arguments)  # the keywords that were given, for what defaults depend on others
        if isinstance(args[0], Shown):
            args[0].shown = shown_parameters(dict(list(bound.arguments.items())[1:]), standard)
        bound.apply_defaults()
        init(*bound.args, **bound.kwargs)

    spelled_out.__signature__ = whole  # type: ignore[attr-defined]
    return spelled_out


def needed(value: V | None, name: str) -> V:
    """The value of a path that must be given."""
    if not value:
        raise ParameterError(f"{name} is not given: name the folder")
    return value


def shown(value: Any) -> str:
    """A value in a message, in at most 80 characters; arrays by their shape."""
    if isinstance(value, np.floating):
        return str(value)
    if isinstance(value, np.generic):
        value = value.item()
    if hasattr(value, "shape"):
        return f"an array of shape {tuple(value.shape)}"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _same(one: Any, other: Any) -> bool:
    return one is other or (type(one) is type(other) and not hasattr(one, "shape") and bool(one == other))
