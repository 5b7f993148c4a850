"""Checkpoints written byte by byte, without PyTorch, in the legacy and the zip format.

``Raw`` puts arbitrary opcodes in the place of a value, which is how the hostile files are made.
``test_torch_file`` proves the writer against ``torch.load`` where PyTorch is installed.
"""

from __future__ import annotations

import struct
import zlib
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np

KIND_OF = {
    "float32": "Float",
    "float64": "Double",
    "float16": "Half",
    "int64": "Long",
    "int32": "Int",
    "int16": "Short",
}
KIND_OF |= {"int8": "Char", "uint8": "Byte", "bool": "Bool"}
MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001


@dataclass(frozen=True)
class Raw:
    """Opcodes that leave one object on the stack."""

    code: bytes


@dataclass(eq=False)
class Storage:
    """Numbers in the file; identity is what tensors share."""

    values: np.ndarray
    kind: str
    module: str = "torch"
    location: str = "cpu"


@dataclass(frozen=True)
class View:
    """A tensor: a storage seen through offset, size and stride."""

    storage: Storage
    offset: int
    size: tuple
    stride: tuple
    parameter: bool = False
    quantiser: tuple | None = None  # a name of PyTorch's, scales, zero points and perhaps an axis


class StateDict(OrderedDict):
    """An OrderedDict that carries ``_metadata``, as ``model.state_dict()`` does."""


def contiguous(shape):
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))


def tensor(array, kind=None, module="torch", location="cpu", parameter=False):
    """A tensor with a storage of its own."""
    array = np.asarray(array)
    storage = Storage(
        np.ascontiguousarray(array).reshape(-1), kind or KIND_OF[array.dtype.name], module, location
    )
    return View(storage, 0, array.shape, contiguous(array.shape), parameter)


# -- pickle opcodes


def glob(module, name):
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def text(value):
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(value):
    if 0 <= value < 256:
        return b"K" + bytes([value])
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def marked(*parts):
    """MARK ... TUPLE."""
    return b"(" + b"".join(parts) + b"t"


def call(module, name, *arguments):
    return glob(module, name) + marked(*arguments) + b"R"


def key_of(storage, storages):
    if all(storage is not other for other in storages):
        storages.append(storage)
    return str(next(i for i, other in enumerate(storages) if other is storage))


def dump(value, storages, legacy):
    """The opcodes for a value; the storages met are appended to ``storages``."""

    def go(v):
        return dump(v, storages, legacy)

    if isinstance(value, Raw):
        return value.code
    if isinstance(value, View):
        s = value.storage
        pid = [
            text("storage"),
            glob(s.module, f"{s.kind}Storage"),
            text(key_of(s, storages)),
            text(s.location),
        ]
        pid += [integer(s.values.size)] + ([b"N"] if legacy else [])
        arguments = [
            marked(*pid) + b"Q",
            integer(value.offset),
            go(tuple(value.size)),
            go(tuple(value.stride)),
        ]
        if value.quantiser is not None:
            method, *rows = value.quantiser
            arguments.append(marked(glob("torch", method), *map(go, rows)))
        code = call(
            "torch._utils",
            "_rebuild_tensor_v2" if value.quantiser is None else "_rebuild_qtensor",
            *arguments,
            b"\x89",
            call("collections", "OrderedDict"),
        )
        return (
            call("torch._utils", "_rebuild_parameter", code, b"\x88", go(OrderedDict()))
            if value.parameter
            else code
        )
    if isinstance(value, dict):
        code = (
            glob("collections", "OrderedDict") + b")R" if isinstance(value, OrderedDict) else b"}"
        )
        code += b"(" + b"".join(go(k) + go(v) for k, v in value.items()) + b"u"
        if isinstance(value, StateDict):
            code += (
                b"}"
                + text("_metadata")
                + go(OrderedDict({"": {"version": 1}, "bn1": {"version": 2}}))
                + b"sb"
            )
        return code
    if isinstance(value, (list, tuple)):
        items = b"(" + b"".join(go(v) for v in value)
        return b"]" + items + b"e" if isinstance(value, list) else items + b"t"
    if isinstance(value, (bool, type(None))):
        return {True: b"\x88", False: b"\x89", None: b"N"}[value]
    if isinstance(value, int):
        return integer(value)
    return b"G" + struct.pack(">d", value) if isinstance(value, float) else text(value)


def pickled(value, storages=None, legacy=False):
    return b"\x80\x02" + dump(value, [] if storages is None else storages, legacy) + b"."


# -- legacy


@dataclass
class Legacy:
    """The parts of a legacy file, to be tampered with before ``build``."""

    value: object
    magic: object = MAGIC
    version: object = VERSION
    system: object = field(default_factory=lambda: dict(SYSTEM))
    keys: object = None
    lengths: dict = field(default_factory=dict)  # storage index -> declared length
    tail: bytes = b""

    def sections(self):
        """Return ``(name, bytes)`` in file order; a storage has two sections, length and data."""
        storages: list[Storage] = []
        body = pickled(self.value, storages, legacy=True)
        order = sorted(range(len(storages)), key=str)
        keys = [str(i) for i in order] if self.keys is None else self.keys
        yield "magic", pickled(self.magic)
        yield "version", pickled(self.version)
        yield "system", pickled(self.system)
        yield "object", body
        yield "keys", pickled(keys)
        for i in order:
            yield f"length {i}", struct.pack("<q", self.lengths.get(i, storages[i].values.size))
            yield f"data {i}", storages[i].values.tobytes()
        yield "tail", self.tail

    def build(self):
        return b"".join(data for _, data in self.sections())


SYSTEM = {
    "protocol_version": VERSION,
    "little_endian": True,
    "type_sizes": {"short": 2, "int": 4, "long": 4},
}


def legacy_file(value):
    return Legacy(value).build()


# -- zip


@dataclass
class Entry:
    """A zip member and every field that a liar may set: ``None`` means the truth."""

    name: str | bytes
    data: bytes
    flags: int = 0x0808
    local_flags: int | None = None
    local_name: bytes | None = None
    method: int = 0
    crc: int | None = None
    size: int | None = None
    packed: int | None = None
    local_size: int | None = None
    local_crc: int | None = None
    made_by: int = 0
    attributes: int = 0
    extra: bytes = b""
    header: int | None = None
    after: bytes = b""  # hidden bytes behind the member
    comment: bytes = b""


@dataclass
class Zip:
    """An archive as PyTorch writes it: data descriptors, padded extra fields, zip64 records."""

    entries: list
    prefix: bytes = b""
    before_directory: bytes = b""
    in_directory: bytes = b""  # counted in its length, but no entry
    comment: bytes = b""
    suffix: bytes = b""
    count: int | None = None
    zip64: bool = True
    end64: dict = field(default_factory=dict)  # position in the record -> value
    locator: int | None = None
    disk: int = 0
    end_offset: int | None = None

    def build(self):
        out = bytearray(self.prefix)
        directory = bytearray()
        for e in self.entries:
            header = len(out)
            name = e.name if isinstance(e.name, bytes) else e.name.encode()
            local_name = name if e.local_name is None else e.local_name
            crc = zlib.crc32(e.data) if e.crc is None else e.crc
            size = len(e.data) if e.size is None else e.size
            packed = len(e.data) if e.packed is None else e.packed
            flags = e.flags if e.local_flags is None else e.local_flags
            told = (
                (0, 0, 0)
                if flags & 8
                else (
                    crc if e.local_crc is None else e.local_crc,
                    packed,
                    size if e.local_size is None else e.local_size,
                )
            )
            pad = -(header + 34 + len(local_name)) % 64
            extra = struct.pack("<2H", 0x4246, pad) + b"Z" * pad
            out += struct.pack(
                "<4s5H3I2H", b"PK\3\4", 0, flags, e.method, 0, 0, *told, len(local_name), len(extra)
            )
            out += local_name + extra + e.data
            if flags & 8:
                out += struct.pack(
                    "<4s3I",
                    b"PK\7\x08",
                    crc,
                    packed,
                    size if e.local_size is None else e.local_size,
                )
            out += e.after
            fixed = (
                e.made_by,
                0,
                e.flags,
                e.method,
                0,
                0,
                crc,
                packed,
                size,
                len(name),
                len(e.extra),
                len(e.comment),
                0,
                0,
            )
            where = header if e.header is None else e.header
            directory += (
                struct.pack("<4s6H3I5H2I", b"PK\1\2", *fixed, e.attributes, where)
                + name
                + e.extra
                + e.comment
            )
        out += self.before_directory
        begin = len(out)
        directory += self.in_directory
        out += directory
        n = len(self.entries) if self.count is None else self.count
        if self.zip64:
            at = len(out)
            record = [b"PK\6\6", 44, 0x031E, 45, 0, 0, n, n, len(directory), begin]
            for position, value in self.end64.items():
                record[position] = value
            out += struct.pack("<4sQ2H2I4Q", *record)
            out += struct.pack(
                "<4sIQI", b"PK\6\7", 0, at if self.locator is None else self.locator, 1
            )
        where = begin if self.end_offset is None else self.end_offset
        n = min(n, 0xFFFF)
        out += struct.pack(
            "<4s4H2IH", b"PK\5\6", self.disk, 0, n, n, len(directory), where, len(self.comment)
        )
        return bytes(out + self.comment + self.suffix)


def zip_entries(value, root="model", pickle=None, byteorder=b"little"):
    """The members that PyTorch writes for a value; ``pickle`` replaces data.pkl."""
    storages: list[Storage] = []
    body = pickled(value, storages)
    return [
        Entry(f"{root}/data.pkl", body if pickle is None else pickle),
        Entry(f"{root}/.format_version", b"1"),
        Entry(f"{root}/byteorder", byteorder),
        *(Entry(f"{root}/data/{i}", s.values.tobytes()) for i, s in enumerate(storages)),
        Entry(f"{root}/version", b"3\n"),
        Entry(f"{root}/.data/serialization_id", b"0" * 40),
    ]


def zip_file(value, **options):
    return Zip(zip_entries(value, **options)).build()


def tampered(value, name, **changes):
    """A zip file in which one member's entry lies."""
    entries = [
        replace(e, **changes) if e.name == f"model/{name}" else e for e in zip_entries(value)
    ]
    return Zip(entries).build()


# -- good content


def numbers(shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def small_state():
    """Return a convolution, its batch norm with the optional counter, and a classifier."""
    return StateDict(
        {
            "conv1.weight": tensor(numbers((4, 3, 3, 3))),
            "bn1.weight": tensor(numbers(4, 1)),
            "bn1.running_mean": tensor(numbers(4, 2)),
            "bn1.running_var": tensor(np.abs(numbers(4, 3))),
            "bn1.num_batches_tracked": tensor(np.array(7, np.int64)),
            "fc.weight": tensor(numbers((5, 4), 4)),
            "fc.bias": tensor(numbers(5, 5)),
        }
    )


def bfloat16_bits(array):
    """The upper halves of float32 numbers."""
    return (np.ascontiguousarray(array, np.float32).view(np.uint32) >> 16).astype(np.uint16)
