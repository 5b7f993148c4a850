"""A backend whose arrays live elsewhere: nothing but its own words can reach their values.

It computes with the reference. Its arrays have a shape and a dtype, and refuse every operation of
NumPy or Python, indexing and assignment; only ``download`` returns their values, as a copy. So code
that treats a backend's arrays as NumPy's fails here, as it would on a device with its own memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from tinyresnext.ops import reference
from tinyresnext.ops.shapes import OPS

__name__ = "elsewhere"


class Touched(AssertionError):
    """Somebody outside the backend has touched one of its arrays."""


class Elsewhere:
    """An array that is not here.

    Attributes
    ----------
    shape, dtype
        All that may be known of it.
    """

    def __init__(self, values: np.ndarray) -> None:
        self._values, self.shape, self.dtype = values, values.shape, values.dtype

    def _refuse(self, *arguments: Any, **named: Any) -> NoReturn:
        raise Touched(f"an array of {self.shape} on another device was touched")

    __array__ = __array_ufunc__ = __array_function__ = _refuse
    __getitem__ = __setitem__ = __len__ = __iter__ = __contains__ = _refuse
    __float__ = __int__ = __bool__ = __index__ = __buffer__ = _refuse
    __add__ = __radd__ = __iadd__ = __sub__ = __rsub__ = __isub__ = _refuse
    __mul__ = __rmul__ = __imul__ = __truediv__ = __rtruediv__ = __itruediv__ = _refuse
    __matmul__ = __neg__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse

    def __getattr__(self, name: str) -> NoReturn:
        raise Touched(f"an array on another device was asked for its {name}")


def _here(value: Any) -> Any:
    """Return a word's argument as the reference takes it: arrays of this backend unwrapped."""
    if isinstance(value, tuple):
        return tuple(map(_here, value))
    if isinstance(value, np.ndarray) and value.size > 1:
        raise Touched(f"an array of {value.shape} was not uploaded")
    return value._values if isinstance(value, Elsewhere) else value


def _there(value: Any) -> Any:
    """Return a word's result as an array of this backend."""
    if isinstance(value, tuple):
        return tuple(map(_there, value))
    return Elsewhere(np.asarray(value)) if isinstance(value, (np.ndarray, np.generic)) else value


def _word(name: str) -> Callable[..., Any]:
    """Return the reference's word, for arrays of this backend."""
    run = getattr(reference, name)

    def word(*args: Any, **attrs: Any) -> Any:
        return _there(run(*map(_here, args), **{key: _here(a) for key, a in attrs.items()}))

    return word


_ADAPTIVE = ("adamw_step", "lamb_step", "rmsprop_step")
_CLIPS = ("clip_norm_step", "clip_units_step", "clip_value_step")
_UPDATES = ("sgd_step", "muon_step", "average_step", "statistics_step", *_ADAPTIVE, *_CLIPS)
_COMPUTING = (*OPS, *(f"{op}_backward" for op in OPS), *_UPDATES, "empty", "view", "pack")
globals().update({name: _word(name) for name in _COMPUTING})

at_once, chain, wait = reference.at_once, reference.chain, reference.wait
repeated = reference.repeated
thread_count, on_threads = reference.thread_count, reference.on_threads
loaders = reference.loaders
when_compiling, peak = reference.when_compiling, reference.peak
kernels_kept, kernels_problem = reference.kernels_kept, reference.kernels_problem
clear_kernels, described = reference.clear_kernels, reference.described
kind = reference.kind
precision = reference.precision


def upload(array: Any, out: Elsewhere | None = None) -> Elsewhere:
    """Copy the values; what happens to the array afterwards does not matter here."""
    if isinstance(array, Elsewhere):
        raise Touched("an array was uploaded that is on the device already")
    if out is None:
        return Elsewhere(np.array(array))
    np.copyto(out._values, array, casting="same_kind")
    return out


def download(array: Elsewhere) -> np.ndarray:
    """Return a copy of the values."""
    return np.array(array._values)


def bind(op: str, *args: Any, **attrs: Any) -> Callable[[], Any]:
    """Bind the reference's call to the memory of these arrays."""
    return reference.bind(op, *map(_here, args), **{key: _here(a) for key, a in attrs.items()})
