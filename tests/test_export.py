"""Writing checkpoints: what other programs read back, equal bytes, and never half a file."""

from __future__ import annotations

import json
import os
import stat
import struct
import zipfile
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
from torch_files import numbers

import tinyresnext as tr
from tinyresnext.checkpoints import carried, export
from tinyresnext.checkpoints.readers import container
from tinyresnext.cli.main import main
from tinyresnext.errors import IntegrityError, ShapeError, UsageError
from tinyresnext.system import writing

WRITERS = {
    "pth": export.write_pth,
    "npz": export.write_npz,
    "safetensors": export.write_safetensors,
}
DTYPES = ["float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"]


@pytest.fixture(params=list(WRITERS))
def write(request):
    return WRITERS[request.param]


def state():
    """Return ranks 0 to 4, all types, an empty array, and arrays that are not contiguous."""
    tensors = {
        "conv1.weight": numbers((4, 3, 3, 3)),
        "bn1.weight": numbers(4, 1),
        "bn1.num_batches_tracked": np.array(7, np.int64),
        "fc.weight": numbers((4, 5), 2).T,
        "fc.every_second": numbers((6, 6), 3)[::2, ::-3],
        "empty": np.empty((2, 0, 3), np.float32),
        "big_endian": numbers(3, 4).astype(">f4"),
    }
    return tensors | {f"type.{name}": (numbers((3, 3), 5) * 50).astype(name) for name in DTYPES}


def same(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].shape == array.shape, name
        assert found[name].dtype == array.dtype.newbyteorder("="), name
        assert np.array_equal(found[name], array), name


def read_safetensors(path):
    """A reader of the format in ten lines; its rules are safetensors' own."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop("__metadata__", None)
    kinds = {"F": "<f", "I": "<i", "U": "<u", "B": "|b"}
    at, tensors = 0, {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        dtype = (
            "?"
            if entry["dtype"] == "BOOL"
            else kinds[entry["dtype"][0]] + str(int(entry["dtype"][1:]) // 8)
        )
        assert begin == at, "no holes, no overlap"
        assert (8 + length + begin) % np.dtype(dtype).itemsize == 0, "aligned"
        tensors[name] = np.frombuffer(data[8 + length + begin : 8 + length + end], dtype).reshape(
            entry["shape"]
        )
        at = end
    assert 8 + length + at == len(data), "nothing behind"
    return tensors, metadata


def test_pth_comes_back(tmp_path):
    export.write_pth(tmp_path / "a.pth", state())
    found = container.read(tmp_path / "a.pth")
    expected = {n: a.astype(np.float32) if a.dtype.kind == "f" else a for n, a in state().items()}
    same(found.tensors, expected)
    assert (found.container, found.wrapper, found.prefix) == ("zip", "", "")


def test_npz_comes_back(tmp_path):
    export.write_npz(tmp_path / "a.npz", state())
    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        same(dict(found), state())


def test_safetensors_come_back(tmp_path):
    export.write_safetensors(
        tmp_path / "a.safetensors", state(), {"format": "pt", "caf\u00e9": "\u00fc"}
    )
    found, metadata = read_safetensors(tmp_path / "a.safetensors")
    same({name: found[name] for name in state()}, state())
    assert metadata == {"format": "pt", "caf\u00e9": "\u00fc"}


def test_safetensors_library(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    export.write_safetensors(tmp_path / "a.safetensors", state())
    found = library.load_file(tmp_path / "a.safetensors")
    same({name: found[name] for name in state()}, state())


@pytest.mark.parametrize("suffix", ["pth", "npz"])
def test_archives_are_sound_and_aligned(tmp_path, suffix):
    """Python's zipfile finds nothing wrong; each member begins at a multiple of 64 bytes."""
    path = tmp_path / "a"
    WRITERS[suffix](path, state())
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        for info in archive.infolist():
            name, extra = struct.unpack_from("<2H", data, info.header_offset + 26)
            assert (info.header_offset + 30 + name + extra) % 64 == 0
            assert info.compress_type == zipfile.ZIP_STORED


def test_torch_loads_it(tmp_path):
    torch = pytest.importorskip("torch")
    export.write_pth(tmp_path / "a.pth", state())
    found = torch.load(tmp_path / "a.pth", weights_only=True)
    assert type(found) is OrderedDict
    same({name: value.numpy() for name, value in found.items()}, state())
    assert all(value.is_contiguous() for value in found.values())


def test_torch_loads_it_into_a_network(tmp_path):
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, groups=1), torch.nn.BatchNorm2d(8), torch.nn.Linear(8, 5)
    )
    torch.save(net.state_dict(), tmp_path / "a.pth")
    export.write_pth(tmp_path / "b.pth", container.read(tmp_path / "a.pth").tensors)
    other = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, groups=1), torch.nn.BatchNorm2d(8), torch.nn.Linear(8, 5)
    )
    other.load_state_dict(torch.load(tmp_path / "b.pth", weights_only=True), strict=True)
    for name, value in net.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])


def test_equal_tensors_equal_bytes(tmp_path, write):
    """In another file, at another time, from arrays laid out otherwise."""
    write(tmp_path / "a", state())
    write(tmp_path / "b", {name: np.array(array, order="F") for name, array in state().items()})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_empty_state(tmp_path, write):
    write(tmp_path / "a", {})
    assert (tmp_path / "a").stat().st_size > 0


@pytest.mark.parametrize("name", ["", "a/b", "../a", "a\\b", "w\u00e9ight", "a\nb", 3, None])
def test_bad_names(tmp_path, write, name):
    with pytest.raises(UsageError, match="name"):
        write(tmp_path / "a", {name: numbers(2)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "value",
    [
        [1.0],
        3,
        None,
        np.array(["a"]),
        np.array([object()]),
        np.zeros(2, complex),
        np.zeros(2, "u2"),
    ],
)
def test_bad_types(tmp_path, write, value):
    with pytest.raises(UsageError, match="type"):
        write(tmp_path / "a", {"w": value})
    assert list(tmp_path.iterdir()) == []


def test_bad_safetensors_metadata(tmp_path):
    for tensors, metadata in (
        ({"__metadata__": numbers(2)}, None),
        ({"w": numbers(2)}, {"epoch": 3}),
        ({"w": numbers(2)}, {1: "a"}),
    ):
        with pytest.raises(UsageError, match="metadata"):
            export.write_safetensors(tmp_path / "a", tensors, metadata)
    assert list(tmp_path.iterdir()) == []


# -- replacing a file in one step


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError, ZeroDivisionError])
def test_interrupted_writing_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "model"
    path.write_bytes(b"old")
    with pytest.raises(error):
        _write_half(path, error)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def _write_half(path, error):
    with writing.replacing(path) as temporary:
        assert temporary.parent == path.parent
        temporary.write_bytes(b"half")
        raise error


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_failing_disk_leaves_the_old_file(tmp_path, write, monkeypatch, step):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    path = tmp_path / "model"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(UsageError, match="No space left"):
        write(path, state())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_content_reaches_the_disk_before_the_name(tmp_path, monkeypatch):
    steps = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (steps.append("fsync"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda a, b: (steps.append("replace"), replace(a, b)))
    with writing.replacing(tmp_path / "model") as temporary:
        temporary.write_bytes(b"new")
    assert steps[:2] == ["fsync", "replace"]
    assert (tmp_path / "model").read_bytes() == b"new"


def test_error_inside_an_open_file(tmp_path, write):
    """A tensor that cannot be written is found before the file is touched; the old one stays."""
    path = tmp_path / "model"
    write(path, {"w": numbers(2)})
    old = path.read_bytes()
    with pytest.raises(UsageError):
        write(path, {"w": numbers(2), "v": None})
    assert path.read_bytes() == old


def test_bad_destinations(tmp_path, write):
    (tmp_path / "folder").mkdir()
    for path in (
        tmp_path / "missing" / "a",
        tmp_path / "folder",
        tmp_path / "a\0b",
        tmp_path / ("x" * 5000),
        "",
        None,
        7,
    ):
        with pytest.raises(UsageError, match="cannot write"):
            write(path, {"w": numbers(2)})
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


@pytest.mark.skipif(os.name != "posix", reason="permissions and links as POSIX has them")
def test_permissions_and_links(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_bytes(b"old")
    link.symlink_to(real)
    with pytest.raises(UsageError, match=r"a link, which is not followed; .* \(readlink -f\)"):
        export.write_npz(link, {"w": numbers(2)})
    assert link.is_symlink()
    assert real.read_bytes() == b"old"
    mask = os.umask(0o027)
    try:
        export.write_npz(real, {"w": numbers(2)})
    finally:
        os.umask(mask)
    assert np.load(real)["w"].shape == (2,)
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    with pytest.raises(UsageError, match="not a regular file"):
        export.write_npz("/dev/null", {"w": numbers(2)})


# -- a whole model, from Python


OPTIONS = {
    "m.pth": ({}, ()),
    "m.npz": ({}, ()),
    "m.safetensors": ({}, ()),
    "m.onnx": ({}, ()),
    "n.onnx": (
        {"opset": 13, "fold": True, "batch": 2, "precision": "float16"},
        ("--opset", "13", "--fold", "--batch", "2", "--precision", "float16"),
    ),
}


@pytest.fixture
def network(tmp_path):
    """Return a small model whose file is there."""
    spec = tr.Spec((1, 1), 2, 4, 3, stem="pooled", eps=1e-3)
    model = tr.random_model(spec, device="reference")
    tr.save(model, tmp_path / "m.h5")
    return model


@pytest.mark.parametrize("name", OPTIONS)
def test_python_writes_what_the_command_writes(tmp_path, network, capsys, name):
    options, words = OPTIONS[name]
    notes = tr.export(network, tmp_path / name, **options)
    here = (tmp_path / name).read_bytes()
    assert main(["export", str(tmp_path / "m.h5"), str(tmp_path / name), "--force", *words]) == 0
    assert (tmp_path / name).read_bytes() == here
    said = capsys.readouterr().err.splitlines()
    assert said == [f"{tmp_path / name}: {note}" for note in notes]
    assert notes


def test_what_python_cannot_export(tmp_path, network):
    there = tmp_path / "there.onnx"
    there.write_bytes(b"mine")
    images = [np.zeros((32, 32, 3), np.uint8)] * 4
    quantised = tr.quantise(network, images)
    for model, name, options, says in (
        (network, "m.tflite", {}, r"ends in '\.tflite'; expected \.pth, .* or \.onnx"),
        (network, "m", {}, "ends in ''"),
        (network, "there.onnx", {}, "exists; give another name, or force=True"),
        (network, "m.pth", {"opset": 17}, r"--opset \(opset=\) is for \.onnx"),
        (network, "m.onnx", {"opset": 8}, "opset is 8; expected 9 to 20"),
        (network, "m.onnx", {"batch": -1}, "batch is -1; give the number"),
        (network, "m.onnx", {"batch": "2"}, "batch is '2'; give the number"),
        (network, "m.onnx", {"batch": 2**64 + 1}, "batch is 18446744073709551617; give the number"),
        (network, "m.onnx", {"opset": 17.0}, r"opset is 17\.0; expected 9 to 20"),
        (network, "m.onnx", {"precision": "int8"}, "precision is 'int8': expected one of float32"),
        (quantised, "m.pth", {}, r"the model is quantised, and \.pth is not written"),
        ("m.h5", "m.pth", {}, "a model was expected"),
    ):
        with pytest.raises(UsageError, match=says):
            tr.export(model, tmp_path / name, **options)
    with pytest.raises(UsageError, match="the file to write is None"):
        tr.export(network, None)
    bad = {**network.params, "fc.bias": np.full(3, np.nan, np.float32)}
    with pytest.raises(IntegrityError, match="NaN or infinite"):
        tr.export(replace(network, params=bad), tmp_path / "m.pth")
    short = {**bad, "fc.bias": np.zeros(2, np.float32)}
    with pytest.raises(ShapeError, match=r"fc\.bias"):
        tr.export(replace(network, params=short), tmp_path / "m.pth")
    assert there.read_bytes() == b"mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.h5", "there.onnx"]
    tr.export(network, there, force=True)
    tr.export(quantised, tmp_path / "q.onnx")
    assert there.stat().st_size > 1000


def test_numbers_of_numpy_are_numbers(tmp_path, network):
    for name, kind in (("a.onnx", int), ("b.onnx", np.int64)):
        tr.export(network, tmp_path / name, batch=kind(8), opset=kind(13))
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


@pytest.mark.parametrize("name", ["new.pth", "new.onnx"])
def test_an_error_leaves_no_file(tmp_path, network, monkeypatch, name):
    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(carried, "export_notes", broken)
    with pytest.raises(ZeroDivisionError):
        tr.export(network, tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["m.h5"]


@pytest.mark.parametrize(
    "name", ["m.onnx", "m.pth", "m.pt", "m.safetensors", "m.npz", "m.bin", "m.pkl", "m", "a.h5/m"]
)
def test_a_model_file_has_no_other_ending(tmp_path, network, name):
    with pytest.raises(UsageError, match=r"a model file ends in \.h5 \(.*tinyresnext\.export in"):
        tr.save(network, tmp_path / name)
    with pytest.raises(UsageError, match="the file to write is 3"):
        tr.save(network, 3)
    tr.save(network, tmp_path / "m.HDF5")
