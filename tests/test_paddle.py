"""Paddle's .pdparams: a pickle of arrays, read without NumPy's or Paddle's own loaders."""

from __future__ import annotations

import io
import pickle
import re
import struct
import tracemalloc
from dataclasses import replace

import cases
import numpy as np
import pytest
from audit import watching
from test_hostile_checkpoints import accepted, bits, mutations
from torch_files import Raw, call, glob, pickled, text

from tinyresnext import Spec
from tinyresnext.checkpoints.readers import container
from tinyresnext.errors import FormatError, IntegrityError, UnsafeError, WeightsError

PROTOCOLS = (2, 3, 4)  # Paddle writes no others
TINY = Spec((1, 2), 8, 4, 10, expansion=1)
D = Spec((1, 2), 8, 4, 10, expansion=1, stem="deep", avg_down=True)
FIELDS = {"running_mean": "_mean", "running_var": "_variance"}
PARTS = "UnpackBigParamInfor@@"
PROGRAM = "StructuredToParameterName@@"
DEEP = {"conv1.0": "conv1_1._conv", "conv1.1": "conv1_1.N", "conv1.3": "conv1_2._conv"}
DEEP |= {"conv1.4": "conv1_2.N", "conv1.6": "conv1_3._conv", "bn1": "conv1_3.N"}


def vision(key):
    return key


def clas(key, norm="_batch_norm", block="bb_{}_{}.conv{}", short="bb_{}_{}.short", first=0):
    """PaddleClas' name of a module; the first stage and block are 0, the first convolution too."""
    stem = {"conv1": "conv._conv", "bn1": "conv.N", "fc": "out"}
    if match := re.fullmatch(r"layer(\d)\.(\d+)\.(conv|bn|downsample\.)(\d)", key):
        stage, number, kind, place = match.groups()
        at = int(stage) - 1 + first, number
        if kind == "downsample.":
            name = short.format(*at) + (".N" if place in (LAST,) else "._conv")
        else:
            name = block.format(*at, int(place) - 1) + (".N" if kind == "bn" else "._conv")
    else:
        name = stem[key]
    return name.replace(".N", f".{norm}")


LAST = "1"  # the number of a shortcut's norm


def wsl(key):
    name = clas(key, "_bn", "_conv{}_{}._conv{}", "_conv{}_{}._short._conv", 1)
    name = re.sub("^conv[.]", "_conv_stem.", name)
    return f"_{name}" if name == "out" else name


def vd(key):
    key = re.sub(r"downsample\.1$", "downsample.0", key)
    key = re.sub(r"downsample\.2$", "downsample.1", key)
    return DEEP[key].replace(".N", "._batch_norm") if key in DEEP else clas(key)


def se(key):
    """PaddleClas' linear layers of squeeze and excitation, [in, out]."""
    if match := re.fullmatch(r"layer(\d)\.(\d+)\.se\.fc([12])", key):
        layer = "squeeze" if match[3] == "1" else "excitation"
        return f"bb_{int(match[1]) - 1}_{match[2]}.scale.{layer}"
    return clas(key)


def se_vd(key):
    return se(key) if ".se." in key else vd(key)


SE = Spec((1, 2), 8, 4, 10, expansion=1, se_reduction=16)
SYSTEMS = {"vision": (vision, TINY), "clas": (clas, TINY), "wsl": (wsl, TINY), "vd": (vd, D)}
SE_VD = replace(D, se_reduction=16, stem_channels=(64, 64, 128))
SYSTEMS |= {"se": (se, SE), "se vd": (se_vd, SE_VD)}


def arrays(spec=TINY, rename=vision):
    """Return the parameters as Paddle has them."""
    made = {}
    for name, value in cases.weights(spec, counters=False).items():
        module, _, field = name.rpartition(".")
        if name == "fc.weight" or (".se." in name and field == "weight"):
            value = np.ascontiguousarray(value.reshape(value.shape[:2]).T)
        made[f"{rename(module)}.{FIELDS.get(field, field)}"] = value
    return made


def file_of(tensors, protocol=4):
    names = {name: f"p_{i}.w_0" for i, name in enumerate(tensors)}
    return pickle.dumps({**tensors, PROGRAM: names}, protocol)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.pdparams"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("system", SYSTEMS)
def test_all_names_in_all_protocols(path, system, protocol):
    rename, spec = SYSTEMS[system]
    path.write_bytes(file_of(arrays(spec, rename), protocol))
    stored, notes = cases.read_checkpoint(path)
    assert stored.spec == spec
    wanted = cases.weights(spec, counters=False)
    assert bits({name: stored.params[name] for name in wanted}) == bits(wanted)
    assert "names: Paddle" in notes


def test_two_networks_of_the_same_names_are_refused(path):
    """SE_ResNeXt152_64x4d has the stem of the networks vd, and no pooling in its shortcuts."""
    spec = replace(SE_VD, blocks=(1, 1, 36), cardinality=1, width=1)
    path.write_bytes(file_of(arrays(spec, se_vd)))
    arguments = "(1, 1, 36), 1, 1, 10, stem='deep', avg_down=True, stem_channels=(64, 64, 128)"
    told = re.escape(f"load_checkpoint(path, arch=Spec({arguments}, se_reduction=16))")
    with pytest.raises(FormatError, match=f"SE_ResNeXt152_64x4d, whose shortcuts do not.*{told}"):
        cases.read_checkpoint(path)
    assert cases.read_checkpoint(path, arch=spec).stored.spec == spec


def test_a_mixture_of_names_is_none(path):
    mixed = arrays() | {"bb_0_0.conv0._batch_norm._mean": np.zeros(32, np.float32)}
    path.write_bytes(file_of(mixed))
    with pytest.raises(FormatError, match="1 of 58 keys are not those of a ResNeXt in the nearest"):
        cases.read_checkpoint(path)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_types_orders_and_few_numbers(path, protocol):
    """Also arrays that are short enough to be kept, and those of Fortran's order."""
    rng = np.random.default_rng(1)
    made = {
        "a.half": rng.standard_normal((30, 40)).astype(np.float16),
        "a.double": rng.standard_normal((30, 40)),
        "a.fortran": np.asfortranarray(rng.standard_normal((30, 40, 2)).astype(np.float32)),
        "a.short": np.arange(3, dtype=np.float32),
        "a.number": np.array(3, np.float32),
        "a.none": np.empty((0, 4), np.float32),
        "a.long": np.arange(700),
        "a.bool": np.arange(1100) % 3 == 0,
        "a.bytes": np.arange(2000).astype(np.uint8),
    }
    path.write_bytes(file_of(made, protocol))
    found = container.read(path).tensors
    for name, array in made.items():
        wanted = array.astype(np.float32) if array.dtype.kind == "f" else array
        assert (found[name].dtype, found[name].shape) == (wanted.dtype, wanted.shape)
        assert np.array_equal(found[name], wanted)


def test_bfloat16_is_kept_as_uint16(path):
    values = np.array([1.0, -2.5, 3e38], np.float32)
    path.write_bytes(file_of({"a.b": (values.view(np.uint32) >> 16).astype(np.uint16)}))
    found = container.read(path).tensors["a.b"]
    assert np.array_equal(found.view(np.uint32), values.view(np.uint32) & 0xFFFF0000)


@pytest.mark.parametrize("protocol", [2, 3])
def test_arrays_in_parts(path, protocol):
    """As Paddle writes arrays over 1 GiB; a part may end within a character of the text."""
    made, name = arrays(), "layer1.0.conv1.weight"
    whole = made.pop(name).reshape(-1)
    parts = {f"{name}@@.{i}": part for i, part in enumerate(np.array_split(whole, 3))}
    told = {name: {"OriginShape": (32, 64, 1, 1), "slices": list(parts)}}
    path.write_bytes(pickle.dumps({**made, **parts, PARTS: told}, protocol))
    stored, _ = cases.read_checkpoint(path)
    assert np.array_equal(stored.params[name].reshape(-1), whole)
    for wrong in (
        {"OriginShape": (32, 65, 1, 1), "slices": list(parts)},
        {"OriginShape": (32, 64, 1, 1), "slices": list(parts)[:2]},
        {"OriginShape": (32, 64) + (1,) * 20, "slices": list(parts)},
        {"OriginShape": ("x" * 1000,), "slices": list(parts)},
        {"OriginShape": (32, 64, 1, 1), "slices": [*parts, "fc.weight"]},
        {"OriginShape": (32, 64, 1, 1), "slices": "fc.bias"},
        {"slices": list(parts)},
        3,
    ):
        told = {name: wrong}
        path.write_bytes(pickle.dumps({**made, **parts, PARTS: told}, protocol))
        with pytest.raises(FormatError, match=r"layer1\.0\.conv1"):
            container.read(path)


def test_inside_of_a_dictionary(path):
    """There a tensor is a tuple of its name in the program and the array; what is beside is not."""
    state = {name: Tuple((f"p.{i}", array)) for i, (name, array) in enumerate(arrays().items())}
    whole = {"epoch": 3, "state_dict": state, "opt": {"lr": 0.1, "moment": {"m": np.ones(5)}}}
    path.write_bytes(pickle.dumps(whole))
    stored, notes = cases.read_checkpoint(path)
    assert (stored.spec, notes[0]) == (TINY, "paddle format, weights under 'state_dict'")
    path.write_bytes(pickle.dumps({"a": state, "b": {"c": state}}))
    assert container.read(path, key="b.c").wrapper == "b.c"


class Tuple(tuple):
    """A tuple that is pickled as a call of ``tuple``."""

    def __reduce__(self):
        return tuple, (tuple.__new__(tuple, self),)


# -- refused

WORDS = {
    "cut": (lambda data: data[:-20], FormatError, "cut short"),
    "longer": (lambda data: data + b"x", UnsafeError, "continues behind the end"),
    "big-endian": (
        lambda data: data.replace(b"\x8c\x01<", b"\x8c\x01>"),
        FormatError,
        "an array of NumPy",
    ),
    "not-a-dict": (lambda data: pickle.dumps([np.ones(3)]), FormatError, "did not write"),
    "objects": (
        lambda data: file_of({"a.b": np.array([{}, 1])}),
        FormatError,
        "is an array of NumPy",
    ),
    "complex": (
        lambda data: file_of({"a.b": np.ones(9, np.complex64)}),
        FormatError,
        "is an array",
    ),
    "record": (
        lambda data: file_of({"a.b": np.ones(9, [("x", "<f4")])}),
        FormatError,
        "is an array of NumPy",
    ),
    "code": (
        lambda data: pickled({"a.b": Raw(call("os", "system", text("true")))}),
        UnsafeError,
        "os.system",
    ),
    "loader": (
        lambda data: pickled({"a.b": Raw(call("numpy", "load", text("x.npy")))}),
        UnsafeError,
        "numpy.load",
    ),
    "memmap": (
        lambda data: pickled({"a.b": Raw(call("numpy", "memmap", text("/etc/passwd")))}),
        UnsafeError,
        "numpy.memmap",
    ),
    "nan": (
        lambda data: file_of(arrays() | {"fc.bias": np.full(10, np.nan)}),
        IntegrityError,
        "NaN",
    ),
}


@pytest.mark.parametrize("case", WORDS)
def test_refused(path, case):
    change, error, says = WORDS[case]
    path.write_bytes(change(file_of(arrays())))
    with watching() as events, pytest.raises(error, match=says):
        cases.read_checkpoint(path)
    assert [event for event in events if event[0] == "open"] == [("open", str(path))]
    assert {kind for kind, _ in events} <= {"open"}


def test_tuples_in_tuples_are_not_written_out(path):
    """They are deeper than a message could be."""
    deep = b"N" + b"\x85" * 5000
    whole = pickle.dumps({"a@@.0": np.ones(3, np.float32), PARTS: {"a": {"slices": ["a@@.0"]}}}, 2)
    entry = b"}(X\x0b\0\0\0OriginShape" + deep + b"\x85X\x06\0\0\0slices](X\5\0\0\0a@@.0eu"
    array = pickle.dumps(np.ones(3, np.float32), 2)[2:-1]
    told = b"\x80\2}(X\5\0\0\0a@@.0" + array + text(PARTS) + b"}" + text("a") + entry + b"su."
    assert pickle.loads(told.replace(deep, b"N")).keys() == pickle.loads(whole).keys()
    version = array.replace(b"(K\x01K\x03", b"(" + deep + b"K\x03")
    assert version != array
    for data in (told, b"\x80\2}" + text("a.b") + version + b"s."):
        path.write_bytes(data)
        with pytest.raises(FormatError, match=r"'a' has no shape|another version than 1") as caught:
            container.read(path)
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize("protocol", [2, 4])
def test_sizes_that_lie(path, protocol):
    """A shape says how many bytes there must be, before any is read."""
    data = pickle.dumps({"a.b": np.ones((40, 30), np.float32), "c.d": np.ones(3)}, protocol)
    sides = pickle.dumps((40, 30), protocol)[-6 : -1 - (protocol > 3)]
    assert data.count(b"K\x28K\x1e") == 1, sides
    for other in (b"K\x28K\x1f", b"K\x28K\0", b"K\x28M\xff\xff", b"K\x28J\xff\xff\xff\xff"):
        changed = data.replace(b"K\x28K\x1e", other)
        if protocol == 4:  # the frame is longer
            size = struct.pack("<Q", len(changed) - 11)
            changed = changed[:3] + size + changed[11:]
        path.write_bytes(changed)
        with pytest.raises(WeightsError):
            container.read(path)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_memory(path, protocol):
    """Refused for its last number, with less memory than the file has."""
    made = {"a.b": np.ones(2_500_000, np.float32), "z.z": np.array([1e300])}
    path.write_bytes(file_of(made, protocol))
    tracemalloc.start()
    try:
        with pytest.raises(IntegrityError, match=r"z\.z has doubles beyond float32's range"):
            container.read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20 < path.stat().st_size


# -- mutations


class Array:
    """What NumPy would make of the parts of an array, and of a dtype."""

    def __init__(self, *arguments):
        self.name, self.state = arguments[0] if arguments else None, ()

    def __setstate__(self, state):
        self.state = state

    def numbers(self):
        _, shape, dtype, fortran, data = self.state
        data = data.encode("latin-1") if isinstance(data, str) else data
        return np.frombuffer(data, dtype.name).reshape(shape, order="F" if fortran else "C")


class Restricted(pickle.Unpickler):
    """Python's own unpickler with the names that arrays have, and no others."""

    def find_class(self, module, name):
        return {"encode": lambda text, how: text.encode(how)}.get(name, Array)


def literally(data, names):
    """Return arrays as NumPy would read them."""
    top = Restricted(io.BytesIO(data)).load()
    return {name: top[name].numbers() for name in names}


SMALL = {
    "a.weight": np.arange(600, dtype=np.float32).reshape(20, 30),
    "b": np.ones(3),
    "c.n": np.arange(4),
}


@pytest.mark.parametrize("count", [300, pytest.param(3400, marks=pytest.mark.slow, id="3400")])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_mutated(path, protocol, count):
    """A typed error, or the arrays that NumPy reads in the same bytes."""
    read = 0
    for changed, found in accepted(path, mutations(file_of(SMALL, protocol), count, seed=protocol)):
        read += 1
        wanted = literally(changed, found.tensors)
        for name, array in found.tensors.items():
            other = wanted[name]
            if other.dtype == np.uint16:
                other = (other.astype(np.uint32) << 16).view(np.float32)
            elif other.dtype.kind == "f":
                with np.errstate(over="ignore", invalid="ignore"):
                    other = other.astype(np.float32)
            assert array.shape == other.shape
            assert np.array_equal(array, other, equal_nan=other.dtype.kind == "f")
    assert 0 < read < count


def test_truncated(path):
    """At every third byte."""
    data = file_of({"a.weight": SMALL["a.weight"][:2]})
    for length in range(0, len(data), 3):
        path.write_bytes(data[:length])
        with pytest.raises(WeightsError):
            container.read(path)


def test_a_name_that_only_looks_like_an_array(path):
    """The names are those of arrays, and the arguments are not."""
    for code in (
        call("numpy._core.multiarray", "_reconstruct", glob("builtins", "list")),
        call("numpy", "dtype", text("f4")),
        call("_codecs", "encode", text("x"), text("rot13")),
        call("builtins", "tuple", text("ab")),
    ):
        path.write_bytes(pickled({"a.b": Raw(code), "c.d": 1}))
        with pytest.raises(FormatError):
            container.read(path)
