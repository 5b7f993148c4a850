"""Good checkpoints, in both formats: every tensor comes out as it was meant."""

from __future__ import annotations

import os
import pickle
import struct
import sys
import tracemalloc
import types
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
from audit import watching
from torch_files import (
    Raw,
    Storage,
    View,
    Zip,
    bfloat16_bits,
    call,
    glob,
    legacy_file,
    marked,
    numbers,
    small_state,
    tensor,
    text,
    zip_entries,
    zip_file,
)

from tinyresnext.checkpoints.readers.container import read as read_file
from tinyresnext.errors import FormatError, UnsafeError, UsageError

CONTAINERS = {"legacy": legacy_file, "zip": zip_file}


@pytest.fixture(params=list(CONTAINERS))
def container(request):
    return request.param


@pytest.fixture
def read(tmp_path, container):
    """Write a value in one of the formats and read it back."""

    def go(value, **options):
        path = tmp_path / "model.pth"
        path.write_bytes(CONTAINERS[container](value))
        return read_file(path, **options)

    return go


def same(found, expected):
    """Equal names in equal order, types, shapes and bits."""
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        assert found[name].shape == array.shape, name
        assert found[name].tobytes() == array.tobytes(), name
        assert found[name].flags.c_contiguous, name
        assert found[name].flags.writeable, name


def plain(state):
    """What the simple tensors of a state dict hold."""
    return {name: view.storage.values.reshape(view.size) for name, view in state.items()}


def test_state_dict(read, container):
    found = read(small_state())
    same(found.tensors, plain(small_state()))
    assert found.tensors["bn1.num_batches_tracked"] == 7
    assert (found.container, found.wrapper, found.others, found.prefix, found.skipped) == (
        container,
        "",
        (),
        "",
        (),
    )


@pytest.mark.parametrize("dtype", ["float32", "int64", "int32", "int16", "int8", "uint8", "bool"])
def test_types_kept(read, dtype):
    array = (numbers((3, 5)) * 50).astype(dtype)
    same(read({"w": tensor(array)}).tensors, {"w": array})


def test_half_widens_exactly(read):
    """Read all 65,536 values, denormals, infinities and NaNs too, against Python's ``struct``."""
    raw = np.arange(1 << 16, dtype=np.uint16)
    found = read({"w": tensor(raw.view(np.float16))}).tensors["w"]
    assert found.dtype == np.float32
    for value, expected in zip(
        found.tolist(), struct.unpack("<65536e", raw.tobytes()), strict=True
    ):
        assert value == expected or (value != value and expected != expected)


def test_bfloat16_widens_exactly(read):
    """All 65,536 values: a bfloat16 is the upper half of a float32."""
    bits = np.arange(1 << 16, dtype=np.uint16)
    found = read({"w": tensor(bits, kind="BFloat16")}).tensors["w"]
    assert found.dtype == np.float32
    assert np.array_equal(found.view(np.uint32), bits.astype(np.uint32) << 16)
    assert found[bfloat16_bits(np.float32(1.5))[()]] == 1.5


def test_double_is_rounded_to_the_nearest(read):
    tie = 1 + 2.0**-24  # halfway between 1 and the next float32: to even, 1
    array = np.array([0.1, tie, tie + 2.0**-50, 1e-46, -0.0, np.inf, np.nan, 3.4028235e38])
    expected = np.array(
        [np.float32("0.1"), 1, 1 + 2.0**-23, 0, -0.0, np.inf, np.nan, np.finfo(np.float32).max],
        np.float32,
    )
    same(read({"w": tensor(array)}).tensors, {"w": expected})


def test_bool_is_zero_or_not(read):
    found = read({"w": tensor(np.array([0, 1, 2, 255], np.uint8), kind="Bool")}).tensors["w"]
    assert found.tolist() == [False, True, True, True]


@pytest.mark.parametrize("module", ["torch", "torch.cuda"])
@pytest.mark.parametrize("location", ["cpu", "cuda:0", "cuda:7", "mps", "meta"])
def test_location_does_not_matter(read, module, location):
    array = numbers((2, 3))
    same(read({"w": tensor(array, module=module, location=location)}).tensors, {"w": array})


def test_parameters(read):
    array = numbers((2, 3))
    same(read({"w": tensor(array, parameter=True)}).tensors, {"w": array})


def test_old_rebuild_function(tmp_path):
    """Files of 2017 call ``_rebuild_tensor`` with four arguments."""
    pid = marked(
        text("storage"), glob("torch.cuda", "FloatStorage"), text("0"), text("cuda:0"), b"K\4"
    )
    code = call(
        "torch._utils", "_rebuild_tensor", pid + b"Q", b"K\1", marked(b"K\3"), marked(b"K\1")
    )
    path = tmp_path / "old.pth"
    path.write_bytes(Zip(zip_entries({"a": tensor(numbers(4)), "b": Raw(code)})).build())
    same(read_file(path).tensors, {"a": numbers(4), "b": numbers(4)[1:]})


def test_scalars_and_empty_tensors(read):
    values = {
        "s": np.float32(3).reshape(()),
        "e": np.empty(0, np.float32),
        "f": np.empty((2, 0, 3), np.int32),
    }
    same(read({name: tensor(array) for name, array in values.items()}).tensors, values)


def test_non_contiguous(read):
    """Transposed, cut out, every second, channels last, and one side with a meaningless stride."""
    base = numbers((4, 6, 2))
    store = Storage(base.reshape(-1), "Float")
    views = {
        "transposed": (View(store, 0, (2, 6, 4), (1, 2, 12)), base.transpose(2, 1, 0)),
        "cut": (View(store, 12 + 2, (2, 3, 2), (12, 2, 1)), base[1:3, 1:4]),
        "second": (View(store, 1, (4, 3), (12, 4)), base[:, ::2, 1]),
        "one": (View(store, 47, (1, 1), ((1 << 62) - 1, 7)), base[3:, 5, 1:]),
        "expanded": (
            View(store, 5, (3, 2), (0, 1)),
            np.broadcast_to(base.reshape(-1)[5:7], (3, 2)),
        ),
        "overlapping": (
            View(store, 0, (3, 3), (1, 1)),
            np.array([base.reshape(-1)[i : i + 3] for i in range(3)]),
        ),
    }
    found = read({name: view for name, (view, _) in views.items()})
    same(found.tensors, {name: np.ascontiguousarray(array) for name, (_, array) in views.items()})


def test_a_part_of_a_storage_does_not_keep_the_whole(read):
    """Some files store one small tensor as a view of a large one."""
    array = numbers(1000)
    found = read({"w": View(Storage(array, "Float"), 10, (3, 2), (2, 1))}).tensors["w"]
    assert np.array_equal(found, array[10:16].reshape(3, 2))
    assert found.base is None or found.base.nbytes == found.nbytes


def test_channels_last_convolution(read):
    array = numbers((4, 3, 2, 2))
    stored = np.ascontiguousarray(array.transpose(0, 2, 3, 1))
    view = View(Storage(stored.reshape(-1), "Float"), 0, array.shape, (12, 1, 6, 3))
    same(read({"w": view}).tensors, {"w": array})


def test_tensors_that_share_a_storage_come_out_independent(read):
    array = numbers((3, 4))
    store = Storage(array.reshape(-1), "Float")
    whole, half = View(store, 0, (3, 4), (4, 1)), View(store, 4, (2, 4), (4, 1))
    found = read({"a": whole, "b": whole, "c": half}).tensors
    same(found, {"a": array, "b": array, "c": array[1:]})
    found["a"][:] = 0
    same(found, {"a": np.zeros_like(array), "b": array, "c": array[1:]})


def test_many_storages_keep_the_order_of_the_names(read):
    """Legacy files sort storages by key as text ("10" before "2"); names keep the dict's order."""
    state = {f"layer.{i}": tensor(numbers(3, i)) for i in (5, 3, 11, 0, 9, 10, 2, 1, 12, 4)}
    same(read(state).tensors, plain(state))


TRAINING = {
    "optimizer": {
        "state": {0: {"momentum_buffer": tensor(numbers(3, 9))}},
        "param_groups": [{"lr": 0.1, "params": [0, 1]}],
    },
    "lr_scheduler": {
        "milestones": Raw(call("collections", "Counter", b"}K\x1eK\x01s")),
        "last_epoch": 3,
    },
    "epoch": 3,
    "best": tensor(np.array(0.77, np.float32)),
    "args": Raw(
        glob("argparse", "Namespace")
        + b")\x81}"
        + text("device")
        + call("torch", "device", text("cuda"))
        + b"sb"
    ),
}


@pytest.mark.parametrize(
    "wrapper", ["state_dict", "model", "state_dict_ema", "model_ema", "ema_state_dict"]
)
def test_wrapped_by_a_training_script(read, wrapper):
    found = read({**TRAINING, wrapper: small_state()})
    same(found.tensors, plain(small_state()))
    assert (found.wrapper, found.others, found.skipped) == (wrapper, (), ())


def test_plain_weights_or_their_average(read):
    average = {
        f"module.{name}": tensor(array * 0 + 1) for name, array in plain(small_state()).items()
    }
    value = {
        "model": small_state(),
        "model_ema": {"n_averaged": tensor(np.array(5)), **average},
        **TRAINING,
    }
    found = read(value)
    same(found.tensors, plain(small_state()))
    assert (found.wrapper, found.others, found.prefix) == ("model", ("model_ema",), "")
    found = read(value, ema=True)
    assert list(found.tensors) == list(small_state())
    assert all((array == 1).all() for array in found.tensors.values())
    assert (found.wrapper, found.others, found.prefix, found.skipped) == (
        "model_ema",
        ("model",),
        "module.",
        ("n_averaged",),
    )


def test_average_that_is_not_there(read):
    with pytest.raises(UsageError, match="no averaged weights"):
        read({"state_dict": small_state()}, ema=True)


@pytest.mark.parametrize(
    "prefix", ["module.", "module.module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."]
)
def test_prefixes(read, prefix):
    found = read(OrderedDict((prefix + name, view) for name, view in small_state().items()))
    same(found.tensors, plain(small_state()))
    assert found.prefix == prefix


def test_prefix_of_some_names_only_stays(read):
    state = {
        "module.a": tensor(numbers(2)),
        "b.module.c": tensor(numbers(2)),
        "modules.d": tensor(numbers(2)),
    }
    found = read(state)
    assert (list(found.tensors), found.prefix) == (list(state), "")


def test_entries_that_are_no_tensors_are_named(read):
    extra = {"epoch": 3, "arch": "resnext50", "lr": 0.1, "done": True, "note": None}
    found = read({**small_state(), **extra})
    same(found.tensors, plain(small_state()))
    assert found.skipped == tuple(extra)


@pytest.mark.parametrize("protocol", [4, 5])
def test_newer_pickle_protocols(tmp_path, protocol):
    """``torch.save(..., pickle_protocol=5)`` uses frames, MEMOIZE and STACK_GLOBAL."""
    array = numbers((2, 3))

    def word(value):
        return b"\x8c" + bytes([len(value)]) + value.encode() + b"\x94"

    def name(*words):
        return b"".join(map(word, words)) + b"\x93\x94"

    pid = (
        marked(word("storage"), name("torch", "FloatStorage"), word("0"), word("cpu"), b"K\x06")
        + b"\x94Q"
    )
    hooks = name("collections", "OrderedDict") + b")R\x94"
    arguments = marked(pid, b"K\0", b"K\2K\3\x86\x94", b"K\3K\1\x86\x94", b"\x89", hooks) + b"\x94"
    body = (
        b"}\x94" + word("x") + name("torch._utils", "_rebuild_tensor_v2") + arguments + b"R\x94s."
    )
    framed = bytes([0x80, protocol, 0x95]) + struct.pack("<Q", len(body)) + body
    path = tmp_path / "model.pth"
    path.write_bytes(Zip(zip_entries({"x": tensor(array)}, pickle=framed)).build())
    same(read_file(path).tensors, {"x": array})


# -- the zip container's variants


def test_zip_without_zip64_records_or_descriptors(tmp_path):
    """As other tools write it: sizes in the local header, Unix attributes, no zip64, other root."""
    entries = [
        replace(e, flags=0, made_by=0x0314, attributes=0o100644 << 16)
        for e in zip_entries(small_state(), root="archive")
    ]
    path = tmp_path / "model.pth"
    path.write_bytes(Zip(entries, zip64=False).build())
    same(read_file(path).tensors, plain(small_state()))


def test_zip_with_64_bit_sizes(tmp_path):
    """Sizes and offsets may stand in the zip64 block even where 32 bits suffice."""
    entries = zip_entries(small_state())
    headers = {}
    for at in range(0, len(Zip(entries).build())):
        if Zip(entries).build()[at : at + 4] == b"PK\3\4":
            headers[len(headers)] = at
    full = 0xFFFFFFFF
    wide = [
        replace(
            e,
            size=full,
            packed=full,
            header=full,
            extra=struct.pack("<2H3Q", 1, 24, len(e.data), len(e.data), headers[i]),
        )
        for i, e in enumerate(entries)
    ]
    built = bytearray(Zip(wide).build())
    for e, (_, at) in zip(
        entries, headers.items(), strict=True
    ):  # the descriptors keep the true 32-bit sizes
        start = built.index(b"PK\7\x08", at)
        built[start + 8 : start + 16] = struct.pack("<2I", len(e.data), len(e.data))
    path = tmp_path / "model.pth"
    path.write_bytes(built)
    same(read_file(path).tensors, plain(small_state()))


@pytest.mark.parametrize("byteorder", [True, False])
def test_zip_of_older_versions(tmp_path, byteorder):
    """PyTorch before 2.1 wrote no byteorder; before 1.6 nothing but data.pkl, data and version."""
    old = [
        e
        for e in zip_entries(small_state())
        if "/." not in e.name and (byteorder or "byteorder" not in e.name)
    ]
    path = tmp_path / "model.pth"
    path.write_bytes(Zip(old).build())
    same(read_file(path).tensors, plain(small_state()))


# -- paths


def test_path_may_be_text_or_path_or_bytes(tmp_path):
    path = tmp_path / "any.name"
    path.write_bytes(zip_file(small_state()))
    for form in (path, str(path), os.fsencode(path)):
        same(read_file(form).tensors, plain(small_state()))


def test_the_file_is_opened_once_and_nothing_else_happens(tmp_path, container):
    path = tmp_path / "model.pth"
    path.write_bytes(CONTAINERS[container]({"state_dict": small_state(), **TRAINING}))
    with watching() as events:
        read_file(path)
    assert events == [("open", str(path))]


def test_missing_directory_and_strange_paths(tmp_path):
    for path in (
        tmp_path / "missing.pth",
        tmp_path,
        tmp_path / "a\0b",
        "",
        tmp_path / ("x" * 5000),
    ):
        with pytest.raises(FormatError, match=r"cannot be read|is a directory"):
            read_file(path)
    for path in (None, 7, 3.5, object()):
        with pytest.raises(UsageError, match="path"):
            read_file(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="is a pipe, a device or a socket"):
        read_file(tmp_path / "pipe")


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="this system has no such devices")
@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/random"])
def test_devices_are_refused(device):
    with pytest.raises(FormatError, match="is a pipe, a device or a socket"):
        read_file(device)


@pytest.fixture
def trainer(monkeypatch):
    """Make the classes of a training framework while a test writes; reading does without them."""
    module = types.ModuleType("mmengine.logging.history_buffer")

    class HistoryBuffer:
        """A loss over time; like the real one, it is saved with the methods that summarise it."""

        def __init__(self):
            self.log, self.methods = np.arange(5.0), OrderedDict(mean=HistoryBuffer.mean)

        def mean(self):
            raise AssertionError("the reader ran a method")

        def __setstate__(self, state):
            raise AssertionError("the reader ran a method")

    class ConfigDict(dict):
        """A dict with a class of its own."""

    for cls in (HistoryBuffer, ConfigDict):
        cls.__module__, cls.__qualname__ = module.__name__, cls.__name__
        setattr(module, cls.__name__, cls)
    HistoryBuffer.mean.__module__, HistoryBuffer.mean.__qualname__ = (
        module.__name__,
        "HistoryBuffer.mean",
    )
    for name in ("mmengine", "mmengine.logging", module.__name__):
        monkeypatch.setitem(
            sys.modules, name, module if name == module.__name__ else types.ModuleType(name)
        )
    return module


def opcodes(value):
    """Return what Python writes for a value, as it would stand inside a checkpoint."""
    return Raw(pickle.dumps(value, 2)[2:-1])


def test_a_trainers_own_classes_are_neither_imported_nor_in_the_way(read, trainer, monkeypatch):
    """A training checkpoint of mmengine: histories and options beside two sets of weights."""
    beside = {
        "log_scalars": OrderedDict(loss=trainer.HistoryBuffer()),
        "runtime_info": {"cfg": trainer.ConfigDict(lr=[1, {}])},
    }
    top = {
        "meta": {"epoch": 100, "dataset_meta": {"classes": ("tench", "goldfish")}, "seed": None},
        "state_dict": small_state(),
        "message_hub": opcodes(beside),
        "ema_state_dict": {f"module.{key}": value for key, value in small_state().items()}
        | {"steps": tensor(np.array(9))},
    }
    monkeypatch.delitem(sys.modules, trainer.__name__)
    with watching() as events:
        found = read(top)
    assert {event[0] for event in events} <= {"open"}
    assert trainer.__name__ not in sys.modules
    same(found.tensors, plain(small_state()))
    assert (found.wrapper, found.others) == ("state_dict", ("ema_state_dict",))
    averaged = read(top, ema=True)
    same(averaged.tensors, plain(small_state()))
    assert (averaged.prefix, averaged.skipped) == ("module.", ("steps",))


@pytest.mark.parametrize("place", ["extra", "state_dict"])
def test_a_trainers_own_class_among_the_tensors_is_refused(read, trainer, place):
    value = opcodes(trainer.HistoryBuffer())
    with pytest.raises((UnsafeError, FormatError)) as caught:
        read({**small_state(), "extra": value} if place == "extra" else {"state_dict": value})
    if place == "extra":
        assert (
            "extra is an object of the class mmengine.logging.history_buffer.HistoryBuffer"
            in str(caught.value)
        )


@pytest.mark.parametrize("bytes_of_weights", [60 << 20, 0])
def test_long_histories_are_passed_over(tmp_path, bytes_of_weights):
    """Half a million losses, twice 6 MB of text, beside weights of any size."""
    history = np.random.default_rng(1).random(500_000)
    state = {"w": tensor(np.zeros(max(bytes_of_weights, 4) // 4, np.float32))}
    path = tmp_path / "model.pth"
    path.write_bytes(
        zip_file(
            {"state_dict": state, "message_hub": opcodes({"loss": history, "lr": history + 1})}
        )
    )
    tracemalloc.start()
    try:
        assert list(read_file(path).tensors) == ["w"]
        assert tracemalloc.get_traced_memory()[1] < path.stat().st_size + (64 << 20)
    finally:
        tracemalloc.stop()


def test_the_bytes_of_an_array_are_no_text(read):
    """What was passed over can be nothing else: neither a name nor a value among the tensors."""
    encoded = glob("_codecs", "encode") + text("fc.bias") + b"q\x07" + text("latin1") + b"\x86R"
    assert list(read({"state_dict": small_state(), "history": Raw(encoded)}).tensors) == list(
        small_state()
    )
    again = read({"state_dict": small_state(), "history": Raw(encoded), "x": Raw(b"}h\x07Ns")})
    assert list(again.tensors) == list(small_state())
