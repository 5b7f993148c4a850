"""The content of a legacy checkpoint, read by Python's own unpickler, element by element.

Python's unpickler would run what it finds, so it is given a ``find_class`` that knows a few
harmless names and has a class that takes anything for every other.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

DTYPES = {
    "Float": "<f4",
    "Double": "<f8",
    "Half": "<f2",
    "BFloat16": "<u2",
    "Long": "<i8",
    "Int": "<i4",
}
DTYPES |= {"QInt8": "<i1", "QUInt8": "<u1", "QInt32": "<i4"}
DTYPES |= {"Short": "<i2", "Char": "<i1", "Byte": "<u1", "Bool": "<u1"}


class Anything:
    """An object that takes whatever it is given."""

    def __init__(self, *arguments):
        pass

    def __setstate__(self, state):
        pass

    def __setitem__(self, key, value):
        pass

    def append(self, item):
        pass

    def extend(self, items):
        pass


@dataclass(eq=False)
class Storage:
    kind: str
    numel: int
    values: np.ndarray | None = None


@dataclass(eq=False)
class Tensor:
    storage: Storage
    offset: int
    size: tuple
    stride: tuple

    def array(self):
        index = np.full(self.size, self.offset)
        for axis, (n, s) in enumerate(zip(self.size, self.stride, strict=True)):
            index += (
                np.arange(n).reshape([-1 if a == axis else 1 for a in range(len(self.size))]) * s
            )
        kind, values = self.storage.kind, self.storage.values
        if kind == "BFloat16":
            values = (values.astype(np.uint32) * np.uint32(65536)).view(np.float32)
        elif kind in ("Half", "Double"):
            with np.errstate(over="ignore", invalid="ignore"):
                values = values.astype(np.float32)
        elif kind == "Bool":
            values = values != 0
        return values[index]


@dataclass(eq=False)
class Quantised:
    """A tensor of integers, and what tells which numbers they stand for."""

    tensor: Tensor
    how: tuple

    def array(self):
        method, scales, points, *axis = self.how
        integers = self.tensor.array().astype(np.float64)
        along = [1] * integers.ndim
        if method == "per_channel_affine":
            along[axis[0]] = -1
        scales, points = (np.array(array_of(row)).reshape(along) for row in (scales, points))
        return (scales * (integers - points)).astype(np.float32)


def array_of(value):
    """Return the numbers of a tensor; those of scales keep their precision."""
    if isinstance(value, Tensor) and value.storage.kind == "Double":
        return value.storage.values[value.offset : value.offset + value.size[0]]
    return value.array() if isinstance(value, (Tensor, Quantised)) else value


class Unpickler(pickle._Unpickler):
    def __init__(self, file, storages):
        super().__init__(file, encoding="utf-8")
        self.storages = storages

    def find_class(self, module, name):
        kind = name.removesuffix("Storage")
        if module in ("torch", "torch.cuda") and kind in DTYPES:
            return kind
        known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor"): Tensor,
            ("torch._utils", "_rebuild_tensor_v2"): lambda *a: Tensor(*a[:4]),
            ("torch._utils", "_rebuild_qtensor"): lambda *a: Quantised(Tensor(*a[:4]), a[4]),
            ("torch", "per_channel_affine"): "per_channel_affine",
            ("torch", "per_tensor_affine"): "per_tensor_affine",
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *a: tensor,
            ("torch", "Size"): tuple,
        }
        return known.get((module, name), Anything)

    def persistent_load(self, pid):
        _, kind, key, _, numel = pid[:5]
        return self.storages.setdefault(key, Storage(kind, numel))


def read_legacy(data: bytes) -> object:
    """Return the top object, with `Tensor` in place of tensors.

    Any exception means that the file has no meaning.
    """
    file = io.BytesIO(data)
    storages: dict[str, Storage] = {}
    parts = [Unpickler(file, storages).load() for _ in range(5)]
    for key in parts[4]:
        storage = storages[key]
        assert int.from_bytes(file.read(8), "little") == storage.numel
        storage.values = np.frombuffer(
            file.read(storage.numel * np.dtype(DTYPES[storage.kind]).itemsize), DTYPES[storage.kind]
        )
    return parts[3]
