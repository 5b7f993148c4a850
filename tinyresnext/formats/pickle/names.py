"""The names that a checkpoint's pickle may mention, and what each means. Nothing is imported.

A tensor becomes a description (`tensors.Tensor`); its numbers are read later, once every
description is known to lie inside the file. Of the names without a meaning, those that run code or
commands are refused (`dangerous`), since weights never need them and attacks do. What any other
name makes, of a library or a trainer's own, is kept as an empty `Placeholder`.
"""

from __future__ import annotations

from collections import OrderedDict

from ...errors import UnsafeError
from .dangerous import is_plain, is_public, runs_code
from .tensors import REBUILD, STORAGES, parameter
from .vocabulary import Global, Placeholder, Vocabulary, set_item

__all__ = ["CHECKPOINT", "is_array", "is_unknown_class"]

# bytes of a text; longer ones are no names
MAX_TEXT = 1 << 16
MAX_MEMORY = 48 << 20  # bytes of all objects of a pickle


# Classes of tensors that are no more than their numbers
_PLAIN_TENSORS = {
    Global("torch", "Tensor"),
    Global("torch.nn.parameter", "Parameter"),
    Global("torch.nn.parameter", "Buffer"),
}
_UNION = Global("types", "UnionType")


def is_array(value: object) -> bool:
    """Return whether this stands for an array of NumPy."""
    made = ("_reconstruct", "_frombuffer")
    return type(value) is Placeholder and value.cls.name in made


def is_unknown_class(name: Global) -> bool:
    """Return whether this may be a class of some trainer: not of Python, NumPy or PyTorch."""
    return is_plain(name) and not is_public(name)


def _is_inert(name: Global) -> bool:
    """Return whether a name without a meaning may be mentioned."""
    return name not in STORAGES and is_plain(name) and not runs_code(name)


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


def _rebuild_from_type(arguments: tuple) -> object:
    """Return what ``(function, class, arguments, attributes)`` means.

    Attributes of a plain tensor are dropped. The numbers of another class may mean anything.
    """
    function, cls, inner = arguments[:3] if len(arguments) == 4 else (None, None, None)
    if type(function) is not Global or type(cls) is not Global or type(inner) is not tuple:
        raise UnsafeError("the arguments of torch._tensor._rebuild_from_type_v2 are not a tensor's")
    if cls not in _PLAIN_TENSORS or function not in REBUILD:
        return Placeholder(cls)
    return REBUILD[function](inner)


def _getattr(arguments: tuple) -> Global | Placeholder:
    """Return what ``getattr(class, "name")`` means: so Python writes methods and inner classes.

    Both are names without a meaning. So is the method of an object.
    """
    if len(arguments) != 2 or type(arguments[1]) is not str:
        raise UnsafeError("the arguments of getattr are not a class and a name")
    owner, name = arguments
    cls = owner.cls if type(owner) is Placeholder else owner
    if type(cls) is not Global:
        cls = Global("builtins", type(owner).__name__)
    method = Global(cls.module, f"{cls.name}.{name}")
    if (owner is cls and cls in _CALLS) or not _is_inert(method):
        raise UnsafeError(
            f"the pickle asks {cls} for an attribute, which no state dict needs; nothing was run"
        )
    return method if owner is cls else Placeholder(method)


def _reconstructor(arguments: tuple) -> Placeholder:
    """Return what ``_reconstructor(class, base, state)`` means: an object in protocols 0 and 1."""
    if len(arguments) != 3 or type(arguments[0]) is not Global or not _is_inert(arguments[0]):
        raise UnsafeError("the arguments of copyreg._reconstructor are not those of an object")
    return Placeholder(arguments[0])


def _partial(arguments: tuple) -> Placeholder:
    """Return a placeholder for a function with some of its arguments."""
    if not arguments or type(arguments[0]) not in (Global, Placeholder):
        raise UnsafeError("the arguments of functools.partial do not begin with a function")
    return Placeholder(Global("functools", "partial"))


def _reduce(arguments: tuple) -> Placeholder:
    """Return what ``reduce(or_, classes)`` means: so Python writes ``int | None``."""
    either = (Global("_operator", "or_"), Global("operator", "or_"))
    if len(arguments) != 2 or arguments[0] not in either:
        raise UnsafeError("the arguments of functools.reduce are not those of a union of types")
    return Placeholder(_UNION)


def _only_attributes(target: OrderedDict, state: object) -> None:
    """Raise `UnsafeError` unless a state dict gets attributes of its own; they are dropped."""
    if type(state) is not dict or any(
        type(name) is not str or name.startswith("__") or hasattr(OrderedDict, name)
        for name in state
    ):
        raise UnsafeError("the pickle sets attributes of an OrderedDict that it has already")


_CALLS = {
    Global("__builtin__", "getattr"): _getattr,
    Global("builtins", "getattr"): _getattr,
    Global("collections", "OrderedDict"): _ordered_dict,
    Global("collections", "defaultdict"): lambda arguments: {},
    Global("copy_reg", "_reconstructor"): _reconstructor,
    Global("copyreg", "_reconstructor"): _reconstructor,
    Global("functools", "partial"): _partial,
    Global("functools", "reduce"): _reduce,
    Global("torch", "Size"): _size,
    Global("torch._tensor", "_rebuild_from_type_v2"): _rebuild_from_type,
    Global("torch.nn.parameter", "Parameter"): parameter,
    **REBUILD,
}


def _old_string(data: bytes) -> str | bytes:
    """Return what a string of Python 2 is: text, or bytes if it is not UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


CHECKPOINT = Vocabulary(
    calls=_CALLS,
    types=STORAGES,
    is_inert=_is_inert,
    states={OrderedDict: _only_attributes, Placeholder: lambda target, state: None},
    old_string=_old_string,
    longest=MAX_TEXT,
    most_memory=MAX_MEMORY,
    refusal="runs code or opens files, or leads there; no checkpoint needs it, and nothing of it "
    "was imported or run. Use a file from another source, or save only model.state_dict()",
    passes_over=True,
)
