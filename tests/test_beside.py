"""What training scripts keep beside the weights never ends the reading, whatever it is."""

from __future__ import annotations

import argparse
import collections
import datetime
import decimal
import enum
import fractions
import functools
import io
import pathlib
import pickle
import random
import re
import types
import typing
import uuid

import numpy as np
import pytest
from audit import watching
from torch_files import (
    Raw,
    Storage,
    View,
    call,
    glob,
    integer,
    legacy_file,
    marked,
    numbers,
    small_state,
    tensor,
    text,
    zip_file,
)

from tinyresnext.checkpoints.readers.container import read
from tinyresnext.errors import FormatError, UnsafeError, WeightsError

WRITERS = {"legacy": legacy_file, "zip": zip_file}


class Colour(enum.Enum):
    RED = 1


class Config(dict):
    def __init__(self, **more):
        super().__init__(more)
        self.note = Colour.RED


class Made:
    def __new__(cls, *, width):
        return object.__new__(cls)

    def __getnewargs_ex__(self):
        return (), {"width": 1}

    def step(self):
        """Do nothing."""


KEPT = {
    "paths": [pathlib.PurePosixPath("/runs/1"), pathlib.PureWindowsPath("C:/x")],
    "times": [datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), datetime.timedelta(3)],
    "containers": [collections.deque([1], 3), {1}, frozenset([2]), collections.Counter("ab")],
    "dicts": [collections.defaultdict(list, a=[1]), collections.ChainMap({}), Config(a=1)],
    "numbers": [1j, range(3), decimal.Decimal("0.1"), fractions.Fraction(1, 3), 2**3000, -(2**70)],
    "functions": [functools.partial(int, base=2), max, np.mean, Made.step, "a".upper],
    "methods": [Made(width=1).step, [1].append, Config.fromkeys],
    "classes": [int, type(None), Config, np.float32, collections.OrderedDict, Ellipsis],
    "types": [dict[str, int], typing.Any, int | None],
    "objects": [argparse.Namespace(a=1), types.SimpleNamespace(b=2), Made(width=1), Colour.RED],
    "others": [uuid.UUID(int=1), re.compile("a"), ValueError("b"), slice(1, 2)],
    "random": [random.Random(1), random.getstate()],
    "generators": [np.random.RandomState(1), np.random.default_rng(1)],
    "arrays": [np.float64(0.5), np.arange(20_000), np.array(["a"]), np.dtype("f4")],
    "buffers": [io.BytesIO(b"c"), bytearray(b"d")] ,
    "keys": {None: 1, 0.5: 2, (1, (2, 3)): 3, Config: 4, True: 5, Colour.RED: 6, b"g": 7},
    "bytes": [b"\xff" * 100_000, "\u20ac" * 100_000],
}  # fmt: skip


def opcodes(value, protocol):
    """What Python writes for a value, without the header and the STOP."""
    code = pickle.dumps(value, max(protocol, 2) if value is KEPT["buffers"] else protocol)
    protocol = code[1] if code[:1] == b"\x80" else protocol
    return Raw(code[2:-1] if protocol in (2, 3) else code[:-1])


@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.parametrize("protocol", [0, 1, 2, 3])
@pytest.mark.parametrize("container", WRITERS)
def test_it_is_passed_over(tmp_path, container, protocol, kept):
    """Nothing is imported or run."""
    (tmp_path / "in.pth").write_bytes(
        WRITERS[container]({"state_dict": small_state(), kept: opcodes(KEPT[kept], protocol)})
    )
    with watching() as events:
        assert list(read(tmp_path / "in.pth").tensors) == list(small_state())
    assert {event for event, _ in events} <= {"open"}


OTHER = {
    "torch.float32": glob("torch", "float32"),
    "loss": glob("torch.nn.modules.loss", "CrossEntropyLoss") + b")\x81}" + text("weight") + b"Nsb",
    "schedule": call("__builtin__", "getattr", glob("torch.optim.lr_scheduler", "OneCycleLR"),
                     text("_annealing_cos")),
    "omegaconf": glob("omegaconf.dictconfig", "DictConfig") + b")\x81}" + text("_content")
    + glob("typing", "Any") + b"sb",
    "main": glob("__main__", "Args") + b")\x81}" + text("lr") + b"K\1sb",
    "old": b"(i__main__\nArgs\n}" + text("lr") + b"K\1sb",
    "layout": call("torch.serialization", "_get_layout", text("torch.strided")),
    "generator": call("torch._C", "Generator"),
    "metadata": call("collections", "OrderedDict") + b"}" + text("_shape") + b"Nsb",
}  # fmt: skip
STORE = Storage(numbers(8), "ComplexFloat")
OTHER_TENSORS = {
    "complex": View(STORE, 0, (2, 2), (2, 1)),
    "quantised": View(Storage(np.zeros(4, np.int8), "QInt8"), 0, (4,), (1,)),
    "storage": View(Storage(np.zeros(4, np.uint8), "Untyped", "torch.storage"), 0, (4,), (1,)),
}


@pytest.mark.parametrize("name", OTHER)
@pytest.mark.parametrize("container", WRITERS)
def test_objects_of_pytorch_and_others(tmp_path, container, name):
    beside = {"state_dict": small_state(), "beside": [Raw(OTHER[name])]}
    (tmp_path / "in.pth").write_bytes(WRITERS[container](beside))
    assert list(read(tmp_path / "in.pth").tensors) == list(small_state())


def stored(view):
    """The same storage, with as many elements as its numbers have there (a complex one has two)."""
    if view.storage.kind == "ComplexFloat":
        halves = view.storage.values.view(np.complex64)
        return View(Storage(halves, "ComplexFloat"), view.offset, view.size, view.stride)
    return view


@pytest.mark.parametrize("name", OTHER_TENSORS)
@pytest.mark.parametrize("container", WRITERS)
def test_tensors_that_are_not_read(tmp_path, container, name):
    """Beside the weights they are passed over, and among them refused by their kind."""
    view = stored(OTHER_TENSORS[name])
    (tmp_path / "in.pth").write_bytes(
        WRITERS[container]({"state_dict": small_state(), "beside": {"x.weight": view}})
    )
    assert list(read(tmp_path / "in.pth").tensors) == list(small_state())
    (tmp_path / "in.pth").write_bytes(
        WRITERS[container]({"state_dict": {**small_state(), "x.weight": view}})
    )
    words = "quantised" if name == "quantised" else "kind that is not read"
    with pytest.raises(FormatError, match=f"x.weight is a tensor of .*{words}"):
        read(tmp_path / "in.pth")


HOOKS = call("collections", "OrderedDict")
FOUR = marked(text("storage"), glob("torch", "FloatStorage"), text("0"), text("cpu"), b"K\4") + b"Q"
PLAIN = marked(FOUR, b"K\0", marked(b"K\4"), marked(b"K\1"), b"\x89", HOOKS)
TENSOR = glob("torch._utils", "_rebuild_tensor_v2") + PLAIN + b"R"
WRAPPED = {
    "attributes": call(
        "torch._utils", "_rebuild_parameter_with_state", TENSOR, b"\x88", HOOKS,
        b"}" + text("note") + b"K\1s",
    ),
    "type": call(
        "torch._tensor", "_rebuild_from_type_v2", glob("torch._utils", "_rebuild_tensor_v2"),
        glob("torch.nn.parameter", "Parameter"), PLAIN, b"}" + text("note") + b"K\1s",
    ),
    "parameter": call("torch.nn.parameter", "Parameter", TENSOR, b"\x88"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRAPPED)
def test_other_wrappings_of_a_tensor(tmp_path, name):
    state = {"a.weight": tensor(numbers(4)), "b.weight": Raw(WRAPPED[name])}
    (tmp_path / "in.pth").write_bytes(zip_file(state))
    found = read(tmp_path / "in.pth").tensors
    assert np.array_equal(found["b.weight"], numbers(4))


def test_the_numbers_of_another_class_may_mean_anything(tmp_path):
    code = call(
        "torch._tensor", "_rebuild_from_type_v2", glob("torch._utils", "_rebuild_tensor_v2"),
        glob("trainer", "Quantised"), PLAIN, b"}",
    )  # fmt: skip
    state = {"a.weight": tensor(numbers(4)), "b.weight": Raw(code)}
    (tmp_path / "in.pth").write_bytes(zip_file(state))
    with pytest.raises(UnsafeError, match=r"trainer\.Quantised"):
        read(tmp_path / "in.pth")


@pytest.mark.parametrize("container", WRITERS)
@pytest.mark.parametrize(
    "code",
    {
        "called": call("os", "system", text("true")),
        "named": glob("builtins", "eval"),
        "reached": glob("pathlib", "os.system"),
        "in_partial": call("functools", "partial", glob("subprocess", "Popen")),
        "in_list": b"](" + integer(1) + glob("posix", "system") + b"e",
        "old": b"(" + text("true") + b"ios\nsystem\n",
        "attribute": call("builtins", "getattr", glob("trainer", "os"), text("__globals__")),
        "base": call("copy_reg", "_reconstructor", glob("subprocess", "Popen"), b"N", b"N"),
        "key": b"}" + glob("os", "system") + b"Ns",
    }.items(),
    ids=lambda item: item[0],
)
@pytest.mark.parametrize("place", ["beside", "flat", "deep", "in_state", "top"])
def test_what_runs_code_is_refused_wherever_it_stands(tmp_path, place, code, container):
    harm = Raw(code[1])
    top = {
        "beside": {"state_dict": small_state(), "harm": harm},
        "flat": {**small_state(), "harm": harm},
        "deep": {"state_dict": small_state(), "a": [{"b": [harm]}]},
        "in_state": {"state_dict": {**small_state(), "layer1.harm": harm}},
        "top": harm,
    }[place]
    (tmp_path / "in.pth").write_bytes(WRITERS[container](top))
    with watching() as events, pytest.raises(UnsafeError):
        read(tmp_path / "in.pth")
    assert {event for event, _ in events} <= {"open"}


def test_the_source_code_of_a_module_is_passed_over(tmp_path):
    """The legacy format keeps it beside the class of a loss, or of a whole network."""
    cls = glob("trainer.losses", "Focal")
    source = marked(text("module"), cls, text("/home/me/losses.py"), text("import os\n" * 9000))
    loss = Raw(source + b"Q)\x81}" + text("gamma") + b"K\2sb")
    (tmp_path / "in.pth").write_bytes(legacy_file({"net": small_state(), "loss": loss}))
    with watching() as events:
        assert list(read(tmp_path / "in.pth").tensors) == list(small_state())
    assert {event for event, _ in events} <= {"open"}
    for top in (loss, {"model": loss}):
        (tmp_path / "in.pth").write_bytes(legacy_file(top))
        with pytest.raises(WeightsError, match=r"object of the class trainer\.losses\.Focal"):
            read(tmp_path / "in.pth")
    (tmp_path / "in.pth").write_bytes(zip_file({"net": small_state(), "loss": loss}))
    with pytest.raises(UnsafeError, match="source code"):
        read(tmp_path / "in.pth")


def test_arrays_in_a_pickle_are_named(tmp_path):
    array = Raw(opcodes(np.zeros((2, 2), np.float32), 2).code)
    for top in ({"fc.weight": array}, {"state_dict": {**small_state(), "x.weight": array}}):
        (tmp_path / "in.pth").write_bytes(zip_file(top))
        with pytest.raises(FormatError, match=r"array of NumPy in a form .*numpy\.savez"):
            read(tmp_path / "in.pth")


def old(value):
    """What Python 2 wrote with protocol 2: strings as bytes, and large numbers as text."""
    if isinstance(value, dict):
        return b"}(" + b"".join(old(key) + old(one) for key, one in value.items()) + b"u"
    if isinstance(value, str):
        return b"U" + bytes([len(value)]) + value.encode()
    if isinstance(value, list):
        return b"](" + b"".join(map(old, value)) + b"e"
    return value.code if isinstance(value, Raw) else b"I%d\n" % value


def test_the_imagenet_example_of_python_2(tmp_path):
    """The optimiser's state has the identities of parameters, which are beyond 32 bits."""
    storage = marked(
        b"U\x07storage", glob("torch.cuda", "FloatStorage"), b"U\x010", b"U\x06cuda:0", b"K\4", b"N"
    )
    view = [storage + b"Q", b"K\0", b"K\4\x85", b"K\1\x85"]
    weight = call("torch._utils", "_rebuild_tensor_v2", *view, b"\x89", HOOKS)
    identity = 140_234_567_890_123
    top = {
        "epoch": 90,
        "arch": "resnext50",
        "state_dict": Raw(
            glob("collections", "OrderedDict") + b"](](U\x0bmodule.fc.w" + weight + b"ee\x85R"
        ),
        "optimizer": {
            "state": {identity: {"momentum_buffer": Raw(weight)}},
            "param_groups": [{"params": [identity], "lr": Raw(b"F0.1\n")}],
        },
    }
    data = legacy_file({"a": tensor(numbers(4))})
    start, end = data.index(b"\x80\x02}(X\x01\0\0\0a"), data.index(b"u." + b"\x80\x02](")
    (tmp_path / "old.pth.tar").write_bytes(
        data[:start] + b"\x80\x02" + old(top) + b"." + data[end + 2 :]
    )
    found = read(tmp_path / "old.pth.tar")
    assert (found.wrapper, found.prefix, list(found.tensors)) == ("state_dict", "module.", ["fc.w"])
    assert np.array_equal(found.tensors["fc.w"], numbers(4))


@pytest.mark.parametrize("protocol", [0, 1])
def test_legacy_files_of_the_first_protocols(tmp_path, protocol):
    """``torch.save(..., pickle_protocol=1)``: the first number is text, no pickle has a mark."""
    whole = legacy_file({"a.b": tensor(numbers(4))})
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, protocol)
    version = pickle.dumps(1001, protocol)
    start = whole.index(b"\x80\x02}(X\x10\0\0\0protocol_version")
    (tmp_path / "in.pth").write_bytes(magic + version + whole[start:].replace(b"\x80\x02", b""))
    assert np.array_equal(read(tmp_path / "in.pth").tensors["a.b"], numbers(4))
