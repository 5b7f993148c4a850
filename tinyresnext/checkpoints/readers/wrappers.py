"""Where a checkpoint keeps its state dict, and what stands in front of its tensors' names.

Training scripts save more than weights, and wrap the network before they save it. The keys here are
those of torchvision's and timm's training scripts, mmpretrain and Cadene.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import TypeGuard, TypeVar

from ...errors import FormatError, UnsafeError, UsageError
from ...formats.pickle.names import Tensor, is_unknown_class
from ...formats.pickle.vocabulary import Global, Placeholder
from .checkpoint import MAX_NAME

__all__ = ["choose", "clean", "unwrap"]

T = TypeVar("T")

WRAPPERS = ("state_dict", "model")
AVERAGED_WRAPPERS = ("state_dict_ema", "model_ema", "ema_state_dict")
PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and torch.compile
# of torch's AveragedModel and mmengine's, beside the prefixed names
AVERAGING_COUNTERS = ("n_averaged", "steps")

_NAME = re.compile(r"(?!__)[\w-]+(\.(?!__)[\w-]+)*", re.ASCII)


def choose(top: object, ema: bool) -> tuple[str, dict, tuple[str, ...]]:
    """Return the key of the state dict, the state dict, and the keys of others.

    Parameters
    ----------
    top : object
        What the checkpoint holds.
    ema : bool
        As in `torch_file.read`.

    Raises
    ------
    FormatError
        There is no state dict.
    UnsafeError
        ``top`` is an object of an unknown class.
    UsageError
        ``ema`` is True, but there are no averaged weights.
    """
    _refuse_unknown_classes("the top of the checkpoint", top)
    if not _is_dict(top):
        raise FormatError(
            f"the checkpoint holds a {type(top).__name__}, not a state dict; save "
            "model.state_dict()"
        )
    plain = [key for key in WRAPPERS if _holds_tensors(top.get(key))]
    averaged = [key for key in AVERAGED_WRAPPERS if _holds_tensors(top.get(key))]
    if ema and not averaged:
        raise UsageError(
            f"the file has no averaged weights ({', '.join(AVERAGED_WRAPPERS)}); read it without "
            "ema"
        )
    found = averaged + plain if ema else plain + averaged
    if found:
        return found[0], top[found[0]], tuple(found[1:])
    if not _holds_tensors(top):
        keys = ", ".join(ascii(key)[:40] for key in list(top)[:8])
        raise FormatError(
            f"no tensors at the top or under {', '.join(WRAPPERS + AVERAGED_WRAPPERS)}; found "
            f"{keys or 'nothing'}"
        )
    return "", top, ()


def _is_dict(value: object) -> TypeGuard[dict]:
    """Return whether this is exactly a dict of one of the two kinds that a pickle makes."""
    return type(value) in (dict, OrderedDict)


def _holds_tensors(value: object) -> bool:
    """Return whether this is a dict with a tensor in it."""
    return _is_dict(value) and any(type(entry) is Tensor for entry in value.values())


def _refuse_unknown_classes(where: str, value: object) -> None:
    """Raise `UnsafeError` if this is an object of an unknown class.

    Such an object may lie beside the tensors, but not be one, nor hold them.
    """
    cls = value.cls if type(value) is Placeholder else value
    if type(cls) is Global and is_unknown_class(cls):
        raise UnsafeError(
            f"{where} is an object of the class {cls}, which is not part of a state dict and was "
            "neither imported nor run; if the file holds a whole model, load it where you trust it "
            "and save only model.state_dict()"
        )


def clean(mapping: dict) -> tuple[str, dict[str, Tensor], tuple[str, ...]]:
    """Check the names, leave out what is no tensor, and remove what wraps every name.

    Returns
    -------
    tuple
        The removed prefix, the tensors, and the names that were left out.

    Raises
    ------
    FormatError
        A name or a value cannot belong to a network.
    UnsafeError
        A value is an object of an unknown class.
    """
    tensors: dict[str, Tensor] = {}
    skipped = []
    for name, value in mapping.items():
        if type(name) is not str or len(name) > MAX_NAME or not _NAME.fullmatch(name):
            raise FormatError(f"{ascii(name)[:80]} is not a name that a network's tensors have")
        if type(value) is Tensor:
            tensors[name] = value
        elif value is None or type(value) in (bool, int, float, str):
            skipped.append(name)
        else:
            _refuse_unknown_classes(name, value)
            raise FormatError(
                f"{name} is a {type(value).__name__}, not a tensor; save only model.state_dict()"
            )
    prefix, tensors, counters = unwrap(tensors)
    return prefix, tensors, (*skipped, *counters)


def unwrap(tensors: dict[str, T]) -> tuple[str, dict[str, T], tuple[str, ...]]:
    """Return the prefix of every name, the tensors without it, and the counters beside them."""
    counters = [name for name in AVERAGING_COUNTERS if name in tensors]
    wrapped = [name for name in tensors if name not in counters]
    prefix = ""
    while any(
        wrapped and all(name.startswith(prefix + more) for name in wrapped) for more in PREFIXES
    ):
        prefix += next(more for more in PREFIXES if wrapped[0].startswith(prefix + more))
    if prefix:
        return prefix, {name[len(prefix) :]: tensors[name] for name in wrapped}, tuple(counters)
    return "", tensors, ()
