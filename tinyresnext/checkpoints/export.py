"""A state dict, out again: ``.pth`` for PyTorch, ``.safetensors``, ``.npz``.

Each writer replaces the file in one step (see `tinyresnext.system.files`) and writes equal bytes
for equal tensors.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterator, Mapping
from io import BytesIO

import numpy as np

from ..errors import UsageError
from ..formats import stored_zip
from ..system.files import replacing

__all__ = ["write_npz", "write_pth", "write_safetensors"]

# NumPy's name of a type -> PyTorch's storage class, safetensors' name.
_TYPES = {
    "float32": ("Float", "F32"),
    "float64": ("Double", "F64"),
    "float16": ("Half", "F16"),
    "int64": ("Long", "I64"),
    "int32": ("Int", "I32"),
    "int16": ("Short", "I16"),
    "int8": ("Char", "I8"),
    "uint8": ("Byte", "U8"),
    "bool": ("Bool", "BOOL"),
}


def write_pth(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray]) -> None:
    """Write PyTorch's zip format: ``torch.load(path, weights_only=True)`` gives the ``OrderedDict`` of tensors.

    Parameters
    ----------
    path : path
        The file to make or to replace.
    tensors : mapping of str to ndarray
        In the order wanted; PyTorch's own names for ``load_state_dict(strict=True)``.

    Raises
    ------
    UsageError
        A name is not text, a type is not among float16/32/64, int8/16/32/64, uint8 and bool, or the
        file cannot be written.
    """
    arrays = _checked(tensors)

    def members() -> Iterator[tuple[str, list[bytes | memoryview]]]:
        yield "archive/data.pkl", [_state_dict_pickle(arrays)]
        yield "archive/byteorder", [b"little"]
        for index, array in enumerate(arrays.values()):
            yield f"archive/data/{index}", [_data(array)]
        yield "archive/version", [b"3\n"]

    with replacing(path) as temporary, open(temporary, "wb") as file:
        stored_zip.write(file, members())


def write_npz(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray]) -> None:
    """Write NumPy's archive: ``np.load(path)[name]``. Parameters and errors as in `write_pth`."""
    arrays = _checked(tensors)

    def members() -> Iterator[tuple[str, list[bytes | memoryview]]]:
        for name, array in arrays.items():
            header = BytesIO()
            np.lib.format.write_array_header_1_0(
                header, np.lib.format.header_data_from_array_1_0(array)
            )
            yield f"{name}.npy", [header.getvalue(), _data(array)]

    with replacing(path) as temporary, open(temporary, "wb") as file:
        stored_zip.write(file, members())


def write_safetensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a ``.safetensors`` file: a length, a JSON header and the numbers, aligned to their own size.

    Parameters
    ----------
    path, tensors
        As in `write_pth`.
    metadata : mapping of str to str, optional
        Stored as ``__metadata__``.

    Raises
    ------
    UsageError
        As in `write_pth`; also a tensor called ``__metadata__``, or metadata that are not text.
    """
    arrays = _checked(tensors)
    if "__metadata__" in arrays:
        raise UsageError("safetensors keeps the name __metadata__ for itself; rename the tensor")
    notes = dict(metadata or {})
    if not all(isinstance(text, str) for pair in notes.items() for text in pair):
        raise UsageError("safetensors metadata must map text to text")
    header: dict[str, object] = {"__metadata__": notes} if notes else {}
    ordered = sorted(
        arrays.items(), key=lambda item: -item[1].itemsize
    )  # widest first keeps every tensor aligned
    end = 0
    for name, array in ordered:
        span = [end, end + array.nbytes]
        header[name] = {
            "dtype": _TYPES[array.dtype.name][1],
            "shape": list(array.shape),
            "data_offsets": span,
        }
        end += array.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, array in ordered:
            file.write(_data(array))


def _checked(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Little-endian, C-contiguous arrays under names that every format can hold."""
    arrays = {}
    for name, array in tensors.items():
        if (
            not isinstance(name, str)
            or not name.isascii()
            or not name.isprintable()
            or not name
            or {*"/\\"} & {*name}
        ):
            raise UsageError(
                f"a tensor's name must be plain ASCII text without slashes, found {name!r:.80}"
            )
        if not isinstance(array, np.ndarray) or array.dtype.name not in _TYPES:
            found = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            raise UsageError(f"{name} is of type {found}; one of {', '.join(_TYPES)} was expected")
        arrays[name] = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
    return arrays


def _data(array: np.ndarray) -> memoryview:
    """The array's bytes, without a copy."""
    return memoryview(array.reshape(-1).view(np.uint8))


def _state_dict_pickle(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The pickle (protocol 2) of an OrderedDict of tensors whose numbers lie in ``data/0``, ``data/1``, ..."""
    parts = [b"\x80\x02ccollections\nOrderedDict\n)R("]
    for index, (name, array) in enumerate(arrays.items()):
        kind = _TYPES[array.dtype.name][0].encode()
        strides = [math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim)]
        storage = (
            _text("storage")
            + b"ctorch\n"
            + kind
            + b"Storage\n"
            + _text(str(index))
            + _text("cpu")
            + _int(array.size)
        )
        parts += [
            _text(name),
            b"ctorch._utils\n_rebuild_tensor_v2\n",
            b"(("
            + storage
            + b"tQ",  # the persistent id: ("storage", class, key, location, number of elements)
            _int(0) + _tuple(array.shape) + _tuple(strides),
            b"\x89ccollections\nOrderedDict\n)RtR",  # requires_grad=False, no hooks; call
        ]
    return b"".join([*parts, b"u."])


def _text(value: str) -> bytes:
    """BINUNICODE."""
    raw = value.encode("utf-8")
    return b"X" + struct.pack("<I", len(raw)) + raw


def _int(value: int) -> bytes:
    """BININT, or LONG1 from 2 GiB on."""
    return (
        b"J" + struct.pack("<i", value)
        if value < 1 << 31
        else b"\x8a\x08" + struct.pack("<q", value)
    )


def _tuple(values: tuple[int, ...] | list[int]) -> bytes:
    """MARK, the numbers, TUPLE."""
    return b"(" + b"".join(map(_int, values)) + b"t"
