"""ONNX files for tests: written by us, taken apart, changed, and computed in an independent way.

Nothing here is shared with the package: a second reader of protobuf, and the definitions of ONNX's
operators in a few lines of NumPy, in float64.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from cases import weights

from tinyresnext import Preprocess, Spec
from tinyresnext.checkpoints import carried
from tinyresnext.checkpoints.onnx.write import write_onnx
from tinyresnext.store.store import Stored

SMALL = Spec((1, 1), 2, 2, 3, channels=1, stem="cifar", expansion=1)
TINY = Spec((1,), 1, 2, 2, channels=1, stem="cifar", shortcut="A", expansion=1)
SIDE = 8


def stored(spec: Spec = SMALL, side: int = SIDE) -> Stored:
    """A model with weights made from their names."""
    mean = (0.5,) * (1 if spec.channels == 1 else 3)
    labels = tuple(f"label {i}" for i in range(spec.labels))
    preprocess = Preprocess(side, side, mean=mean, std=mean)
    return Stored(spec, weights(spec, counters=False), preprocess, labels, {"licence": "MIT"})


def onnx_file(folder: Path, spec: Spec = SMALL, *, plain: bool = True, **options) -> bytes:
    """The bytes of a model's graph, without what tinyresnext writes beside it if ``plain``."""
    model = stored(spec)
    text = "" if plain else carried.written(model)
    write_onnx(folder / "made.onnx", model, text, **options)
    return (folder / "made.onnx").read_bytes()


# -- protobuf


def varint(data: bytes, at: int) -> tuple[int, int]:
    shift = value = 0
    while True:
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 128:
            return value, at


def put(value: int) -> bytes:
    out, value = b"", value % (1 << 64)
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def field(number: int, data: bytes | int) -> bytes:
    if isinstance(data, int):
        return put(number << 3) + put(data)
    return put(number << 3 | 2) + put(len(data)) + data


def fields(data: bytes) -> list[tuple[int, int | bytes, bytes]]:
    """Number, value, and the whole field of each field of a message."""
    at, found = 0, []
    while at < len(data):
        start = at
        tag, at = varint(data, at)
        if tag & 7 == 0:
            value, at = varint(data, at)
        else:
            size = {1: 8, 5: 4}.get(tag & 7)
            if size is None:
                size, at = varint(data, at)
            value, at = data[at : at + size], at + size
        found.append((tag >> 3, value, data[start:at]))
    return found


def in_graph(data: bytes, change) -> bytes:
    """The model with a graph of the fields that ``change`` makes of its fields."""
    parts = []
    for number, value, whole in fields(data):
        if number == 7:
            whole = field(7, b"".join(change(fields(value))))
        parts.append(whole)
    return b"".join(parts)


def in_nodes(data: bytes, change) -> bytes:
    """The model with nodes changed: ``change`` receives and returns a dict of its parts."""

    def each(parts):
        for number, value, whole in parts:
            yield field(1, node_bytes(change(node_parts(value)))) if number == 1 else whole

    return in_graph(data, each)


def node_parts(data: bytes) -> dict:
    found: dict = {"inputs": [], "outputs": [], "name": b"", "op": b"", "domain": b"", "a": {}}
    lists = {1: "inputs", 2: "outputs"}
    for number, value, _ in fields(data):
        if number in lists:
            found[lists[number]].append(value)
        elif number == 5:
            name = next(v for n, v, _ in fields(value) if n == 1)
            found["a"][name.decode()] = value
        elif number in (3, 4, 7):
            found[{3: "name", 4: "op", 7: "domain"}[number]] = value
    return found


def node_bytes(node: dict) -> bytes:
    out = b"".join(field(1, one) for one in node["inputs"])
    out += b"".join(field(2, one) for one in node["outputs"])
    out += field(3, node["name"]) + field(4, node["op"])
    out += b"".join(field(5, one) for one in node["a"].values())
    return out + (field(7, node["domain"]) if node["domain"] else b"")


def attribute(name: str, value) -> bytes:
    raw = field(1, name.encode())
    if isinstance(value, float):
        return raw + put(2 << 3 | 5) + struct.pack("<f", value) + field(20, 1)
    if isinstance(value, int):
        return raw + field(3, value) + field(20, 2)
    if isinstance(value, bytes):
        return raw + field(4, value) + field(20, 3)
    return raw + b"".join(field(8, n) for n in value) + field(20, 7)


def node(op: str, inputs, output: str, **attributes) -> bytes:
    """A field of a graph: one node."""
    parts = {"inputs": [i.encode() for i in inputs], "outputs": [output.encode()]}
    made = {key: attribute(key, value) for key, value in attributes.items()}
    name = (op + " added").encode()
    return field(
        1, node_bytes({**parts, "name": name, "op": op.encode(), "domain": b"", "a": made})
    )


TYPES = {1: "<f4", 2: "u1", 3: "i1", 7: "<i8", 10: "<f2", 11: "<f8"}


def tensor_parts(data: bytes) -> tuple[str, np.ndarray]:
    """A tensor with inline numbers, in float64 or as whole numbers."""
    dims, kind, name, raw = [], 0, "", None
    for number, value, _ in fields(data):
        if number == 1:
            dims += [value] if isinstance(value, int) else unpacked(value)
        elif number == 2:
            kind = value
        elif number == 8:
            name = value.decode()
        elif number == 9:
            raw = np.frombuffer(value, TYPES[kind])
    array = raw.reshape(dims)
    return name, array if kind in (2, 3, 7) else array.astype(np.float64)


def unpacked(data: bytes) -> list[int]:
    at, found = 0, []
    while at < len(data):
        value, at = varint(data, at)
        found.append(value)
    return found


# -- ONNX's operators, as they are defined


def evaluate(data: bytes, x: np.ndarray) -> np.ndarray:
    """What a graph with inline weights computes of ``x`` [n, c, h, w], in float64."""
    graph = [value for number, value, _ in fields(data) if number == 7][-1]
    known: dict[str, np.ndarray] = {}
    nodes, inputs, outputs = [], [], []
    for number, value, _ in fields(graph):
        if number == 5:
            name, array = tensor_parts(value)
            known[name] = array
        elif number == 1:
            nodes.append(node_parts(value))
        elif number in (11, 12):
            name = next(v for n, v, _ in fields(value) if n == 1).decode()
            (inputs if number == 11 else outputs).append(name)
    known[next(name for name in inputs if name not in known)] = np.asarray(x, np.float64)
    for one in nodes:
        args = [known[name.decode()] for name in one["inputs"]]
        a = {name: attribute_value(value) for name, value in one["a"].items()}
        known[one["outputs"][0].decode()] = OPERATORS[one["op"].decode()](a, *args)
    return known[outputs[0]]


def attribute_value(data: bytes):
    several = []
    for number, value, _ in fields(data):
        if number == 2:
            return struct.unpack("<f", value)[0]
        if number in (3, 4):
            return value - (1 << 64) if number == 3 and value >= 1 << 63 else value
        if number == 8:
            several += [value] if isinstance(value, int) else unpacked(value)
    return several


def windows(a, x, size, fill, ceil=False):
    """Each position of the window: the values there, over all places of the map."""
    s, d = a.get("strides", [1, 1]), a.get("dilations", [1, 1])
    p = a.get("pads", [0, 0, 0, 0])
    counts = []
    for axis in (0, 1):
        over = x.shape[2 + axis] + p[axis] + p[axis + 2] - d[axis] * (size[axis] - 1) - 1
        count = (-(-over // s[axis]) if ceil else over // s[axis]) + 1
        if ceil and (count - 1) * s[axis] >= x.shape[2 + axis] + p[axis]:
            count -= 1
        counts.append(count)
    more = [size[i] * d[i] + s[i] for i in (0, 1)]
    pads = ((0, 0), (0, 0), (p[0], p[2] + more[0]), (p[1], p[3] + more[1]))
    x = np.pad(x, pads, constant_values=fill)
    for i in range(size[0]):
        for j in range(size[1]):
            rows = slice(i * d[0], i * d[0] + s[0] * (counts[0] - 1) + 1, s[0])
            columns = slice(j * d[1], j * d[1] + s[1] * (counts[1] - 1) + 1, s[1])
            yield i, j, x[:, :, rows, columns]


def conv(a, x, w, b=None):
    groups = a.get("group", 1)
    total = 0
    for i, j, part in windows(a, x, w.shape[2:], 0.0):
        n, c, h, v = part.shape
        part = part.reshape(n, groups, c // groups, h, v)
        weight = w[:, :, i, j].reshape(groups, len(w) // groups, -1)
        total = total + np.einsum("ngchw,goc->ngohw", part, weight).reshape(n, len(w), h, v)
    return total if b is None else total + b[:, None, None]


def batch_norm(a, x, scale, shift, mean, var):
    assert not a.get("training_mode")
    rows = [v[:, None, None] for v in (scale, shift, mean, var)]
    return (x - rows[2]) / np.sqrt(rows[3] + a.get("epsilon", 1e-5)) * rows[0] + rows[1]


def average_pool(a, x):
    size, ceil = a["kernel_shape"], bool(a.get("ceil_mode"))
    fill = 0.0 if a.get("count_include_pad") else np.nan
    return np.nanmean([part for *_, part in windows(a, x, size, fill, ceil)], axis=0)


def max_pool(a, x):
    size, ceil = a["kernel_shape"], bool(a.get("ceil_mode"))
    return np.max([part for *_, part in windows(a, x, size, -np.inf, ceil)], axis=0)


def gemm(a, x, w, b=0.0):
    w = w.T if a.get("transB") else w
    x = x.T if a.get("transA") else x
    return a.get("alpha", 1.0) * (x @ w) + a.get("beta", 1.0) * b


def pad(a, x, pads=None):
    before, behind = np.reshape(a["pads"] if pads is None else pads, (2, 4))
    mode = a.get("mode", b"constant").decode()
    return np.pad(x, list(zip(before, behind, strict=True)), mode)


def quantize(a, x, scale, zero):
    ends = np.iinfo(zero.dtype)
    return np.clip(np.rint(x / scale) + zero, ends.min, ends.max).astype(zero.dtype)


def dequantize(a, x, scale, zero=0):
    if scale.ndim:
        assert a["axis"] == 0
        scale, zero = (np.reshape(n, (-1, *[1] * (x.ndim - 1))) for n in (scale, zero))
    return (x.astype(np.float64) - zero) * scale


OPERATORS = {
    "QuantizeLinear": quantize,
    "DequantizeLinear": dequantize,
    "Conv": conv,
    "Pad": pad,
    "BatchNormalization": batch_norm,
    "Relu": lambda a, x: np.maximum(x, 0),
    "Sigmoid": lambda a, x: 1 / (1 + np.exp(-x)),
    "Mul": lambda a, x, y: x * y,
    "Add": lambda a, x, y: x + y,
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": lambda a, x: x.mean((2, 3), keepdims=True),
    "Flatten": lambda a, x: x.reshape(len(x), -1),
    "Gemm": gemm,
    "MatMul": lambda a, x, w: x @ w,
    "Cast": lambda a, x: x,
    "Identity": lambda a, x: x,
}
