"""Writing a model for other programs: ``.pth`` for PyTorch, ``.safetensors``, ``.npz``, ``.onnx``.

`export` takes a whole model, and the writers of state dicts stand below it; `onnx.write` has that
of graphs. Beside the tensors, each can carry the rest of the model, as a text (see `carried`). Each
replaces the file in one step (see `tinyresnext.system.files`) and writes equal bytes for equal
tensors.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ..errors import UsageError
from ..formats.dtypes import BY_NUMPY
from ..formats.npy import header_bytes
from ..formats.stored_zip.writer import write_zip
from ..network.plan.quantised import Quantisation
from ..store.contents import Stored
from ..system.checks import is_whole
from ..system.words import one_of
from ..system.writing import replacing
from . import carried as carried_beside
from .onnx.write import write_onnx
from .readers.checkpoint import CARRIED_KEY, CARRIED_MEMBER, CARRIED_NAME

__all__ = ["check_options", "export", "write_npz", "write_pth", "write_safetensors"]

PRECISIONS = ("float32", "float16")
MOST_IMAGES = 10**9

# by NumPy's names: the types that PyTorch has too
_TYPES = {np.dtype(name).name: number for name, number in BY_NUMPY.items() if number.torch}


def check_options(path: str | os.PathLike[str], **given: Any) -> dict[str, Any]:
    """Return the options of `onnx.write.write_onnx`, of those of `export` that are not None.

    Raises
    ------
    UsageError
        The name has no ending that is written, an option is for another one, or it is something
        else.
    """
    try:
        name = os.fsdecode(path)
    except TypeError:
        raise UsageError(f"the file to write is {path!r:.80}; give its name") from None
    suffix = os.path.splitext(name)[1]
    if suffix not in (*_WRITERS, ".onnx"):
        raise UsageError(f"{name!r} ends in {suffix!r}; expected {', '.join(_WRITERS)} or .onnx")
    options = {key: value for key, value in given.items() if value is not None}
    if options and suffix != ".onnx":
        key = next(iter(options))
        raise UsageError(f"--{key} ({key}=) is for .onnx; {name!r} ends in {suffix!r}")
    if "precision" in options:
        if (precision := options.pop("precision")) not in PRECISIONS:
            raise UsageError(f"precision is {precision!r:.80}: {one_of(precision, PRECISIONS)}")
        options["half"] = precision == "float16"
    batch = options.get("batch", 0)
    if not is_whole(batch, 0, MOST_IMAGES):
        raise UsageError(
            f"batch is {batch!r:.80}; give the number of images in a mini-batch, or leave it out "
            "for any number (--batch dynamic)"
        )
    return options | ({"batch": int(batch)} if "batch" in options else {})


def export(
    path: str | os.PathLike[str],
    stored: Stored,
    quantisation: Quantisation | None = None,
    **given: Any,
) -> list[str]:
    """Write a model as its ending says, and return what the users of the file should know.

    Parameters
    ----------
    path : path
        The file to make or to replace.
    stored : Stored
    quantisation : Quantisation, optional
        Of a quantised model, which is written as ONNX only.
    given
        As for `check_options`.

    Raises
    ------
    UsageError
        As `check_options` does; the model cannot be written so, or the file cannot be written.
    FormatError, ShapeError, UnsafeError
        Labels or provenance cannot be stored.
    """
    path = os.fsdecode(path)
    options, suffix = check_options(path, **given), os.path.splitext(path)[1]
    if quantisation is not None and suffix != ".onnx":
        raise UsageError(
            f"the model is quantised, and {suffix} is not written for such models; name a "
            "file that ends in .onnx, or export the model that it was made of"
        )
    text = carried_beside.written(stored)
    batch, graph, quantised = options.get("batch", 0), suffix == ".onnx", quantisation is not None
    # first, so that there is no file if this fails
    notes = carried_beside.export_notes(stored, path, text, graph, batch, quantised)
    if graph:
        write_onnx(path, stored, text, quantisation=quantisation, **options)
    else:
        _WRITERS[suffix](path, stored.params, carried=text)
    return notes


def write_pth(
    path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], carried: str = ""
) -> None:
    """Write PyTorch's zip format, which ``torch.load(path, weights_only=True)`` reads.

    It returns the ``OrderedDict`` of tensors.

    Parameters
    ----------
    path : path
        The file to make or to replace.
    tensors : mapping of str to ndarray
        In the order wanted; PyTorch's own names for ``load_state_dict(strict=True)``.
    carried : str
        ASCII text of `carried.written`, a member of the archive that ``torch.load`` passes over;
        none if it is empty.

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
        if carried:
            yield f"archive/{CARRIED_MEMBER}", [carried.encode("ascii")]

    with replacing(path) as temporary, open(temporary, "wb") as file:
        write_zip(file, members())


def write_npz(
    path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], carried: str = ""
) -> None:
    """Write NumPy's archive: ``np.load(path)[name]``. Parameters and errors as in `write_pth`.

    ``carried`` is its last array, of bytes, called ``__tinyresnext__``.
    """
    arrays = _checked(tensors)
    if CARRIED_NAME in arrays:
        raise UsageError(f"tinyresnext keeps the name {CARRIED_NAME} for itself; rename the tensor")
    if carried:
        arrays[CARRIED_NAME] = np.frombuffer(carried.encode("ascii"), np.uint8)

    def members() -> Iterator[tuple[str, list[bytes | memoryview]]]:
        for name, array in arrays.items():
            yield f"{name}.npy", [header_bytes(array.dtype, array.shape), _data(array)]

    with replacing(path) as temporary, open(temporary, "wb") as file:
        write_zip(file, members())


def write_safetensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
    carried: str = "",
) -> None:
    """Write a ``.safetensors`` file: a length, a JSON header and the numbers.

    Every tensor is aligned to the size of its numbers.

    Parameters
    ----------
    path, tensors
        As in `write_pth`.
    metadata : mapping of str to str, optional
        Stored as ``__metadata__``.
    carried : str
        As in `write_pth`; an entry of ``__metadata__``.

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
    if carried:
        notes[CARRIED_KEY] = carried
    header: dict[str, object] = {"__metadata__": notes} if notes else {}
    # widest first keeps every tensor aligned
    ordered = sorted(arrays.items(), key=lambda item: -item[1].itemsize)
    end = 0
    for name, array in ordered:
        span = [end, end + array.nbytes]
        header[name] = {
            "dtype": _TYPES[array.dtype.name].name,
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


_WRITERS: dict[str, Callable[..., None]] = {
    ".pth": write_pth,
    ".safetensors": write_safetensors,
    ".npz": write_npz,
}


def _checked(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return little-endian, C-contiguous arrays under names that every format can hold."""
    arrays = {}
    for name, array in tensors.items():
        plain = isinstance(name, str) and name.isascii() and name.isprintable()
        if not plain or not name or {*"/\\"} & {*name}:
            raise UsageError(
                f"a tensor's name must be plain ASCII text without slashes, found {name!r:.80}"
            )
        if not isinstance(array, np.ndarray) or array.dtype.name not in _TYPES:
            found = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
            raise UsageError(f"{name} is of type {found}; one of {', '.join(_TYPES)} was expected")
        arrays[name] = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
    return arrays


def _data(array: np.ndarray) -> memoryview:
    """Return the array's bytes, without a copy."""
    return array.reshape(-1).view(np.uint8).data


def _state_dict_pickle(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return the pickle (protocol 2) of an OrderedDict of tensors.

    Their numbers lie in ``data/0``, ``data/1``, ...
    """
    parts = [b"\x80\x02ccollections\nOrderedDict\n)R("]
    for index, (name, array) in enumerate(arrays.items()):
        kind = _TYPES[array.dtype.name].torch.encode()
        strides = [math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim)]
        storage = (
            _text("storage")
            + b"ctorch\n%bStorage\n" % kind
            + _text(str(index))
            + _text("cpu")
            + _int(array.size)
        )
        parts += [
            _text(name),
            b"ctorch._utils\n_rebuild_tensor_v2\n",
            # the persistent id: ("storage", class, key, location, number of elements)
            b"((" + storage + b"tQ",
            _int(0) + _tuple(array.shape) + _tuple(strides),
            b"\x89ccollections\nOrderedDict\n)RtR",  # requires_grad=False, no hooks; call
        ]
    return b"".join([*parts, b"u."])


def _text(value: str) -> bytes:
    """Return the opcode BINUNICODE, which pushes a text."""
    raw = value.encode("utf-8")
    return b"X" + struct.pack("<I", len(raw)) + raw


def _int(value: int) -> bytes:
    """Return the opcode BININT, or LONG1 from 2 ** 31 on, which pushes an integer."""
    if value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x08" + struct.pack("<q", value)


def _tuple(values: tuple[int, ...] | list[int]) -> bytes:
    """Return the opcodes that push a tuple: MARK, the numbers, TUPLE."""
    return b"(" + b"".join(map(_int, values)) + b"t"
