"""GIF files as blocks: a header, extensions, and images, of which the first one is kept.

Source: CompuServe 1990, Graphics Interchange Format, version 89a, sections 15 to 26.
"""

from __future__ import annotations

from ...errors import ImageError
from .parts import Bare, Part

__all__ = ["bare"]

_MOST_BLOCKS = 1 << 20  # 64 MiB have a quarter of that, of the usual 255 bytes
_HEADER, _DESCRIPTOR = 13, 10
_EXTENSION, _IMAGE, _END = b"!", b",", b";"
_CONTROL = 0xF9  # the label of the extension that names the transparent colour


def bare(data: bytes) -> Bare:
    """Return a GIF with its first image, and nothing of its extensions but what colours it.

    Where it is not whole, it is cut there: the decoder refuses it.

    Raises
    ------
    ImageError
        It has more blocks than an image needs.
    """
    view = memoryview(data)
    at = _HEADER + (_palette(data[10]) if len(data) > 10 else 0)
    head, control, left = view[:at], b"", _MOST_BLOCKS
    while left > 0:
        kind = data[at : at + 1]
        if kind == _EXTENSION:
            if data[at + 1 : at + 3] == bytes((_CONTROL, 4)):
                control = data[at : at + 7] + b"\0"
            at, left = _blocks(data, at + 2, left)
        elif kind == _IMAGE:
            flags = data[at + 9] if at + 9 < len(data) else 0
            end, left = _blocks(data, at + _DESCRIPTOR + _palette(flags) + 1, left)
            parts: list[Part] = [head, control, view[at:end]]
            return Bare([*parts, _END] if end <= len(data) else parts)
        elif kind in (b"", _END):
            return Bare([head, view[at : at + 1]])
        else:  # no block begins so; Pillow skips it
            at, left = at + 1, left - 1
    raise ImageError(f"it has more than {_MOST_BLOCKS:,} blocks; save it again")


def _palette(flags: int) -> int:
    """Return the bytes of a palette."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _blocks(data: bytes, at: int, left: int) -> tuple[int, int]:
    """Return the end of a row of blocks, beyond the file's if it has none, and how many are left.

    Raises
    ------
    ImageError
        There are more than are left.
    """
    size = len(data)
    for count in range(left):
        if at >= size:
            return size + 1, left - count
        length = data[at]
        at += 1 + length
        if not length:
            return at, left - count - 1
    raise ImageError(f"it has more than {_MOST_BLOCKS:,} blocks; save it again")
