"""Kinds of values that settings take: what they accept, how they make it plain, and the words for it."""

from __future__ import annotations

import math
import numbers
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from semdedup.settings import Found, Kind, Options, settings_of, shown
from semdedup.settings.frames import TAKEN, frame_of

MOST_WHOLE, MOST_NUMBER = 1 << 63, 1e9
"""Larger values mean nothing, and libraries below (tables, clocks, FFmpeg) refuse them in the middle of a run."""


def whole(least: int | None = None, below: int | None = None, word: str = "") -> Kind:
    """A whole number, NumPy's too; or a word."""

    def plain(value: Any) -> int | str:
        if word and isinstance(value, str) and value == word:
            return value
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
            raise TypeError
        if abs(int(value)) >= MOST_WHOLE:
            raise Found(f"{shown(value)}, which takes more than 64 bits")
        if (least is not None and value < least) or (below is not None and value >= below):
            raise ValueError
        return int(value)

    def parse(text: str) -> int | str:
        return int(text) if re.fullmatch(r"[+-]?\d{1,100}", text) else text

    span = f" in [{least}, {below})" if below is not None else "" if least is None else f" of at least {least}"
    return Kind(
        f"be a whole number{span}" + f", or {word!r}" * bool(word), plain, parse, "INTEGER" + f"|{word}" * bool(word)
    )


def number(
    least: float = -math.inf, most: float = math.inf, *, open_below: bool = False, open_above: bool = False
) -> Kind:
    """A finite number, kept as a float."""

    def plain(value: Any) -> float:
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, (numbers.Real, np.number)):
            raise TypeError
        short = isinstance(value, np.floating) and value.dtype.itemsize < 8  # 0.1 as float32 is meant as 0.1
        found = float(str(value)) if short else float(value)
        low, high = (found > least if open_below else found >= least), (found < most if open_above else found <= most)
        if not (math.isfinite(found) and low and high):
            raise ValueError
        if abs(found) > MOST_NUMBER:
            raise Found(f"{shown(value)}, which is more than {MOST_NUMBER:,.0f}")
        return found

    def parse(text: str) -> float | str:
        try:
            return float(text)
        except ValueError:
            return text

    if most < math.inf:
        words = f"lie in {'(' if open_below else '['}{least:g}, {most:g}{')' if open_above else ']'}"
    else:
        words = f"be a number {'above' if open_below else 'of at least'} {least:g}"
    return Kind(words, plain, parse, "FLOAT")


def n_bytes(least: int) -> Kind:
    """Bytes of memory, kept as a whole number; text may have a unit."""
    number_of = whole(least)

    def plain(value: Any) -> Any:
        if isinstance(value, str):
            from dask.utils import parse_bytes  # here: the process that decodes does without Dask

            if not re.fullmatch(r"\d+(\.\d+)? *[A-Za-z]*", value):
                raise ValueError
            value = parse_bytes(value)
        return number_of.plain(value)

    return Kind(f"be bytes, as in 4GiB, at least {least:,}", plain, metavar="BYTES")


def choice(*words: str) -> Kind:
    """One of some words."""

    def plain(value: Any) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError
        return str(value)

    return Kind(f"be one of {', '.join(words)}", plain, metavar="|".join(words))


def truth() -> Kind:
    """True or False. Words are refused: "no" would be taken for true elsewhere."""

    def plain(value: Any) -> bool:
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError
        return bool(value)

    return Kind("be true or false", plain, metavar="")


def text(words: str = "be text that is not empty", pattern: str = r"(?s).+") -> Kind:
    """Text that matches a pattern as a whole."""

    def plain(value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise ValueError
        return str(value)

    return Kind(words, plain)


def several(words: str, item: Kind) -> Kind:
    """A list of values, kept as a tuple; one value alone is a list of one."""

    def plain(value: Any) -> tuple[Any, ...]:
        if value is None or isinstance(value, (bytes, Mapping)):
            raise TypeError
        alone = isinstance(value, (str, numbers.Real, os.PathLike)) or not isinstance(value, Iterable)
        return tuple(item.plain(each) for each in ([value] if alone else value))

    return Kind(words, plain, item.parse, item.metavar, many=True)


def path() -> Kind:
    """One path. It is looked at by `Location`, which knows protocols."""
    return Kind("be a path that is not empty", _plain_path, metavar="PATH")


def paths() -> Kind:
    """One path or several."""

    def plain(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [_plain_path(each) for each in value]
        return _plain_path(value)

    return Kind("be a path or a list of paths", plain, metavar="PATH", many=True)


def paths_or_frame() -> Kind:
    """One path or several, or a frame, kept as a `Frame`."""
    given = paths()

    def plain(value: Any) -> Any:
        frame = frame_of(value)
        if frame is not None:
            return frame
        alone = value if isinstance(value, (list, tuple)) else [value]
        other = next((each for each in alone if not isinstance(each, str | os.PathLike) and not _is_place(each)), None)
        if other is not None:
            several = alone is value
            raise Found(f"a list that holds {_a(other)}" if several else _a(other))
        return given.plain(value)

    return Kind(f"be a path, a glob, a list of these, or a frame: {TAKEN}", plain, metavar="PATH", many=True)


def _a(value: Any) -> str:
    """A value by its type, for messages: "a dict"."""
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def _is_place(value: Any) -> bool:
    return hasattr(value, "storage_options") or hasattr(value, "is_local")


def _plain_path(value: Any) -> Any:
    found = value if _is_place(value) else os.fspath(value)
    if isinstance(found, bytes) or found == "":
        raise ValueError
    return found


def mapping(words: str, check: Callable[[Mapping[str, Any]], None]) -> Kind:
    """A mapping for another library, which `check` tries. Values are never shown: they may hold credentials."""

    def plain(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise Found(type(value).__name__)
        if not all(isinstance(name, str) for name in value):
            raise Found("a name that is not text")
        check(value)
        return dict(value)

    return Kind(words, plain, metavar="MAPPING")


def grouped(group: type[Options], whose: str) -> Kind:
    """An object of a group of settings, or a mapping of them."""
    names = ", ".join(declared.name for declared in settings_of(group))

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return group.named(value, whose)
        if not isinstance(value, group):
            raise TypeError
        return value

    return Kind(f"be a mapping of {names}, or {group.__name__}", plain, metavar="MAPPING", group=group)
