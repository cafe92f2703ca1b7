"""What the process that decodes answers: MessagePack that is read by type, so that reading it can run no code.

The annotation of a function that runs there says what it yields, and nothing else is taken for an answer: what msgspec
knows (structs, dataclasses, containers, plain values), arrays of uint8, int8 and float32, and fractions. Where several
types are possible, they are structs with a tag.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache
from typing import Any, Generic, Literal, TypeVar, get_args, get_type_hints

import msgspec
import numpy as np

T = TypeVar("T")

ELEMENTS = frozenset({"uint8", "int8", "float32"})
"""Types of the elements of arrays."""


class Item(msgspec.Struct, Generic[T], frozen=True, tag=True):
    """What the function yielded."""

    value: T


class Heartbeat(msgspec.Struct, frozen=True, tag=True):
    """The function is at work."""


class End(msgspec.Struct, frozen=True, tag=True):
    """The function has returned."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The function raised.

    Attributes:
        kind: ``memory`` ran out, the ``system`` refused something (a full disk, say), or a ``defect``.
        text: what was raised; of a defect with its traceback.
        errno: the number of a system's error.
    """

    kind: Literal["memory", "system", "defect"]
    text: str
    errno: int | None = None


class Needed(msgspec.Struct, frozen=True, tag=True):
    """The function needs the byte of its file at this position, and waits for it."""

    position: int


Message = Item[Any] | Heartbeat | End | Failed | Needed


def encoded(message: Message) -> bytes:
    """A message as bytes. Raises an error for what cannot be sent."""
    return _ENCODER.encode(message)


@cache
def decoder_of(function: Callable[[Any], Iterator[Any]]) -> msgspec.msgpack.Decoder[Message]:
    """Reads the messages of a function, whose annotation says what it yields."""
    item, *_ = get_args(get_type_hints(function)["return"])
    messages: Any = Item[item] | Heartbeat | End | Failed | Needed  # type: ignore[valid-type]
    return msgspec.msgpack.Decoder(messages, dec_hook=_taken, ext_hook=_refused)


def _plain(value: Any) -> Any:
    """What is sent in place of a value that MessagePack does not know."""
    if isinstance(value, np.ndarray) and value.dtype.name in ELEMENTS:
        return value.dtype.name, value.shape, value.tobytes()
    if isinstance(value, Fraction):
        return value.numerator, value.denominator
    raise TypeError(f"{type(value).__name__} cannot be sent: {value!r}")


def _taken(expected: type, sent: Any) -> Any:
    """The value of a type for which this was sent."""
    if expected is np.ndarray:
        elements, shape, content = sent
        if elements not in ELEMENTS or min(shape, default=0) < 0:
            raise ValueError(f"no array: {elements} {shape}")
        if math.prod(shape) * np.dtype(elements).itemsize != len(content):
            raise ValueError(f"{len(content):,} bytes for an array of shape {shape}")
        return np.frombuffer(bytearray(content), elements).reshape(shape)  # of bytes it could not be written to
    if expected is Fraction:
        numerator, denominator = sent
        return Fraction(numerator, denominator)
    raise TypeError(f"{expected} is no type of an answer")


def _refused(code: int, content: memoryview) -> Any:
    raise ValueError(f"no such type as {code}")


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_plain)
