"""Checkpoints of other systems, written byte by byte: safetensors, NumPy, Torch7, Keras' HDF5.

Every writer can be made to lie. ``test_foreign`` proves them against the systems' own readers where
these are installed.
"""

from __future__ import annotations

import itertools
import json
import struct
import zlib
from io import BytesIO

import h5py
import numpy as np
from torch_files import Entry, Zip

SAFE_TYPES = {
    "f8": "F64",
    "f4": "F32",
    "f2": "F16",
    "b1": "BOOL",
    "u1": "U8",
    "i1": "I8",
    "i2": "I16",
    "i4": "I32",
    "i8": "I64",
}


# -- safetensors


def header(tensors):
    """The header for arrays, laid out one after the other."""
    found, at = {}, 0
    for name, array in tensors.items():
        entry = {
            "dtype": SAFE_TYPES[array.dtype.str[1:]],
            "shape": list(array.shape),
            "data_offsets": [at, at + array.nbytes],
        }
        found[name], at = entry, at + array.nbytes
    return found


def safetensors(head, data, length=None):
    """A file with any header, as an object or as bytes."""
    raw = head if isinstance(head, bytes) else json.dumps(head).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def safe_file(tensors):
    return safetensors(header(tensors), b"".join(array.tobytes() for array in tensors.values()))


# -- npz


def npy(array, literal=None, version=b"\1\0", length=None, magic=b"\x93NUMPY", pad=b" "):
    """An .npy with any header."""
    order = bool(array.flags.f_contiguous and not array.flags.c_contiguous)
    if literal is None:
        kind, shape = array.dtype.str, array.shape
        literal = f"{{'descr': '{kind}', 'fortran_order': {order}, 'shape': {shape!r}, }}"
    raw = literal.encode() if isinstance(literal, str) else literal
    raw += pad * (-(len(raw) + 11) % 64) + b"\n"
    size = struct.pack("<H" if version == b"\1\0" else "<I", len(raw) if length is None else length)
    return magic + version + size + raw + array.tobytes(order="F" if order else "C")


def deflate(data):
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    return squeeze.compress(data) + squeeze.flush()


def deflated(name, data, **lies):
    """A compressed member."""
    fields = {"method": 8, "flags": 0, "size": len(data), "crc": zlib.crc32(data)}
    return Entry(name, deflate(data), **(fields | lies))


def npz_file(tensors, squeeze=False):
    made = {f"{name}.npy": npy(array) for name, array in tensors.items()}
    return Zip(
        [deflated(n, d) if squeeze else Entry(n, d, flags=0) for n, d in made.items()], zip64=False
    ).build()


# -- Torch7


def integer(value):
    return struct.pack("<i", value)


def longs(*values):
    return struct.pack(f"<{len(values)}q", *values)


def lua_text(value):
    """What follows the tag of a string."""
    raw = value.encode() if isinstance(value, str) else value
    return integer(len(raw)) + raw


def text(value):
    return integer(2) + lua_text(value)


def number(value):
    return integer(1) + struct.pack("<d", value)


NIL = integer(0)
TYPES = {"f4": "Float", "f8": "Double", "i8": "Long", "u1": "Byte", "f2": "Half", "i4": "Int"}


class Lua:
    """Writes objects with an index each; an index can be had again with `again`."""

    def __init__(self):
        self.count = 0
        self.last = 0

    def index(self):
        self.count += 1
        self.last = self.count
        return integer(self.count)

    def table(self, *pairs, size=None):
        """Keys and values, both already written."""
        return (
            self.start(integer(3))
            + integer(len(pairs) if size is None else size)
            + b"".join(k + v for k, v in pairs)
        )

    def start(self, tag):
        return tag + self.index()

    def torch(self, kind, payload, version=True):
        return (
            self.start(integer(4))
            + (lua_text("V 1") if version else b"")
            + lua_text(kind)
            + payload
        )

    def storage(self, array, kind=None, numel=None):
        kind = kind or f"torch.{TYPES[array.dtype.str[1:]]}Storage"
        return self.torch(kind, longs(array.size if numel is None else numel) + array.tobytes())

    def tensor(
        self, array, *, kind=None, size=None, stride=None, offset=1, storage=None, rank=None
    ):
        array = np.asarray(array)
        kind = kind or f"torch.{TYPES[array.dtype.str[1:]]}Tensor"
        size = array.shape if size is None else size
        stride = tuple(s // array.itemsize for s in array.strides) if stride is None else stride
        body = (
            integer(len(size) if rank is None else rank)
            + longs(*size)
            + longs(*stride)
            + longs(offset)
        )
        stem = self.start(integer(4)) + lua_text("V 1") + lua_text(kind)
        return (
            stem
            + body
            + (
                self.storage(array, kind.replace("Tensor", "Storage"))
                if storage is None
                else storage
            )
        )

    def module(self, kind, fields, children=None):
        """An object with fields, and with other modules in it."""
        stem = self.start(integer(4)) + lua_text("V 1") + lua_text(kind)
        pairs = [(text(name), value) for name, value in fields.items()]
        if children is not None:
            pairs.append(
                (
                    text("modules"),
                    self.table(*((number(i + 1), child) for i, child in enumerate(children))),
                )
            )
        return stem + self.table(*pairs)


def again(tag, index):
    """An object that has been written already."""
    return integer(tag) + integer(index)


def torch7_state():
    """A small network: its parameters under the names that they should get."""
    rng = np.random.default_rng(3)
    shapes = {
        "0.weight": (4, 3, 3, 3),
        "1.weight": (4,),
        "1.bias": (4,),
        "1.running_mean": (4,),
        "1.running_var": (4,),
    }
    shapes |= {"3.0.0.0.weight": (4, 2, 1, 1), "5.weight": (5, 4), "5.bias": (5,)}
    return {
        name: np.abs(rng.standard_normal(shape)).astype(np.float32)
        for name, shape in shapes.items()
    }


def torch7_file(state=None, root=None, extra=None):
    """Write `torch7_state` as modules of cudnn and nn, with gradients, a function and numbers."""
    state, lua = torch7_state() if state is None else state, Lua()
    convolution = {"gradWeight": np.full((4, 3, 3, 3), np.float32(7)), "weight": state["0.weight"]}

    def part(prefix):
        start = len(prefix)
        return {n[start:]: lua.tensor(a) for n, a in state.items() if n.startswith(prefix)}

    children = [
        lua.module(
            "cudnn.SpatialConvolution",
            {**{n: lua.tensor(a) for n, a in convolution.items()}, "kW": number(3)},
        ),
        lua.module(
            "nn.SpatialBatchNormalization",
            {**part("1."), "eps": number(1e-5), "affine": integer(5) + integer(1)},
        ),
        lua.module(
            "cudnn.ReLU",
            {"inplace": integer(5) + integer(1), "_type": text("torch.FloatTensor"), "none": NIL},
        ),
    ]
    inner = lua.module("nn.SpatialConvolution", {**part("3.0.0.0."), "bias": NIL})
    nested = [
        lua.module(
            "nn.Sequential",
            {},
            [lua.module("nn.ConcatTable", {}, [lua.module("nn.Sequential", {}, [inner])])],
        )
    ]
    nested += [
        lua.module("nn.View", {"size": lua.torch("torch.LongStorage", longs(2) + longs(1, 4))})
    ]
    closure = (
        lua.start(integer(8)) + lua_text(b"\x1bLuaP" + bytes(20)) + lua.table((number(1), NIL))
    )
    nested += [
        lua.module(
            "nn.Linear",
            {
                **part("5."),
                "output": lua.tensor(np.zeros(0, np.float32), size=(), stride=()),
                "f": closure,
            },
        )
    ]
    network = lua.module("nn.Sequential", {"train": integer(5) + integer(0)}, children + nested)
    return network if root is None else root(lua, network)


def torch7_tree(tensors, eps=(), stated=lambda path, kind: {}):
    """Write a network whose modules are named by their places.

    Every number on the way is a container. ReLUs fill the gaps, and at the root poolings, too. The
    batch norms have the epsilons in turn; ``stated`` gives fields of a module by place and class,
    already written, or another class under ``""``.
    """
    said = itertools.cycle(eps or (None,))
    lua, root = Lua(), {}
    for key, value in tensors.items():
        *path, name = key.split(".")
        node = root
        for step in path:
            node = node.setdefault(int(step), {})
        node[name] = value

    def module(path, kind, fields, children=None):
        more = stated(".".join(map(str, path)), kind)
        return lua.module(more.pop("", kind), fields | more, children)

    def gap(path):
        if len(path) > 1 or path[0] < 3:
            return "nn.ReLU"
        return "nn.SpatialMaxPooling" if path[0] == 3 else "cudnn.SpatialAveragePooling"

    def build(node, path=()):
        children = [place for place in node if isinstance(place, int)]
        if not children:
            fields = {name: lua.tensor(value) for name, value in node.items()}
            one = next(said) if "running_var" in node else None
            kind = "cudnn.SpatialConvolution" if node["weight"].ndim == 4 else "nn.Linear"
            kind = "nn.SpatialBatchNormalization" if "running_var" in node else kind
            return module(path, kind, fields | ({} if one is None else {"eps": number(one)}))
        places = [(*path, i) for i in range(max(children) + 1)]
        inner = [build(node[p[-1]], p) if p[-1] in node else module(p, gap(p), {}) for p in places]
        return module(path, "nn.Sequential", {}, inner)

    return build(root)


# -- Keras


def keras_state():
    """A small network's weights in Keras' orientation, by layer."""
    rng = np.random.default_rng(5)
    shapes = {
        "conv1_conv": {"kernel:0": (3, 3, 3, 4), "bias:0": (4,)},
        "act": {},
        "probs": {"kernel:0": (4, 5), "bias:0": (5,)},
    }
    shapes["conv1_bn"] = {
        "gamma:0": (4,),
        "beta:0": (4,),
        "moving_mean:0": (4,),
        "moving_variance:0": (4,),
    }
    return {
        layer: {
            f"{layer}/{name}": np.abs(rng.standard_normal(shape)).astype(np.float32)
            for name, shape in weights.items()
        }
        for layer, weights in shapes.items()
    }


def keras_layers(tensors):
    """Weights ``LAYER/WEIGHT:0`` by layer, as `keras_file` takes them."""
    state = {}
    for key, value in tensors.items():
        state.setdefault(key.split("/")[0], {})[key] = value
    return state


def keras_file(state=None, *, fixed=True, top="", change=None, **options):
    """Write the file as Keras does.

    ``fixed`` stores lists as an older h5py did; ``change`` is called with the open group.
    """
    state, out = keras_state() if state is None else state, BytesIO()
    listed = (
        (lambda names: np.array([n.encode() for n in names], "S"))
        if fixed
        else (lambda names: [n.encode() for n in names])
    )
    with h5py.File(out, "w", **options) as file:
        group = file.require_group(top) if top else file
        group.attrs["layer_names"] = listed(list(state))
        group.attrs["backend"] = b"tensorflow"
        for layer, weights in state.items():
            inner = group.create_group(layer)
            inner.attrs["weight_names"] = listed(list(weights)) if weights else []
            for name, array in weights.items():
                inner.create_dataset(name, data=array)
        if change is not None:
            change(group)
    return out.getvalue()
