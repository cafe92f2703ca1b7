"""Conditions on the columns of clips: ``motion > 0.1 and (height >= 480 or not low_information)``.

The grammar is a small part of Python's, read by its parser and never run::

    condition  = comparison | column | not condition | condition and condition | condition or condition | (condition)
    comparison = operand (< | <= | > | >= | == | !=) operand …
    operand    = column | number | "text" | True | False

What is not known of a clip, or is of another kind than what it is compared with, is neither true nor false.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any

OPERATORS: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    **{ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge},
    **{ast.Eq: operator.eq, ast.NotEq: operator.ne},
}
NEEDED = "comparisons are <, <=, >, >=, == and !=, put together by and, or, not and parentheses"
LONGEST = 2000
"""Characters of a condition."""


@lru_cache
def parsed(text: str) -> ast.expr:
    """A condition as a tree of Python's that holds nothing but what the grammar has.

    Raises:
        ValueError: with what is wrong with it.
    """
    if len(text) > LONGEST:
        raise ValueError(f"it is longer than {LONGEST:,} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        words = getattr(error, "msg", None) or "too deep, or no text"
        raise ValueError(f"it cannot be read ({words}); {NEEDED}") from None
    _check(tree)
    return tree


def _check(tree: ast.expr) -> None:
    if isinstance(tree, ast.BoolOp):
        for part in tree.values:
            _check(part)
    elif isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.Not):
        _check(tree.operand)
    elif isinstance(tree, ast.Compare):
        operands = [tree.left, *tree.comparators]
        bad = next((each for each in operands if not (isinstance(each, ast.Name) or _is_constant(each))), None)
        if bad is not None:
            raise ValueError(f"{ast.unparse(bad)!r} is no column, number or text")
        if not any(isinstance(each, ast.Name) for each in operands):
            raise ValueError(f"{ast.unparse(tree)!r} has no column")
        if not all(type(op) in OPERATORS for op in tree.ops):
            raise ValueError(f"{ast.unparse(tree)!r} cannot be asked; {NEEDED}")
    elif not isinstance(tree, ast.Name):
        raise ValueError(f"{ast.unparse(tree)!r} is no comparison")


def _is_constant(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node = node.operand
        return isinstance(node, ast.Constant) and kind_of(node.value) == "a number"
    return isinstance(node, ast.Constant) and kind_of(node.value) is not None


def kind_of(value: Any) -> str | None:
    """What kind of value it is, in words; None for what no column holds."""
    if isinstance(value, bool):
        return "true or false"
    return "a number" if isinstance(value, int | float) else "text" if isinstance(value, str) else None


def columns_in(tree: ast.expr) -> list[str]:
    """The columns that a condition asks for, in the order of their names."""
    return sorted({node.id for node in ast.walk(tree) if isinstance(node, ast.Name)})


def pairs_in(tree: ast.expr) -> Iterator[tuple[ast.expr, ast.expr | None]]:
    """Operands that are compared; a column that stands alone is with None."""
    if isinstance(tree, ast.BoolOp):
        for part in tree.values:
            yield from pairs_in(part)
    elif isinstance(tree, ast.UnaryOp):
        yield from pairs_in(tree.operand)
    elif isinstance(tree, ast.Compare):
        yield from pairwise([tree.left, *tree.comparators])
    else:
        yield tree, None


def value_of(node: ast.expr, facts: Mapping[str, Any]) -> Any:
    """The value of an operand for a clip; None where it is not known."""
    return facts.get(node.id) if isinstance(node, ast.Name) else ast.literal_eval(node)


def holds(tree: ast.expr, facts: Mapping[str, Any]) -> bool | None:
    """Whether a condition is true of a clip; None where that depends on what is not known of it.

    >>> holds(parsed("motion > 0.1 and height >= 480"), {"motion": 0.05})
    False
    >>> holds(parsed("not motion > 0.1"), {}) is None
    True
    """
    if isinstance(tree, ast.BoolOp):
        decides = isinstance(tree.op, ast.Or)
        return _together([holds(part, facts) for part in tree.values], decides)
    if isinstance(tree, ast.UnaryOp):
        found = holds(tree.operand, facts)
        return None if found is None else not found
    if isinstance(tree, ast.Compare):
        values = [value_of(each, facts) for each in (tree.left, *tree.comparators)]
        pairs = zip(tree.ops, pairwise(values), strict=True)
        return _together([_compared(op, left, right) for op, (left, right) in pairs], False)
    found = value_of(tree, facts)
    return found if isinstance(found, bool) else None


def _together(found: list[bool | None], decides: bool) -> bool | None:
    """Of several: one that is `decides` is enough."""
    return decides if decides in found else None if None in found else not decides


def _compared(op: ast.cmpop, left: Any, right: Any) -> bool | None:
    kind = kind_of(left)
    return OPERATORS[type(op)](left, right) if kind is not None and kind == kind_of(right) else None
