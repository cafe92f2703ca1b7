"""Which clips satisfy the conditions of a dataset. Columns are what is known of a clip.

These are the single values of its metadata, and what columns beside embeddings have by other names: ``duration_s``,
``fps``, ``n_frames`` and ``bitrate``.
"""

from __future__ import annotations

import ast
import difflib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from semdedup.errors import ParameterError
from semdedup.shards.conditions import columns_in, holds, kind_of, pairs_in, parsed, value_of
from semdedup.shards.inputs import Inputs
from semdedup.shards.streams import read_small
from semdedup.video.clip_meta import parse_meta, span_of

LOOKED_INTO = 64
"""Metadata that are read, evenly over all, to see what columns there are."""

SAME_AS = {"fps": "framerate", "n_frames": "num_frames", "bitrate": "bitrate_source"}


def facts_of(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What can be asked of a clip, from its metadata; null where it is there and not known."""
    start_s, end_s = span_of(meta)
    length = None if start_s is None or end_s is None else end_s - start_s
    derived = {"start_s": start_s, "end_s": end_s, "duration_s": length}
    derived |= {name: meta.get(other) for name, other in SAME_AS.items() if other in meta}
    facts = {name: value for name, value in meta.items() if kind_of(value) is not None}
    return {**dict.fromkeys(name for name in meta if meta[name] is None), **derived, **facts}


def keeps(conditions: Sequence[str], meta: Mapping[str, Any]) -> bool | None:
    """Whether all conditions are true of a clip; None where that depends on what is not known of it."""
    facts = facts_of(meta)
    found = [holds(parsed(text), facts) for text in conditions]
    return False if False in found else None if None in found else True


def check_columns(conditions: Sequence[str], inputs: Inputs) -> None:
    """Refuse a column that no clip has, or that is compared with what it is not, before work starts.

    Cost: reading `LOOKED_INTO` metadata.

    Raises:
        ParameterError: with the columns that there are.
    """
    if not conditions:
        return
    step = -(-len(inputs.metas) // LOOKED_INTO) or 1
    files = [inputs.root.at(inputs.metas[i].url) for i in range(0, len(inputs.metas), step)]
    kinds = defaultdict[str, set[str]](set)
    for content in read_small(files, inputs.root.is_local):
        meta = parse_meta(content or b"")
        for name, value in facts_of(meta).items() if isinstance(meta, dict) else ():
            kinds[name] |= {kind for kind in [kind_of(value)] if kind}
    known = sorted(name for name in kinds if name.isidentifier())
    for text in conditions:
        for name in columns_in(parsed(text)):
            if name not in kinds:
                raise ParameterError(f"keep_if (--keep-if) {text!r}: {_unknown(name, known, inputs)}")
        for left, right in pairs_in(parsed(text)):
            _check_kinds(text, left, right, kinds)


def _unknown(name: str, known: Sequence[str], inputs: Inputs) -> str:
    if not known:
        return f"there is nothing to ask of clips: no metadata in {inputs.metas_folder}"
    near = difflib.get_close_matches(name, known, 1)
    return (
        f"the clips have no column {name!r}"
        + "".join(f"; the closest is {other!r}" for other in near)
        + f". There are {', '.join(known)}"
        + "; split --clip-scores measures it" * (name in ("motion", "sharpness"))
    )


def _check_kinds(text: str, left: Any, right: Any, kinds: Mapping[str, set[str]]) -> None:
    """Refuse a comparison that is true of no clip. A column that is null wherever it was looked at may be anything."""
    found = []
    for node in (left, right):
        value = True if node is None else value_of(node, {})
        found.append(kinds[node.id] if isinstance(node, ast.Name) else {kind_of(value) or ""})
    if all(found) and not found[0] & found[1]:
        names = [ast.unparse(left), "a condition" if right is None else ast.unparse(right)]
        words = [f"{name} is {' or '.join(sorted(kind))}" for name, kind in zip(names, found, strict=True)]
        raise ParameterError(f"keep_if (--keep-if) {text!r}: {', and '.join(words)}")
