"""What a checkpoint's pickle says of a tensor: in which storage its numbers lie, and how.

The functions are the meanings of PyTorch's names. Each checks that a tensor lies inside its
storage.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ...errors import FormatError, UnsafeError
from ...system.checks import is_int
from ..dtypes import BY_TORCH, MAX_DIMENSIONS
from .vocabulary import Global, Placeholder

__all__ = [
    "QUANTISED",
    "REBUILD",
    "STORAGES",
    "UNREAD",
    "Quantiser",
    "Storage",
    "Tensor",
    "parameter",
    "rebuilt",
]

# of a tensor, zero-sized axes counted as one: larger shapes overflow NumPy's arithmetic
MAX_ELEMENTS = 1 << 40


@dataclass(frozen=True, slots=True)
class Storage:
    """A row of numbers elsewhere in the file.

    It has a key there, a type (the word before "Storage" in PyTorch's name), and a length.
    """

    key: str
    kind: str
    numel: int


@dataclass(frozen=True, slots=True)
class Quantiser:
    """Which numbers the integers of a tensor stand for: ``scale * (integer - zero_point)``.

    There is a scale and a zero point for each place on ``axis``, or one of each if it is None.
    """

    axis: int | None
    scales: Tensor | tuple[float, ...]
    zero_points: Tensor | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tensor:
    """A view of a storage, always inside its declared length.

    ``offset`` and ``stride`` count elements. ``quantiser`` says which numbers integers stand for.
    """

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    quantiser: Quantiser | None = None

    @property
    def is_read(self) -> bool:
        """Whether the numbers can be read."""
        return self.storage.kind in BY_TORCH or self.quantiser is not None


# Storages that only tensors with a quantiser are read from, and safetensors' name of the integers
QUANTISED = {"QInt8": "I8", "QUInt8": "U8", "QInt32": "I32"}
# Storages whose numbers are not read otherwise, and the bytes of a number
UNREAD = {
    "ComplexHalf": 4,
    "ComplexFloat": 8,
    "ComplexDouble": 16,
    "QInt8": 1,
    "QUInt8": 1,
    "QInt32": 4,
    "QUInt4x2": 1,
    "QUInt2x4": 1,
    "Untyped": 1,
}
_MOST_WHOLE = 1 << 53  # a longer whole number is not exact as a float, or is none at all
STORAGES = {
    Global(module, f"{kind}Storage"): kind
    for module in ("torch", "torch.cuda", "torch.storage")
    for kind in (*BY_TORCH, *UNREAD)
}


def _rebuild_parameter(arguments: tuple) -> Tensor | Placeholder:
    """Return what ``(tensor, requires_grad, hooks)`` means: that tensor.

    A fourth entry has attributes of the parameter, which are dropped.
    """
    if len(arguments) not in (3, 4) or type(arguments[0]) not in (Tensor, Placeholder):
        raise UnsafeError("the arguments of torch._utils._rebuild_parameter are not a tensor's")
    _refuse_hooks(*arguments[1:3])
    return arguments[0]


def parameter(arguments: tuple) -> Tensor | Placeholder:
    """Return what ``Parameter(tensor, requires_grad)`` means: that tensor."""
    if not 1 <= len(arguments) <= 2 or type(arguments[0]) not in (Tensor, Placeholder):
        raise UnsafeError("the arguments of torch.nn.parameter.Parameter are not a tensor's")
    return arguments[0]


def _rebuild_tensor_v2(arguments: tuple) -> Tensor:
    """Return what ``(storage, offset, size, stride, requires_grad, hooks)`` means.

    In some files a last entry of metadata follows: marks, none of which may be set.
    """
    if len(arguments) not in (6, 7):
        raise UnsafeError(
            f"torch._utils._rebuild_tensor_v2 has {len(arguments)} arguments; 6 were expected"
        )
    _refuse_hooks(*arguments[4:6])
    tensor = rebuilt(arguments[:4])
    if tensor.is_read:  # so it is not complex, and has no use for "conj"
        _refuse_marks(*arguments[6:])
    return tensor


def _refuse_marks(marks: object = None) -> None:
    """Raise `FormatError` if a mark is set: with "neg", the numbers have the other sign."""
    if marks is None or (isinstance(marks, dict) and all(set_ is False for set_ in marks.values())):
        return
    found = [str(name) for name in marks] if isinstance(marks, dict) else type(marks).__name__
    raise FormatError(
        f"a tensor is marked with {ascii(found)[:80]}, so its numbers are not those in the file; "
        "save it after tensor.resolve_neg() or tensor.clone()"
    )


def rebuilt(arguments: tuple) -> Tensor:
    """Return what ``(storage, offset, size, stride)`` means, checked to lie inside the storage."""
    if len(arguments) != 4 or type(arguments[0]) is not Storage:
        raise UnsafeError("a tensor is described without a storage, an offset, a size and a stride")
    storage, offset, size, stride = arguments
    if (
        type(size) is not tuple
        or type(stride) is not tuple
        or not len(size) == len(stride) <= MAX_DIMENSIONS
    ):
        raise UnsafeError(
            f"a tensor's size and stride must be two tuples of one length, at most {MAX_DIMENSIONS}"
        )
    if not all(is_int(n, 0, (1 << 62) - 1) for n in (offset, *size, *stride)):
        raise UnsafeError("a tensor's offset, size and stride must be integers of at least zero")
    if math.prod(max(n, 1) for n in size) > MAX_ELEMENTS:
        raise UnsafeError(f"a tensor of shape {size} is larger than any file")
    last = offset - 1
    if 0 not in size:
        last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if last >= storage.numel:
        raise UnsafeError(
            f"a tensor of shape {size} reaches element {last} of a storage of {storage.numel}"
        )
    return Tensor(storage, offset, size, stride)


def _refuse_hooks(requires_grad: object, hooks: object) -> None:
    """Raise `UnsafeError` unless ``requires_grad`` is a flag and there are no hooks."""
    empty = hooks is None or (type(hooks) is OrderedDict and not hooks)
    if type(requires_grad) is not bool or not empty:
        raise UnsafeError("a tensor comes with hooks, which are code; save only model.state_dict()")


def _rebuild_qtensor(arguments: tuple) -> Tensor | Placeholder:
    """Return what ``(storage, offset, size, stride, quantiser, requires_grad, hooks)`` means.

    A quantiser is ``(per_tensor_affine, scale, zero point)``, or ``(per_channel_affine, scales,
    zero points, axis)``. What has another is a placeholder.
    """
    if len(arguments) != 7 or type(arguments[0]) is not Storage or type(arguments[4]) is not tuple:
        raise UnsafeError("the arguments of torch._utils._rebuild_qtensor are not a tensor's")
    _refuse_hooks(*arguments[5:7])
    tensor, (kind, *values) = rebuilt(arguments[:4]), arguments[4] or (None,)
    quantiser = None
    if kind == Global("torch", "per_tensor_affine") and len(values) == 2:
        quantiser = Quantiser(None, _row(values[:1], (float,)), _row(values[1:], (int,)))
    elif kind == Global("torch", "per_channel_affine") and len(values) == 3:
        axis = values[2] if is_int(values[2], 0, len(tensor.size) - 1) else None
        scales, points = _row(values[0], (float, int)), _row(values[1], (int,))
        count = tensor.size[axis] if axis is not None else -1
        quantiser = Quantiser(axis, scales, points)
        if count < 0 or any(_count(row) != count for row in (scales, points)):
            raise UnsafeError(
                "a quantised tensor has not one scale and zero point for each channel"
            )
    if quantiser is None or tensor.storage.kind not in QUANTISED:
        return Placeholder(Global("torch._utils", "_rebuild_qtensor"))
    return replace(tensor, quantiser=quantiser)


def _row(values: object, kinds: tuple[type, ...]) -> Tensor | tuple:
    """Return numbers that stand in a list or a tuple, or a tensor of them, which is read later."""
    if type(values) is Tensor and values.storage.kind in BY_TORCH:
        return values
    if not isinstance(values, (list, tuple)) or any(
        type(one) not in kinds or (type(one) is int and abs(one) > _MOST_WHOLE) for one in values
    ):
        raise UnsafeError("a quantised tensor has scales or zero points that are no numbers")
    return tuple(values)


def _count(row: Tensor | tuple) -> int:
    """Return how many numbers are in a row, -1 if a tensor is none."""
    if isinstance(row, tuple):
        return len(row)
    return row.size[0] if len(row.size) == 1 else -1


REBUILD: Mapping[Global, Callable[[tuple], Tensor | Placeholder]] = {
    Global("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    Global("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
    Global("torch._utils", "_rebuild_qtensor"): _rebuild_qtensor,
    Global("torch._utils", "_rebuild_tensor"): rebuilt,
    Global("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor_v2,
}
