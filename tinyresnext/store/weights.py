"""The tensors of a model file, in memory until a plan has copied them, and then in the file only.

A plan has weights of its own, folded and in the layout of its backend. So that these and the
tensors that were read are not in memory together, making a plan frees each tensor as soon as
it is copied (`Weights.releasing`).
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np

from ..errors import IntegrityError, WeightsError
from . import places
from .digest import value, widened
from .places import Place

__all__ = ["Weights", "digest_of", "released", "sha256_of"]

SMALL = 1 << 16  # bytes of a tensor that is not worth being read twice


class Weights(MutableMapping[str, np.ndarray]):
    """The parameters of a model that was read from a file, as a mapping that is like a dict.

    A tensor that was freed is read again when somebody asks for it. It must have the digest
    that it had before, so it is never another one. A tensor that somebody has asked for stays in
    memory, and what is written into it counts.

    Parameters
    ----------
    path : path
        The file that they were read from.
    found : mapping of str to Place
        Where each is in the file, and its digest, which was checked.
    arrays : dict of str to array
        What was read, as float32.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        found: Mapping[str, Place],
        arrays: dict[str, np.ndarray],
    ) -> None:
        self._path = os.path.abspath(os.fspath(path))
        self._shapes = {name: array.shape for name, array in arrays.items()}
        self._places = dict(found)  # of those that nobody has asked for
        self._arrays: dict[str, np.ndarray | None] = {**arrays}  # None: it is only in the file
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> np.ndarray:
        with self._lock:
            array = self._arrays[name]
            if array is None:
                array = self._arrays[name] = self._read(name)
            self._places.pop(name, None)
            return array

    def __setitem__(self, name: str, array: np.ndarray) -> None:
        with self._lock:
            self._places.pop(name, None)
            self._arrays[name] = array

    def __delitem__(self, name: str) -> None:
        with self._lock:
            del self._arrays[name]
            self._places.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __contains__(self, name: object) -> bool:
        return name in self._arrays  # asking this reads nothing

    def __or__(self, other: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {**self, **other}

    def __ror__(self, other: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {**other, **self}

    def copy(self) -> dict[str, np.ndarray]:
        """Return a dict of the same arrays, as a dict's own method does."""
        return dict(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)  # a copy or a pickle needs no file

    def __repr__(self) -> str:
        return f"<{len(self)} tensors of {self._path}>"

    def releasing(self) -> Mapping[str, np.ndarray]:
        """Return the tensors for a reader that copies each: what was read is freed.

        Small tensors are kept, and so are those that somebody has asked for.
        """
        return _Releasing(self._taken, self._arrays)

    def sha256(self, name: str) -> str:
        """Return the digest of a tensor; one that nobody has asked for is not read for it."""
        with self._lock:
            place, array = self._places.get(name), self._arrays[name]
            return value(name, np.asarray(array)).sha256 if place is None else place.sha256

    def _taken(self, name: str) -> np.ndarray:
        """Return a tensor; its memory is the caller's alone if it can be read again."""
        with self._lock:
            array = self._arrays[name]
            if array is None:
                return self._read(name)
            if name in self._places and array.nbytes > SMALL:
                self._arrays[name] = None
            return array

    def _read(self, name: str) -> np.ndarray:
        """Read a tensor again, and check its digest.

        Raises
        ------
        WeightsError
            The file is not there any more, or has other numbers.
        """
        place = self._places[name]
        try:
            with places.opened(self._path) as file:
                array = places.read(file, place, self._shapes[name], name)
                if value(name, array).sha256 != place.sha256:
                    raise IntegrityError(f"{name} is not what it was when the model was loaded")
        except WeightsError as error:
            raise type(error)(
                f"{error}; the weights of a model that has computed are read from its file again: "
                "leave the file as it is, or load the new one"
            ) from None
        return widened(array)


def released(params: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Return parameters for a reader that copies each; `Weights` keep nothing of what it reads."""
    return params.releasing() if isinstance(params, Weights) else params


def sha256_of(params: Mapping[str, np.ndarray], name: str) -> str:
    """Return the digest of a parameter; `Weights` read nothing for it."""
    if isinstance(params, Weights):
        return params.sha256(name)
    return value(name, np.asarray(params[name])).sha256


def digest_of(params: Mapping[str, np.ndarray]) -> str:
    """Return a digest of all parameters."""
    found = hashlib.sha256()
    for name in sorted(params):
        found.update(f"{name} {sha256_of(params, name)}\n".encode())
    return found.hexdigest()


class _Releasing(Mapping[str, np.ndarray]):
    """What `Weights.releasing` returns."""

    def __init__(self, taken: Callable[[str], np.ndarray], names: Mapping[str, Any]) -> None:
        self._taken, self._names = taken, names

    def __getitem__(self, name: str) -> np.ndarray:
        return self._taken(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
