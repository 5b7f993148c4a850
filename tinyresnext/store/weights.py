"""The tensors of a model: read-only, and of a model file in memory until a plan has copied them.

A plan has weights of its own, folded and in the layout of its backend. So an edit of a tensor
would count for some functions and not for others; nobody can edit one. And so that these and the
tensors that were read are not in memory together, making a plan frees each tensor as soon as
it is copied (`Weights.releasing`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, NoReturn

import numpy as np

from ..errors import IntegrityError, ShapeError, UsageError, WeightsError
from ..system.threads import OwnLock
from . import places
from .digest import value, widened
from .places import Place

__all__ = ["Weights", "digest_of", "released", "sha256_of", "weights_of"]

SMALL = 1 << 16  # bytes of a tensor that is not worth being read twice


class Weights(MutableMapping[str, np.ndarray]):
    """The parameters of a model, as a mapping that is like a dict and refuses every change.

    Its arrays refuse changes, too. A tensor that was freed is read again when somebody asks for
    it. It must have the digest that it had before, so it is never another one. A tensor that
    somebody has asked for stays in memory, also when its file is written over.

    Parameters
    ----------
    arrays : mapping of str to array
        As float32. They are not copied, so nobody else may write into them (`weights_of` copies).
    path : path, optional
        The file that they were read from.
    found : mapping of str to Place
        Where each is in the file, and its digest, which was checked.
    """

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray],
        path: str | os.PathLike[str] | None = None,
        found: Mapping[str, Place] | None = None,
    ) -> None:
        self._path = "" if path is None else os.path.abspath(os.fspath(path))
        self._places = dict(found or {})
        fixed = {name: _fixed(array) for name, array in arrays.items()}
        self._arrays: dict[str, np.ndarray | None] = {**fixed}  # None: it is only in the file
        self.shapes = {name: array.shape for name, array in fixed.items()}
        self._asked: set[str] = set()
        self._lock = OwnLock()

    def __getitem__(self, name: str) -> np.ndarray:
        with self._lock.here():
            array = self._arrays[name]
            if array is None:
                array = self._arrays[name] = _fixed(self._read(name))
            self._asked.add(name)
            return array

    def __setitem__(self, name: str, array: object) -> NoReturn:
        raise UsageError(
            f"the parameters of a model cannot be changed one by one ({name!r:.80}), since its "
            "plans have laid them out anew; set all of them: "
            "model.params = {**model.params, name: array}"
        )

    def __delitem__(self, name: str) -> NoReturn:
        self[name] = None

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
        return f"<{len(self)} tensors {f'of {self._path}' if self._path else 'in memory'}>"

    def releasing(self) -> Mapping[str, np.ndarray]:
        """Return the tensors for a reader that copies each: what was read is freed.

        Small tensors are kept, those that somebody has asked for, and those that are in no file.
        """
        return _Releasing(self._taken, self._arrays)

    def sha256(self, name: str) -> str:
        """Return the digest of a tensor; one that is in a file is not read for it."""
        place = self._places.get(name)
        return value(name, np.asarray(self[name])).sha256 if place is None else place.sha256

    def _taken(self, name: str) -> np.ndarray:
        """Return a tensor; its memory is the caller's alone if it can be read again."""
        with self._lock.here():
            array = self._arrays[name]
            if array is None:
                return self._read(name)
            if name in self._places and name not in self._asked and array.nbytes > SMALL:
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
                array = places.read(file, place, self.shapes[name], name)
                if value(name, array).sha256 != place.sha256:
                    raise IntegrityError(f"{name} is not what it was when the model was loaded")
        except WeightsError as error:
            raise type(error)(
                f"{error}; the weights of a model that has computed are read from its file again: "
                "leave the file as it is, or load the new one"
            ) from None
        return widened(array)


def weights_of(params: object) -> Weights:
    """Return the parameters that somebody gives a model: what can be written into is copied.

    Raises
    ------
    UsageError
        They are no mapping.
    ShapeError
        A value is no float32 array.
    """
    if isinstance(params, Weights):
        return params
    if not isinstance(params, Mapping):
        raise UsageError(
            f"params is of type {type(params).__name__}; give a mapping from names to float32 "
            "arrays, such as {**model.params, name: array}"
        )
    for name, array in (given := dict(params)).items():
        if not isinstance(array, np.ndarray) or array.dtype != np.float32:
            found = f"has the type {getattr(array, 'dtype', type(array).__name__)}"
            raise ShapeError(
                f"{name!s:.80} {found}, expected a float32 array; "
                "numpy.asarray(value, numpy.float32) makes one"
            )
    return Weights({n: np.array(a) if a.flags.writeable else a for n, a in given.items()})


def _fixed(array: np.ndarray) -> np.ndarray:
    """Return an array that refuses to be written into: itself, or a view of it."""
    if array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return array


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
