"""The names that a checkpoint's pickle may mention, and what we build for each. Nothing is imported or called.

`pickle` runs the opcodes; this file is its vocabulary: the four kinds of object that stand for
PyTorch's own, the tables of permitted names, and the functions that give a few of those names a
meaning. Names that stand in no table are of two kinds (`is_stranger`): what Python, NumPy and
PyTorch themselves have is refused, since weights never need the rest of it and that is where
attacks live; what nobody has, a trainer's own class, is kept as an empty `Placeholder`.
"""

from __future__ import annotations

import math
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from ...errors import FormatError, UnsafeError

__all__ = [
    "CALLS",
    "ENCODE",
    "KINDS",
    "ORDERED_DICT",
    "PLACEHOLDERS",
    "STORAGES",
    "Global",
    "Placeholder",
    "Storage",
    "Tensor",
    "is_stranger",
    "set_item",
]

MAX_DIMENSIONS = 8  # of a tensor; a convolution has four
MAX_ELEMENTS = (
    1 << 40
)  # of a tensor, zero-sized axes counted as one: larger shapes overflow NumPy's arithmetic
MAX_STRANGE_NAME = 256  # characters of a class that is not known, with its module


@dataclass(frozen=True, slots=True)
class Global:
    """A name that the pickle mentions. Nothing was imported to make it."""

    module: str
    name: str

    def __str__(self) -> str:
        return ascii(f"{self.module}.{self.name}")[1:-1][:120]


@dataclass(frozen=True, slots=True)
class Storage:
    """A row of numbers elsewhere in the file: its key there, the kind of number (a key of `KINDS`) and how many."""

    key: str
    kind: str
    numel: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """A view of a storage: ``offset`` and ``stride`` count elements. Always inside the storage's declared length."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Placeholder:
    """Stands where the pickle wanted an object of this class. It holds nothing else."""

    cls: Global


ORDERED_DICT = Global("collections", "OrderedDict")
ENCODE = Global(
    "_codecs", "encode"
)  # its text is the bytes of a NumPy array, as protocol 2 writes them

KINDS = {
    "Float": "<f4",
    "Double": "<f8",
    "Half": "<f2",
    "BFloat16": "<u2",  # the upper half of a float32; NumPy has no such type
    "Long": "<i8",
    "Int": "<i4",
    "Short": "<i2",
    "Char": "|i1",
    "Byte": "|u1",
    "Bool": "|u1",  # one byte each, zero or not
}
STORAGES = {
    Global(module, f"{kind}Storage"): kind for module in ("torch", "torch.cuda") for kind in KINDS
}

# What a training script stores beside the weights: its options, a learning-rate schedule, a best
# accuracy as a NumPy number, the history of a loss as an array. Each becomes an empty
# `Placeholder`.
PLACEHOLDERS = frozenset(
    {
        Global("argparse", "Namespace"),
        Global("collections", "Counter"),
        Global("torch", "device"),
        Global("__builtin__", "set"),
        Global("numpy", "dtype"),
        Global("numpy", "ndarray"),
        Global("numpy.core.multiarray", "_reconstruct"),
        Global("numpy._core.multiarray", "_reconstruct"),
        Global("numpy.core.multiarray", "scalar"),
        Global("numpy._core.multiarray", "scalar"),
        ENCODE,
    }
)

# Modules with the first of these names are everyone's; some have left Python's own list by now, or
# are Python 2's.
_EVERYONES = sys.stdlib_module_names | {
    "__builtin__",
    "commands",
    "copy_reg",
    "distutils",
    "imp",
    "lib2to3",
    "pip",
    "setuptools",
}
_EVERYONES |= {"functorch", "numpy", "torch"}


def is_stranger(name: Global) -> bool:
    """Whether this may be a class of some trainer: it has a plain dotted name, and not of Python, NumPy or PyTorch."""
    if len(name.module) + len(name.name) > MAX_STRANGE_NAME:
        return False
    whole = f"{name.module}.{name.name}"
    parts = whole.split(".")
    plain = whole.isascii() and all(
        part.isidentifier() and not part.startswith("__") for part in parts
    )
    return plain and parts[0] not in _EVERYONES


def set_item(target: dict, key: object, value: object) -> None:
    """Set a key once. Only str and int are hashed: hashing a deeply nested tuple would exhaust the C stack."""
    if type(key) not in (str, int):
        raise UnsafeError(
            f"a dict in the pickle has a key of type {type(key).__name__}; names are text"
        )
    if key in target:
        raise FormatError(f"a dict in the pickle has the key {ascii(key)[:80]} twice")
    target[key] = value


# -- what the permitted names mean


def _ordered_dict(arguments: tuple) -> OrderedDict:
    """``OrderedDict()``, or with a list of pairs as Python 2 wrote it."""
    pairs = arguments[0] if len(arguments) == 1 else []
    if (
        len(arguments) > 1
        or type(pairs) is not list
        or any(type(p) not in (list, tuple) or len(p) != 2 for p in pairs)
    ):
        raise UnsafeError("collections.OrderedDict is given something that is not a list of pairs")
    result: OrderedDict = OrderedDict()
    for key, value in pairs:
        set_item(result, key, value)
    return result


def _size(arguments: tuple) -> tuple:
    """``torch.Size(tuple)`` is that tuple."""
    if len(arguments) != 1 or type(arguments[0]) is not tuple:
        raise UnsafeError("torch.Size is given something that is not one tuple")
    return arguments[0]


def _rebuild_parameter(arguments: tuple) -> Tensor:
    """``(tensor, requires_grad, hooks)`` is that tensor."""
    if len(arguments) != 3 or type(arguments[0]) is not Tensor:
        raise UnsafeError("torch._utils._rebuild_parameter is given something that is not a tensor")
    _refuse_hooks(*arguments[1:])
    return arguments[0]


def _rebuild_tensor_v2(arguments: tuple) -> Tensor:
    """``(storage, offset, size, stride, requires_grad, hooks)``, and in some files a last entry of metadata."""
    if len(arguments) not in (6, 7):
        raise UnsafeError(
            f"torch._utils._rebuild_tensor_v2 is given {len(arguments)} arguments; 6 were expected"
        )
    _refuse_hooks(*arguments[4:6])
    return _rebuild_tensor(arguments[:4])


def _rebuild_tensor(arguments: tuple) -> Tensor:
    """``(storage, offset, size, stride)``, checked to lie inside the storage's declared length."""
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
    if any(type(n) is not int or not 0 <= n < 1 << 62 for n in (offset, *size, *stride)):
        raise UnsafeError("a tensor's offset, size and stride must be integers of at least zero")
    if math.prod(max(n, 1) for n in size) > MAX_ELEMENTS:
        raise UnsafeError(f"a tensor of shape {size} is larger than any file")
    last = (
        offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        if 0 not in size
        else offset - 1
    )
    if last >= storage.numel:
        raise UnsafeError(
            f"a tensor of shape {size} reaches element {last} of a storage of {storage.numel}"
        )
    return Tensor(storage, offset, size, stride)


def _refuse_hooks(requires_grad: object, hooks: object) -> None:
    """``requires_grad`` is a flag, and hooks, which would be code, must be absent."""
    if type(requires_grad) is not bool or not (
        hooks is None or (type(hooks) is OrderedDict and not hooks)
    ):
        raise UnsafeError("a tensor comes with hooks, which are code; save only model.state_dict()")


def _getattr(arguments: tuple) -> Placeholder:
    """``getattr(class, "name")`` is how Python 2 wrote the method of a class. A stranger's is as empty as the class."""
    if len(arguments) != 2 or type(arguments[0]) is not Global or type(arguments[1]) is not str:
        raise UnsafeError("getattr is given something that is not a class and a name")
    if not is_stranger(arguments[0]) or not is_stranger(Global(arguments[0].module, arguments[1])):
        raise UnsafeError(
            f"the pickle asks {arguments[0]} for an attribute, which no state dict needs; nothing was run"
        )
    return Placeholder(arguments[0])


CALLS: dict[Global, Callable[[tuple], object]] = {
    Global("__builtin__", "getattr"): _getattr,
    ORDERED_DICT: _ordered_dict,
    Global("torch", "Size"): _size,
    Global("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    Global("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    Global("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor_v2,
}
