"""Writing ONNX: messages of `model` and `tensor`, and a file of them whose numbers are streamed."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ...errors import UsageError
from ...system.writing import replacing
from .wire import BYTES, FOUR, field, number

__all__ = ["IR_VERSIONS", "Graph", "node", "write_model"]

# The version of the format that came with each version of the operators
IR_VERSIONS = {9: 4, 10: 5, 11: 6, 12: 7, 13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9}
MOST_BYTES = (1 << 31) - 1  # of a message, which a model is
_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int64": 7, "float16": 10}

Attribute = int | float | bytes | Sequence[int]


class Graph(NamedTuple):
    """The parts of a graph: its name, nodes, tensors, and its input and output.

    Attributes
    ----------
    name : str
    nodes : list of bytes
        Made by `node`, each after those whose results it reads.
    tensors : dict of str to ndarray
        float32, float16, int64, int8 or uint8.
    inputs, outputs : dict of str to list
        Dimensions; a text is the name of one that is left open. All are of float32.
    """

    name: str
    nodes: list[bytes]
    tensors: Mapping[str, np.ndarray]
    inputs: Mapping[str, Sequence[int | str]]
    outputs: Mapping[str, Sequence[int | str]]


def node(
    op: str, name: str, inputs: Sequence[str], output: str, attributes: Mapping[str, Attribute]
) -> bytes:
    """Return a NodeProto."""
    parts = [field(1, one.encode()) for one in inputs] + [field(2, output.encode())]
    parts += [field(3, name.encode()), field(4, op.encode())]
    for key, value in attributes.items():
        raw = field(1, key.encode())
        if isinstance(value, float):
            raw += number(2 << 3 | FOUR) + struct.pack("<f", value) + field(20, 1)
        elif isinstance(value, int):
            raw += field(3, value) + field(20, 2)
        elif isinstance(value, bytes):
            raw += field(4, value) + field(20, 3)
        else:
            raw += b"".join(field(8, one) for one in value) + field(20, 7)
        parts.append(field(5, raw))
    return b"".join(parts)


def write_model(
    path: str | os.PathLike[str],
    graph: Graph,
    *,
    opset: int,
    producer: tuple[str, str],
    metadata: Mapping[str, str],
) -> None:
    """Write a model file in one step (see `tinyresnext.system.writing`).

    Parameters
    ----------
    path : path
    graph : Graph
    opset : int
        The version of ONNX's operators, a key of `IR_VERSIONS`.
    producer : (str, str)
        Name and version of the program that writes.
    metadata : mapping of str to str

    Raises
    ------
    UsageError
        The file would have 2 GiB or more, or cannot be written.
    """
    heads = {name: _tensor_head(name, array) for name, array in graph.tensors.items()}
    before = b"".join(field(1, one) for one in graph.nodes) + field(2, graph.name.encode())
    after = b"".join(field(11, _value_info(*item)) for item in graph.inputs.items())
    after += b"".join(field(12, _value_info(*item)) for item in graph.outputs.items())
    sizes = [
        len(_lead(5, len(head) + array.nbytes)) + len(head) + array.nbytes
        for head, array in zip(heads.values(), graph.tensors.values(), strict=True)
    ]
    size = len(before) + sum(sizes) + len(after)
    start = field(1, IR_VERSIONS[opset])
    start += field(2, producer[0].encode()) + field(3, producer[1].encode())
    end = field(8, field(1, b"") + field(2, opset))
    for key, value in metadata.items():
        end += field(14, field(1, key.encode()) + field(2, value.encode()))
    if len(start) + size + len(end) + 16 > MOST_BYTES:
        raise UsageError(
            f"the model has {size:,} bytes, and an ONNX file has less than 2 GiB; export it in "
            "half precision (--precision float16), or as .safetensors"
        )
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(start + _lead(7, size) + before)
        for name, array in graph.tensors.items():
            file.write(_lead(5, len(heads[name]) + array.nbytes) + heads[name])
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        file.write(after + end)


def _lead(index: int, size: int) -> bytes:
    """Return the beginning of a field of so many bytes: its tag and its length."""
    return number(index << 3 | BYTES) + number(size)


def _tensor_head(name: str, array: np.ndarray) -> bytes:
    """Return a TensorProto up to its numbers."""
    dims = b"".join(field(1, n) for n in array.shape)
    kind = field(2, _TYPES[array.dtype.name])
    return dims + kind + field(8, name.encode()) + _lead(9, array.nbytes)


def _value_info(name: str, dims: Sequence[int | str]) -> bytes:
    """Return a ValueInfoProto: a name, and a tensor of float32 with these dimensions."""
    shape = b"".join(
        field(1, field(1, n) if isinstance(n, int) else field(2, n.encode())) for n in dims
    )
    return field(1, name.encode()) + field(2, field(1, field(1, 1) + field(2, shape)))
