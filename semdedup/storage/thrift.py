"""Thrift's compact protocol, in which the metadata of Parquet files are: bytes to plain values, and back.

A struct is a dict of its fields by number, each a kind and a value; a list is the kind of its elements and these.
Values of a struct that nobody asks for come back as they were.

Reference: Apache Thrift, "Thrift compact protocol encoding" (thrift-compact-protocol.md).
"""

from __future__ import annotations

from typing import Any

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, _, STRUCT = range(1, 13)
"""Kinds of values. Truth is told by the kind of a field, and by a byte in a list."""

Struct = dict[int, tuple[int, Any]]

LONG = 15
"""What stands for the length of a list that has as many elements or more; the length follows."""


def varint(number: int) -> bytes:
    """A whole number from 0 on, seven bits in a byte."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def _zigzag(number: int) -> bytes:
    return varint(number << 1 if number >= 0 else (-number << 1) - 1)


def encoded(value: Struct) -> bytes:
    """A struct as bytes."""
    return _encoded(STRUCT, value)


def _encoded(kind: int, value: Any) -> bytes:
    if kind in (I16, I32, I64):
        return _zigzag(value)
    if kind == BINARY:
        return varint(len(value)) + value
    if kind in (TRUE, FALSE, BYTE, DOUBLE):
        return bytes(value)
    if kind in (LIST, SET):
        of, elements = value
        n = len(elements)
        head = bytes([n << 4 | of]) if n < LONG else bytes([LONG << 4 | of]) + varint(n)
        return head + b"".join(_encoded(of, element) for element in elements)
    if kind != STRUCT:
        raise ValueError(f"no kind of value: {kind}")
    parts, last = [], 0
    for number, (of, inner) in value.items():
        near = 0 < number - last <= 15
        parts.append(bytes([number - last << 4 | of]) if near else bytes([of]) + _zigzag(number))
        parts.append(b"" if of in (TRUE, FALSE) else _encoded(of, inner))
        last = number
    return b"".join(parts) + b"\0"


def decoded(content: bytes) -> Struct:
    """The struct that `encoded` made these bytes of. Raises a `ValueError` or `IndexError` for other bytes."""
    found: Struct = _Reader(content).value(STRUCT)
    return found


class _Reader:
    def __init__(self, content: bytes) -> None:
        self.content, self.place = content, 0

    def take(self, n: int) -> bytes:
        self.place += n
        return self.content[self.place - n : self.place]

    def varint(self) -> int:
        number = shift = 0
        while True:
            byte = self.content[self.place]
            self.place += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number

    def value(self, kind: int) -> Any:
        if kind in (I16, I32, I64):
            number = self.varint()
            return number >> 1 ^ -(number & 1)
        if kind == BINARY:
            return self.take(self.varint())
        if kind in (TRUE, FALSE, BYTE):
            return self.take(1)
        if kind == DOUBLE:
            return self.take(8)
        if kind in (LIST, SET):
            (head,) = self.take(1)
            n = head >> 4 if head >> 4 < LONG else self.varint()
            return head & 0xF, [self.value(head & 0xF) for _ in range(n)]
        if kind != STRUCT:
            raise ValueError(f"no kind of value: {kind}")
        found: Struct = {}
        number = 0
        while (head := self.take(1)[0]) != 0:
            number = number + (head >> 4) if head >> 4 else self.value(I16)
            of = head & 0xF
            found[number] = of, None if of in (TRUE, FALSE) else self.value(of)
        return found
