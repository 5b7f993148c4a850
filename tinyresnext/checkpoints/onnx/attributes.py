"""The attributes of a node: each is asked for once, with its default, and none may be left over."""

from __future__ import annotations

from ...errors import FormatError
from ...formats.onnx.model import Node

__all__ = ["Attributes", "over_the_map", "padding", "same"]


class Attributes:
    """Those of one node, checked for their types."""

    def __init__(self, node: Node) -> None:
        self.node, self._left = node, dict(node.attributes)

    def whole(self, name: str, default: int) -> int:
        """Return a whole number."""
        value = self._left.pop(name, default)
        if not isinstance(value, int):
            raise self._wrong(name, value, "a whole number")
        return value

    def real(self, name: str, default: float) -> float:
        """Return a float."""
        value = self._left.pop(name, default)
        if not isinstance(value, float):
            raise self._wrong(name, value, "a float")
        return value

    def wholes(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """Return several whole numbers."""
        value = self._left.pop(name, default)
        if not isinstance(value, tuple) or not all(isinstance(n, int) for n in value):
            raise self._wrong(name, value, "whole numbers")
        return tuple(n for n in value if isinstance(n, int))

    def text(self, name: str, default: str) -> str:
        """Return a text."""
        value = self._left.pop(name, default.encode())
        if not isinstance(value, bytes):
            raise self._wrong(name, value, "a text")
        return value.decode("ascii", "replace")

    def only(self, name: str, *allowed: int | float | bytes) -> None:
        """Raise `FormatError` unless an attribute is missing or has one of these values."""
        value = self._left.pop(name, allowed[0])
        if value not in allowed:
            raise self._wrong(name, value, " or ".join(map(str, allowed)))

    def unused(self, *names: str) -> None:
        """Take attributes that do not change what is computed."""
        for name in names:
            self._left.pop(name, None)

    def done(self) -> None:
        """Raise `FormatError` if an attribute is left that nobody asked for."""
        for name, value in self._left.items():
            raise self._wrong(name, value, "none of this name")

    def _wrong(self, name: str, value: object, expected: str) -> FormatError:
        shown = f"{value!r:.80}"
        return FormatError(f"{self.node}: {name[:40]!a} is {shown}; expected {expected}")


def same(attributes: Attributes, name: str, default: int) -> int:
    """Return what stands for both axes of an image, such as the stride."""
    values = attributes.wholes(name, (default, default))
    if len(values) != 2 or values[0] != values[1] or not 0 < values[0] < 1 << 16:
        raise FormatError(
            f"{attributes.node}: {name} is {values}; expected the same number for both axes"
        )
    return values[0]


def over_the_map(node: Node, axes: tuple) -> None:
    """Raise `FormatError` unless axes of a map are height and width; one may be unknown, None."""
    known = all(type(axis) is int and -4 <= axis < 4 for axis in axes)
    if not known or sorted(axis % 4 for axis in axes) != [2, 3]:
        raise FormatError(f"{node}: axes is {axes!s:.80}; expected [2, 3], height and width")


def padding(attributes: Attributes, size: int, stride: int, dilation: int) -> int:
    """Return the padding on all four sides of an image."""
    node, how = attributes.node, attributes.text("auto_pad", "NOTSET")
    pads = attributes.wholes("pads", (0, 0, 0, 0))
    span = dilation * (size - 1)
    if how in ("SAME_UPPER", "SAME_LOWER") and stride == 1 and span % 2 == 0:
        return span // 2
    if how == "VALID":
        return 0
    if how not in ("NOTSET", ""):
        raise FormatError(f"{node}: auto_pad is {how[:40]!a}; expected NOTSET, and pads")
    if len(pads) != 4 or len({*pads}) != 1 or not 0 <= pads[0] < 1 << 16:
        raise FormatError(f"{node}: pads is {pads}; expected the same number on all four sides")
    return pads[0]
