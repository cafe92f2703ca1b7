"""What is known of a clip, ``metas/v0/{id}.json``: others edit these files, so all readers of them read them here.

A file that is malformed costs the clip its metadata and nothing else; who reads it says what is wrong with it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from semdedup.display import one_line
from semdedup.errors import StorageError
from semdedup.storage.faults import chain
from semdedup.storage.location import Location
from semdedup.video.steps.caption.windows import WINDOWS, is_windows

MOST_LEVELS = 100
"""Objects and lists in each other. JSON that is nested deeper exhausts the stack of those who read or write it."""

LONGEST_S = 1e9
"""Seconds: thirty years. A time beyond that is no time of a video."""

EXAMPLES = 3
"""Files that a message names."""


def _is_number(value: Any, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < most


def _is_time(value: Any) -> bool:
    return _is_number(value, LONGEST_S)


def _is_span(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_time, value)) and value[0] <= value[1]


def _is_rate(value: Any) -> bool:
    return _is_number(value, 1e9)


def _is_count(value: Any) -> bool:
    return _is_number(value, 2**31) and value == int(value)


def _is_bitrate(value: Any) -> bool:
    return _is_number(value, 2**53) and value == int(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


SHAPES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "duration_span": (_is_span, "two times in seconds from 0 to 1e9, the later one second"),
    **dict.fromkeys(("start_s", "end_s"), (_is_time, "a time in seconds from 0 to 1e9")),
    **dict.fromkeys(("video", "source_video"), (_is_text, "text")),
    **dict.fromkeys(("width", "height", "num_frames"), (_is_count, "a whole number from 0 to 2**31")),
    "framerate": (_is_rate, "a number from 0 to 1e9"),
    "bitrate_source": (_is_bitrate, "a whole number from 0 to 2**53"),
    WINDOWS: (is_windows, "a list of objects, where start_frame and end_frame are frames and captions text"),
}
"""The fields that semdedup reads, and what they must be; null stands for what is not known. All others are free."""


def parse_meta(content: bytes) -> dict[str, Any] | str:
    """The metadata of a clip from the content of its file; or in words, to be read after its name, what is wrong.

    >>> parse_meta(b'{"width": 640, "caption": "a cat"}')
    {'width': 640, 'caption': 'a cat'}
    >>> parse_meta(b'{"width": true}')
    'has width True, which must be a whole number from 0 to 2**31'
    """
    meta = parse_object(content)
    return meta if isinstance(meta, str) else fault_of(meta) or meta


def parse_object(content: bytes) -> dict[str, Any] | str:
    """The JSON object that a file holds, whatever its fields; or what is wrong with it.

    Only what every other program reads passes: UTF-8, no NaN, no half of a surrogate pair, nothing endlessly nested.
    """
    try:
        value = json.loads(content.decode("utf-8-sig"), parse_constant=_no_number, parse_float=_finite)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError:
        return "is not UTF-8"
    except UnicodeEncodeError:
        return "holds half of a surrogate pair, which is no character"
    except RecursionError:
        return f"is nested deeper than {MOST_LEVELS} levels"
    except ValueError as error:
        return f"is no JSON: {str(error)[:90]}"
    if not isinstance(value, dict):
        return f"is no JSON object, but a {type(value).__name__}"
    return f"is nested deeper than {MOST_LEVELS} levels" if _is_deeper(value, MOST_LEVELS) else value


def fault_of(meta: Mapping[str, Any]) -> str:
    """What is wrong with the first of the fields that is not of its shape; empty where all are."""
    for name, (fits, words) in SHAPES.items():
        value = meta.get(name)
        if value is not None and not fits(value):
            return f"has {name} {repr(value)[:60]}, which must be {words}"
    start_s, end_s = meta.get("start_s"), meta.get("end_s")
    if start_s is not None and end_s is not None and end_s < start_s:
        return f"has end_s {end_s!r}, before start_s {start_s!r}"
    return ""


def span_of(meta: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Where in its video a clip begins and ends, in seconds; None where that is not known."""
    return meta.get("duration_span") or (meta.get("start_s"), meta.get("end_s"))


def well_formed(meta: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of what somebody else's table says of a clip, without those that are not of their shape."""
    return {name: value for name, value in meta.items() if not fault_of({name: value})}


def read_meta(file: Location) -> dict[str, Any] | str | None:
    """`parse_meta` of a file; None where there is none. Raises `StorageError` where it cannot be read."""
    try:
        return parse_meta(file.read_bytes())  # and not asked first whether it is there: that is a request as well
    except StorageError as error:
        if any(isinstance(cause, FileNotFoundError) for cause in chain(error)):
            return None
        raise


def describe_faults(n: int, faults: Sequence[str], consequence: str) -> str:
    """A sentence that names the first of the files that are malformed.

    >>> describe_faults(4, ["a.json is not UTF-8"], "their clips are kept")
    '4 metadata files are malformed; their clips are kept: a.json is not UTF-8'
    """
    return f"{n:,} metadata files are malformed; {consequence}: {'; '.join(map(one_line, faults[:EXAMPLES]))}"


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is none of its values")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large a number")
    return value


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether more than so many objects and lists are in each other."""
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return not levels or any(_is_deeper(each, levels - 1) for each in inner)
