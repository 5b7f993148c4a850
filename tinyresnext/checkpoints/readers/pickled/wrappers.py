"""Where a checkpoint keeps its state dict, and what stands in front of its tensors' names.

A state dict is known by its content, wherever it lies; of several, well-known keys decide.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeGuard

from ....errors import FormatError, UsageError
from ....formats.dtypes import BY_TORCH, FLOATS
from ....formats.pickle.names import is_array
from ....formats.pickle.tensors import Tensor
from ....formats.pickle.vocabulary import OtherKey, Placeholder
from ...names.prefixes import averages, is_average, unwrap
from ..checkpoint import MAX_NAME
from .refusals import kind, refuse_layers, refuse_objects, unknown_class

__all__ = ["Choice", "called", "choose", "clean"]

# The keys of training scripts, the likeliest first; without them, any key may have the network
WRAPPERS = ("state_dict", "model", "model_state_dict", "net", "network", "module", "params")
AVERAGED_WRAPPERS = ("state_dict_ema", "model_ema", "ema_state_dict")
# What has the names and shapes of weights, and other values: these are never taken for a network.
_OTHERS = r"optim\w*|\w*sched\w*|\w*scaler|grad(?:ient)?s?|criterion|loss\w*|metrics?|callbacks?"
_NO_NETWORK = re.compile(rf"(?:^|[._])(?:{_OTHERS})(?=$|[._])", re.IGNORECASE)
# What a single number of floating point beside the modules may be called that is no parameter
_RESULT = re.compile(
    r"^best(?=$|_)|(?:^|_)(?:acc(?:uracy)?\d?|top\d|prec\d?|map|auc|f1|lr|decay|epoch|loss)$",
    re.IGNORECASE,
)
MOST_DEPTH, MOST_ENTRIES = 4, 100_000  # where state dicts are looked for

_NAME = re.compile(r"(?!__)[\w-]+(\.(?!__)[\w-]+)*", re.ASCII)


class Choice(NamedTuple):
    """The state dict that was chosen: its key, what it holds, and what others are called."""

    key: str
    mapping: dict
    others: tuple[str, ...] = ()


def choose(top: object, ema: bool, key: str | None = None) -> Choice:
    """Find the state dict.

    Parameters
    ----------
    top : object
        What the checkpoint holds.
    ema : bool
        As in `torch_file.listed`.
    key : str, optional
        The key under which it lies; keys of dicts in dicts have dots between them.

    Raises
    ------
    FormatError
        There is no state dict; or beside it lies a layer, which may be the network's classifier.
    UnsafeError
        ``top`` is an object of an unknown class.
    UsageError
        ``ema`` is True, but there are no averaged weights, or there is a ``key``, too; or nothing
        lies under ``key``.
    """
    if key is not None and ema:
        raise UsageError(
            f"the key {key!r} and ema both say which weights to take; give one of them"
        )
    refuse_objects("the top of the checkpoint", top)
    dicts = [(name, value) for name, value in _dicts(top) if _holds_tensors(value)]
    found = dict(states := _state_dicts(dicts))
    if len(found) < len(states):
        raise FormatError("two state dicts have the same key, one of them with dots; save one")
    if key is not None:
        mapping = _under(top, key)
        if not _holds_tensors(mapping):
            there = ", ".join(repr(name) for name in found if name) or "no state dict under a key"
            raise UsageError(f"no tensors are under {key!r}; there is {there}")
        return Choice(key, mapping, (*(name for name in found if name != key), *_bare(dicts, key)))
    averaged = [name for name in found if is_average(name)]
    plain = [name for name in found if name not in averaged]
    if ema and not averaged:
        raise UsageError(_no_average(found))
    if not (ordered := averaged + plain if ema else plain + averaged):
        raise FormatError(_nothing(top))
    chosen, beside = ordered[0], _bare(dicts, ordered[0])
    refuse_layers(chosen, beside | {name: found[name] for name in plain if name != chosen})
    return Choice(chosen, found[chosen], (*ordered[1:], *beside))


def called(top: object) -> str:
    """Return the name of the architecture that a training script wrote; empty if there is none."""
    name = top.get("arch") if _is_dict(top) else None
    return name if type(name) is str and len(name) <= MAX_NAME else ""


def _state_dicts(dicts: list[tuple[str, dict]]) -> list[tuple[str, dict]]:
    """Return which dicts of tensors are state dicts, the likeliest first.

    They have a tensor whose name has a dot; if there are none, a dict with any tensor will do, at
    the top or under a well-known key.
    """
    named = [(name, value) for name, value in dicts if _is_dotted(value)]

    def rank(found: tuple[str, dict]) -> tuple[int, int, int]:
        last = found[0].rpartition(".")[2]
        if last in WRAPPERS:
            return WRAPPERS.index(last), 0, found[0].count(".")
        return len(WRAPPERS) + bool(found[0]), -len(found[1]), found[0].count(".")

    known = ("", *WRAPPERS, *AVERAGED_WRAPPERS)
    return sorted(named or [one for one in dicts if one[0] in known], key=rank)


def _is_dotted(value: dict) -> bool:
    """Return whether a tensor in a dict has a name with a dot."""
    return any(type(t) is Tensor and type(key) is str and "." in key for key, t in value.items())


def _bare(dicts: list[tuple[str, dict]], chosen: str) -> dict[str, dict]:
    """Return what lies beside the chosen dict: dicts of tensors without dots, and lone tensors."""
    found: dict[str, dict] = {}
    for name, value in dicts:
        lone = [
            key for key, one in value.items() if type(one) is Tensor and one.size and _is_float(one)
        ]
        if not (chosen and lone) or _is_dotted(value) or _within(name, chosen):
            continue
        around = not name or _within(chosen, name)
        found |= {f"{name}.{key}".strip("."): {} for key in lone} if around else {name: value}
    return found


def _within(name: str, key: str) -> bool:
    """Return whether what lies under a name is, or is in, what lies under a key."""
    return f"{name}.".startswith(f"{key}.")


def _dicts(top: object) -> Iterator[tuple[str, dict]]:
    """Yield every dict in dicts and lists that may hold weights, the outer before the inner."""
    level: list[tuple[str, object]] = [("", top)]
    for _ in range(MOST_DEPTH):
        inner: list[tuple[str, object]] = []
        for name, value in level:
            if _is_dict(value):
                yield name, value
            inner += [
                (f"{name}.{key}" if name else key, one)
                for key, one in _entries(value)
                if not _NO_NETWORK.search(key)
            ]
        level = inner[:MOST_ENTRIES]


def _entries(value: Any) -> Iterator[tuple[str, object]]:
    """Yield what lies in a dict or a list, and is a dict or a list itself, with its key."""
    if _is_dict(value):
        pairs = ((key, one) for key, one in value.items() if type(key) is str)
    elif type(value) in (list, tuple) and len(value) <= 100:
        pairs = ((str(i), one) for i, one in enumerate(value))
    else:
        return
    yield from ((key, one) for key, one in pairs if _is_dict(one) or type(one) in (list, tuple))


def _under(value: object, key: str) -> object:
    """Return what lies under a key, which may be several with dots between them."""
    if not key:
        return value
    for name, inner in _entries(value):
        if (key + ".").startswith(name + "."):
            found = _under(inner, key[len(name) + 1 :])
            if found is not None:
                return found
    return None


def _nothing(top: object) -> str:
    """Return the message for a checkpoint without a state dict."""
    if not _is_dict(top):
        return f"the top of the checkpoint is {kind(top)}"
    for name, value in top.items():
        if is_array(value):
            return f"{ascii(name)[:80]} is {kind(value)}"
    for name, value in top.items():
        if type(value) is Placeholder and name in WRAPPERS:
            return (
                f"{name} is a whole object of the class {value.cls}, which was neither imported "
                "nor run; load it where you trust it and save its state_dict()"
            )
    keys = ", ".join(ascii(key)[:40] for key in list(top)[:8])
    return (
        f"no tensors at the top or under {', '.join(WRAPPERS + AVERAGED_WRAPPERS)}; found "
        f"{keys or 'nothing'}"
    )


def _no_average(found: dict[str, dict]) -> str:
    """Return the message for averaged weights that lie under no key of their own."""
    for key, mapping in found.items():
        if behind := averages([name for name in mapping if type(name) is str]):
            where = f" --key {key}" if key else ""
            return (
                f"averaged weights lie behind {behind[0]!r} in the names of the tensors; say "
                f"--prefix {behind[0]}{where if key != next(iter(found)) else ''} and not --ema"
            )
    return f"the file has no averaged weights ({', '.join(AVERAGED_WRAPPERS)}); read it without ema"


def _is_dict(value: object) -> TypeGuard[dict]:
    """Return whether this is exactly a dict of one of the two kinds that a pickle makes."""
    return type(value) in (dict, OrderedDict)


def _holds_tensors(value: object) -> TypeGuard[dict]:
    """Return whether this is a dict with a tensor in it."""
    return _is_dict(value) and any(type(entry) is Tensor for entry in value.values())


def clean(choice: Choice) -> tuple[str, dict[str, Tensor], tuple[str, ...]]:
    """Check the names, leave out what is no tensor, and remove what wraps every name.

    Return the removed prefix, the tensors, and the names that were left out.

    Raises
    ------
    FormatError
        A name or a value cannot belong to a network.
    UnsafeError
        A value among the tensors is an object of an unknown class.
    """
    tensors, skipped = dict[str, Tensor](), []
    in_modules = any(type(name) is str and "." in name for name in choice.mapping)
    for name, value in choice.mapping.items():
        number = in_modules and _is_count(name, value)
        proper = type(name) is str and len(name) <= MAX_NAME and _NAME.fullmatch(name)
        if type(value) is Tensor and value.is_read and proper and not number:
            tensors[name] = value
        elif number or _is_beside(name, value, choice.others):
            skipped.append(str(name) if proper or type(name) is OtherKey else ascii(name)[:40])
        elif not proper:
            what = str(name) if type(name) is OtherKey else ascii(name)[:80]
            raise FormatError(f"{what} is not a name that a network's tensors have")
        else:
            refuse_objects(name, value)
            raise FormatError(f"{name} is {kind(value)}")
    prefix, tensors, counters = unwrap(tensors)
    return prefix, tensors, (*skipped, *counters)


def _is_count(name: object, value: object) -> bool:
    """Return whether an entry is a single number that a script keeps beside the modules.

    A number of floating point may be a parameter: a scale of the logits, the power of a pooling.
    """
    if type(value) is not Tensor or value.size or type(name) is not str or "." in name:
        return False
    return not (_is_float(value) and _NAME.fullmatch(name)) or _RESULT.search(name) is not None


def _is_float(value: Tensor) -> bool:
    """Return whether a tensor has numbers of floating point."""
    number = BY_TORCH.get(value.storage.kind)
    return number is not None and number.name in FLOATS


def _is_beside(name: object, value: object, others: tuple[str, ...]) -> bool:
    """Return whether an entry of a state dict is no part of the network.

    A name with a dot is that of something in a module: there, only plain values are left out. An
    object of an unknown class may be a tensor.
    """
    if value is None or type(value) in (bool, int, float, str):
        return True
    if type(name) is not str:
        return not _has_tensors(value)
    if any(_within(other, name) for other in others) or name.endswith("_extra_state"):
        return True
    if unknown_class(value) is not None:
        return False
    return "." not in name and (_NO_NETWORK.search(name) is not None or not _has_tensors(value))


def _has_tensors(value: object) -> bool:
    """Return whether a tensor is somewhere in a value, or may be, as the value is too large."""
    waiting, left = [value], MOST_ENTRIES
    while waiting and left > 0:
        one, left = waiting.pop(), left - 1
        if type(one) is Tensor:
            return True
        if _is_dict(one):
            waiting += one.values()
        elif isinstance(one, (list, tuple)):
            waiting += one
    return bool(waiting)
