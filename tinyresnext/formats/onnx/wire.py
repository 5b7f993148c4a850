"""Protobuf's wire format: how a message lies in a file, and how one is written.

A message is a row of fields. Each field begins with a tag, which says the field's number and how
its value lies in the file::

    tag = number << 3 | wire        (itself a varint)

    wire 0   a varint: seven bits a byte, lowest first; a byte from 128 on is not the last
    wire 1   eight bytes: a double
    wire 2   a length (a varint) and as many bytes: a text, numbers in a row, or another message
    wire 5   four bytes: a float

So 300 in field 1 is ``08 ac 02``: 0x08 is 1 << 3 | 0, and 0xac 0x02 is 44 + (2 << 7). Nothing says
where a message begins, what it is called or how many fields there are; a reader knows which fields
it wants and steps over the others. Repeated numbers come one by one, or "packed" in one field of
wire 2. Fields come in any order. A negative number is a varint of ten bytes, its value modulo
2**64.


Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from ...errors import FormatError, UnsafeError
from ...system.files import fill

__all__ = ["BYTES", "EIGHT", "FOUR", "VARINT", "Field", "Source", "field", "number", "signed"]

VARINT, EIGHT, BYTES, FOUR = 0, 1, 2, 5  # the wires
MOST_FIELDS = 500_000  # in a file, those that are stepped over included; some seconds of work
MOST_READ = 4 << 20  # bytes of texts and numbers, which take up to eight times that in memory
PACKED = 4  # a whole number of two bytes takes more than twice what a text of so many takes
WINDOW = 8 << 10  # bytes that are read at once


class Field(NamedTuple):
    """One field of a message.

    Attributes
    ----------
    number, wire : int
    value : int
        Of a varint.
    start, size : int
        Where in the file the bytes of any other value are.
    """

    number: int
    wire: int
    value: int
    start: int
    size: int

    @property
    def end(self) -> int:
        """The byte behind the value."""
        return self.start + self.size


class Source:
    """An open file of messages, of which a few kibibytes are in memory at a time."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.size = file, os.fstat(file.fileno()).st_size
        self._unread = MOST_READ
        self._left, self._begin, self._window = MOST_FIELDS, 0, b""

    def fields(self, start: int, end: int) -> Iterator[Field]:
        """Yield the fields of the message in a range of the file, in their order.

        Raises
        ------
        FormatError
            The range is not a message.
        UnsafeError
            The file has more fields than any network.
        """
        at = start
        while at < end:
            self._left -= 1
            if self._left < 0:
                raise UnsafeError(
                    f"the file has more than {MOST_FIELDS:,} fields; no network has so many"
                )
            tag, at = self._varint(at, end)
            wire, value, size = tag & 7, 0, 0
            if wire == VARINT:
                value, at = self._varint(at, end)
            elif wire == BYTES:
                size, at = self._varint(at, end)
            elif wire in (EIGHT, FOUR):
                size = 8 if wire == EIGHT else 4
            else:
                raise FormatError(f"a field has the wire type {wire}, which ONNX files do not have")
            if not 1 <= tag >> 3 < 1 << 29:
                raise FormatError("a field has no number that protobuf allows; fetch it again")
            if size > end - at:
                raise FormatError(
                    f"a field of {size:,} bytes begins at byte {at:,} of a message that ends at "
                    f"{end:,}; the file is cut short or damaged, fetch it again"
                )
            yield Field(tag >> 3, wire, value, at, size)
            at += size

    def raw(self, field: Field, most: int, what: str) -> bytes:
        """Return the bytes of a value; raise `FormatError` if they are none, or over ``most``."""
        if field.wire == VARINT:
            raise FormatError(f"{what} is a number; expected bytes; fetch the file again")
        if field.size > most:
            raise UnsafeError(f"{what} has {field.size:,} bytes; expected at most {most:,}")
        self._spend(field.size)
        raw = bytearray(field.size)
        fill(self.file, field.start, memoryview(raw), what)
        return bytes(raw)

    def text(self, field: Field, most: int, what: str) -> str:
        """Return a text; raise `FormatError` if it is not UTF-8, or over ``most`` bytes."""
        try:
            return self.raw(field, most, what).decode("utf-8")
        except UnicodeDecodeError:
            raise FormatError(f"{what} is not text in UTF-8; save the model again") from None

    def message(self, field: Field, what: str) -> Iterator[Field]:
        """Return the fields of the message that is a field's value."""
        if field.wire != BYTES:
            raise FormatError(f"{what} is no message; the file is damaged, fetch it again")
        return self.fields(field.start, field.end)

    def numbers(self, field: Field, most: int, what: str) -> list[int]:
        """Return whole numbers of a repeated field, one or packed; at most ``most`` of them."""
        if field.wire == VARINT:
            return [signed(field.value)]
        if field.wire != BYTES:
            raise FormatError(f"{what} are not whole numbers; fetch the file again")
        self._spend(PACKED * field.size)
        found, at = list[int](), field.start
        while at < field.end:
            if len(found) == most:
                raise UnsafeError(f"{what} are more than {most:,}; do not use the file")
            value, at = self._varint(at, field.end)
            found.append(signed(value))
        return found

    def _spend(self, count: int) -> None:
        """Raise `UnsafeError` if more bytes are read than the graph of any network has."""
        self._unread -= count
        if self._unread < 0:
            raise UnsafeError(
                f"texts and numbers of the graph have more than {MOST_READ:,} bytes; no network has"
            )

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """Return the varint at a byte of the file, and the byte behind it."""
        offset = at - self._begin
        if offset < 0 or offset + 10 > len(self._window):
            self._begin, offset = at, 0
            raw = bytearray(max(0, min(WINDOW, self.size - at)))
            fill(self.file, at, memoryview(raw), "a message")
            self._window = bytes(raw)
        if at < end and (first := self._window[offset]) < 128:  # most numbers are this short
            return first, at + 1
        value = 0
        for index, byte in enumerate(self._window[offset : offset + min(10, end - at)]):
            value |= (byte & 127) << 7 * index
            if byte < 128:
                if value >= 1 << 64:
                    break
                return value, at + index + 1
        raise FormatError(
            f"the number at byte {at:,} does not end within its message; the file is cut short or "
            "damaged, fetch it again"
        )


def signed(value: int) -> int:
    """Return the number that a varint of an int64 stands for."""
    return value - (1 << 64) if value >= 1 << 63 else value


def number(value: int) -> bytes:
    """Return a varint."""
    value %= 1 << 64
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(index: int, value: int | bytes) -> bytes:
    """Return a field: a whole number as a varint, bytes with their length."""
    if isinstance(value, int):
        return number(index << 3 | VARINT) + number(value)
    return number(index << 3 | BYTES) + number(len(value)) + value
