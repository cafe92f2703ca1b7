"""How workflows and stages are shown: their name, and the parameters that were given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

MOST_CHARACTERS = 60
"""Of one value."""

SECRET = "storage_options"
"""Its values are not shown, wherever it is given: they hold passwords and keys."""


class Shown:
    """What is shown as the call that makes it, in a terminal and in a notebook.

    Attributes:
        shown: the parameters that were given, each as text.
    """

    shown: Mapping[str, str] = {}

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={text}" for name, text in self.shown.items())
        return f"{type(self).__name__}({given})"

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in self.shown.items())
        return f'<table class="semdedup"><caption>{type(self).__name__}</caption>{rows}</table>'


def shown_parameters(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, str]:
    """Parameters as text, without those that have their default.

    >>> shown_parameters({"eps": 0.1, "n_init": 1}, {"eps": None, "n_init": 1})
    {'eps': '0.1'}
    """
    differing = {name: value for name, value in given.items() if not _is_default(value, defaults.get(name))}
    return {name: "{...}" if name == SECRET else parameter_text(value) for name, value in differing.items()}


def parameter_text(value: Any) -> str:
    """A value of a parameter in a few words: frames and arrays by their type and shape, long ones cut.

    >>> parameter_text({"storage_options": {"key": "secret"}}), parameter_text([0.1, 0.2])
    ("{'storage_options': {...}}", '[0.1, 0.2]')
    """
    if isinstance(value, Mapping):
        parts = (f"{name!r}: {'{...}' if name == SECRET else parameter_text(each)}" for name, each in value.items())
        text = "{" + ", ".join(parts) + "}"
    elif isinstance(value, (list, tuple)):
        text = f"[{', '.join(map(parameter_text, value))}]"
    elif value is None or isinstance(value, (str, int, float)) or type(value).__module__.startswith("semdedup."):
        text = repr(value)
    else:  # a frame may be computed, or hold everything, where it is asked for its repr
        shape = getattr(value, "shape", None)
        known = isinstance(shape, Sequence) and all(isinstance(n, int) for n in shape)
        text = f"<{type(value).__name__}{f' {tuple(shape)}' if known and shape is not None else ''}>"
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 1]}…"


def _is_default(value: Any, default: Any) -> bool:
    comparable = type(value) is type(default) and isinstance(value, (str, int, float, tuple))
    return value is default or (comparable and bool(value == default))
