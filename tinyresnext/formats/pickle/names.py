"""The names that a checkpoint's pickle may mention, and what each means. Nothing is imported.

A tensor becomes a description, a `Tensor`; its numbers are read later, once every description is
known to lie inside the file. Names that stand in no table are of two kinds (`is_unknown_class`).
What Python, NumPy and PyTorch themselves have is refused: weights never need the rest of it, and
attacks use it. What none of them has, a trainer's own class, is kept as an empty `Placeholder`.
"""

from __future__ import annotations

import math
import sys
from collections import OrderedDict
from dataclasses import dataclass

from ...errors import UnsafeError
from ...system.checks import is_int
from ..dtypes import BY_TORCH, MAX_DIMENSIONS
from .vocabulary import Global, Placeholder, Vocabulary, set_item

__all__ = ["CHECKPOINT", "STORAGES", "Storage", "Tensor", "is_unknown_class"]

# of a tensor, zero-sized axes counted as one: larger shapes overflow NumPy's arithmetic
MAX_ELEMENTS = 1 << 40
MAX_STRANGE_NAME = 256  # characters of a class that is not known, with its module
# bytes of all strings together; one emoji makes Python store four bytes per character: 16 MB
MAX_TEXT = 4 << 20


@dataclass(frozen=True, slots=True)
class Storage:
    """A row of numbers elsewhere in the file.

    It has a key there, a type (the word before "Storage" in PyTorch's name), and a length.
    """

    key: str
    kind: str
    numel: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """A view of a storage, always inside its declared length.

    ``offset`` and ``stride`` count elements.
    """

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


# The text behind this name is the bytes of a NumPy array, as protocol 2 writes them.
ENCODE = Global("_codecs", "encode")

STORAGES = {
    Global(module, f"{kind}Storage"): kind
    for module in ("torch", "torch.cuda")
    for kind in BY_TORCH
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

# A module whose name begins with one of these is not a trainer's own. Some have left Python's list
# by now, or are Python 2's.
_PUBLIC = sys.stdlib_module_names | {
    "__builtin__",
    "commands",
    "copy_reg",
    "distutils",
    "imp",
    "lib2to3",
    "pip",
    "setuptools",
    "functorch",
    "numpy",
    "torch",
}


def is_unknown_class(name: Global) -> bool:
    """Return whether this may be a class of some trainer.

    It has a plain dotted name, and is not of Python, NumPy or PyTorch.
    """
    if len(name.module) + len(name.name) > MAX_STRANGE_NAME:
        return False
    whole = f"{name.module}.{name.name}"
    parts = whole.split(".")
    plain = whole.isascii() and all(
        part.isidentifier() and not part.startswith("__") for part in parts
    )
    return plain and parts[0] not in _PUBLIC


# -- what the permitted names mean


def _ordered_dict(arguments: tuple) -> OrderedDict:
    """Return what ``OrderedDict()`` means, or with a list of pairs, as Python 2 wrote it."""
    pairs = arguments[0] if len(arguments) == 1 else []
    if (
        len(arguments) > 1
        or type(pairs) is not list
        or any(type(p) not in (list, tuple) or len(p) != 2 for p in pairs)
    ):
        raise UnsafeError("the arguments of collections.OrderedDict are not a list of pairs")
    result: OrderedDict = OrderedDict()
    for key, value in pairs:
        set_item(result, key, value)
    return result


def _size(arguments: tuple) -> tuple:
    """Return what ``torch.Size(tuple)`` means: that tuple."""
    if len(arguments) != 1 or type(arguments[0]) is not tuple:
        raise UnsafeError("the arguments of torch.Size are not one tuple")
    return arguments[0]


def _rebuild_parameter(arguments: tuple) -> Tensor:
    """Return what ``(tensor, requires_grad, hooks)`` means: that tensor."""
    if len(arguments) != 3 or type(arguments[0]) is not Tensor:
        raise UnsafeError("the arguments of torch._utils._rebuild_parameter are not a tensor's")
    _refuse_hooks(*arguments[1:])
    return arguments[0]


def _rebuild_tensor_v2(arguments: tuple) -> Tensor:
    """Return what ``(storage, offset, size, stride, requires_grad, hooks)`` means.

    In some files a last entry of metadata follows, which is not used.
    """
    if len(arguments) not in (6, 7):
        raise UnsafeError(
            f"torch._utils._rebuild_tensor_v2 has {len(arguments)} arguments; 6 were expected"
        )
    _refuse_hooks(*arguments[4:6])
    return _rebuild_tensor(arguments[:4])


def _rebuild_tensor(arguments: tuple) -> Tensor:
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


def _getattr(arguments: tuple) -> Placeholder:
    """Return what ``getattr(class, "name")`` means, by which Python 2 wrote the method of a class.

    The method of a trainer's own class is as empty as the class.
    """
    if len(arguments) != 2 or type(arguments[0]) is not Global or type(arguments[1]) is not str:
        raise UnsafeError("the arguments of getattr are not a class and a name")
    method = Global(arguments[0].module, arguments[1])
    if not is_unknown_class(arguments[0]) or not is_unknown_class(method):
        raise UnsafeError(
            f"the pickle asks {arguments[0]} for an attribute, which no state dict needs; nothing "
            "was run"
        )
    return Placeholder(arguments[0])


def _only_metadata(target: OrderedDict, state: object) -> None:
    """Raise `UnsafeError` unless a state dict gets only ``_metadata``, which is dropped."""
    if type(state) is not dict or set(state) != {"_metadata"}:
        raise UnsafeError("the pickle sets attributes of an OrderedDict other than _metadata")


CHECKPOINT = Vocabulary(
    calls={
        Global("__builtin__", "getattr"): _getattr,
        Global("collections", "OrderedDict"): _ordered_dict,
        Global("torch", "Size"): _size,
        Global("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
        Global("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
        Global("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor_v2,
    },
    types=STORAGES,
    is_empty=lambda cls: cls in PLACEHOLDERS or is_unknown_class(cls),
    forgets=is_unknown_class,
    states={OrderedDict: _only_metadata, Placeholder: lambda target, state: None},
    old_string=bytes.decode,
    most_text=MAX_TEXT,
    refusal="is not part of a state dict and was neither imported nor run; if the file holds a "
    "whole model, load it where you trust it and save only model.state_dict()",
    skipped=ENCODE,
)
