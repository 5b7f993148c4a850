"""A first walk over a pickle, on which nothing is built: which objects it asks for again."""

from __future__ import annotations

import struct
from typing import BinaryIO

__all__ = ["asked_for"]

PIECE = 1 << 16  # bytes read at once; the longest line that is no text has less
_STOP, _BINGET, _LONG_BINGET, _GET = b".hjg"
# For each opcode: the bytes of its argument, or a negative number if it needs a look
_TEXT, _LINES, _ASKS, _ENDS = -1, -2, -3, -4
_LENGTHS = {ord(c): layout for c, layout in {"X": "<I", "T": "<i", "U": "<B", "B": "<I"}.items()}
_LENGTHS |= {ord("C"): "<B", 0x8A: "<B", 0x8B: "<i", 0x8C: "<B", 0x8D: "<Q", 0x8E: "<Q", 0x96: "<Q"}
_COUNTS = {ord(c): 1 for c in "ILFSVp"} | {ord("c"): 2, ord("i"): 2}
_KINDS = [_ENDS] * 256
for _code in b")]}N(tld01aesubRoQ\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93\x94":
    _KINDS[_code] = 0
for _letter, _size in {
    "J": 4,
    "K": 1,
    "M": 2,
    "G": 8,
    "q": 1,
    "r": 4,
    "\x80": 1,
    "\x95": 8,
}.items():
    _KINDS[ord(_letter)] = _size
for _code in _LENGTHS:
    _KINDS[_code] = _TEXT
for _code in _COUNTS:
    _KINDS[_code] = _LINES
for _code in (_BINGET, _LONG_BINGET, _GET):
    _KINDS[_code] = _ASKS


def asked_for(stream: BinaryIO, most_opcodes: int, most: int) -> set[int]:
    """Return the numbers of the memo's slots that the next pickle reads, at most ``most + 1``.

    The stream is left where it was. Where the pickle is damaged, has an opcode that is not
    interpreted, or too many, the walk ends: the machine will find the same.
    """
    start, found = stream.tell(), set[int]()
    begin, data, at = start, stream.read(PIECE), 0
    for _ in range(most_opcodes):
        if len(found) > most:
            break
        if at + 32 > len(data):  # an opcode, and an argument of a known size
            begin, at = begin + at, 0
            stream.seek(begin)
            data = stream.read(PIECE)
            if not data:
                break
        opcode = data[at]
        kind = _KINDS[opcode]
        if kind >= 0:
            at += kind + 1
        elif kind == _TEXT:
            layout = _LENGTHS[opcode]
            behind = at + 1 + struct.calcsize(layout)
            if behind > len(data):
                break
            count = struct.unpack_from(layout, data, at + 1)[0]
            if count < 0 or count >> 48:
                break
            at = behind + count
        elif kind == _LINES:
            for _ in range(_COUNTS[opcode]):
                end = data.find(b"\n", at)
                if end < 0:
                    stream.seek(begin + at)
                    while (line := stream.readline(PIECE)) and not line.endswith(b"\n"):
                        pass
                    begin, data, at = stream.tell(), b"", 0
                else:
                    at = end + 1
        elif kind == _ASKS:
            at += _ask(opcode, data[at + 1 : at + 20], found)
        else:
            break
    stream.seek(start)
    return found


def _ask(opcode: int, argument: bytes, found: set[int]) -> int:
    """Note the slot that an opcode reads, and return how many bytes it has."""
    if opcode == _BINGET:
        found.update(argument[:1])
        return 2
    if opcode == _LONG_BINGET:
        found.add(int.from_bytes(argument[:4], "little"))
        return 5
    line = argument.partition(b"\n")[0]
    if line.isdigit():
        found.add(int(line))
    return len(line) + 2
