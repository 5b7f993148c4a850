"""Files that people mistake for checkpoints are called by their name, whatever they are called."""

from __future__ import annotations

import json
import pickle
import zipfile

import numpy as np
import pytest
from torch_files import Entry, Raw, Zip, call, glob, pickled, small_state, text, zip_file

from tinyresnext.checkpoints.readers.container import read
from tinyresnext.errors import FormatError, UnsafeError, WeightsError

INDEX = {
    "metadata": {"total_size": 9},
    "weight_map": {"fc.bias": "model-00001-of-00002.safetensors"},
}
TENSORS = call("torch.storage", "_load_from_bytes", b"C\1a")
FILES = {
    "onnx": (b"\x08\x07\x12\x07pytorch\x1a\x052.0.0:\x7f" + bytes(64), "cut short"),
    "onnx_of_nothing": (b"\x08\x08\x12\x07tf2onnx", "no graph.*not an ONNX model"),
    "savedmodel": (b"\x08\x01\x12\x04\x0a\x02ab", "no graph.*not an ONNX model"),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(64), "TensorFlow Lite"),
    "gguf": (b"GGUF\3\0\0\0" + bytes(64), "GGUF"),
    "lz4": (b"\x04\x22\x4d\x18" + bytes(64), "lz4; unpack"),
    "jpeg": (b"\xff\xd8\xff\xe0" + bytes(64), "an image, not a checkpoint"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(64), "an image, not a checkpoint"),
    "pdf": (b"%PDF-1.4\n" + bytes(64), "PDF"),
    "matlab": (b"MATLAB 5.0 MAT-file" + bytes(128), "MATLAB.*numpy.savez"),
    "page": (b"\xef\xbb\xbf\n\n<!doctype html>", "web page"),
    "loose_zip": (Zip([Entry("schema.json", b"{}")]).build(), "it holds 'schema.json'"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(64), "zstd; unpack"),
    "index": (json.dumps(INDEX).encode(), "no model-00001-of-00002.safetensors in the same"),
    "index_indented": (json.dumps(INDEX, indent=2).encode(), "no model-00001-of-00002.safetensors"),
    "config": (b'{\n  "architecture": "resnext50_32x4d"\n}', "JSON text without weights"),
    "arrays_0": (pickle.dumps({"fc.bias": np.zeros(3)}, 0), "pickle that torch.save did not"),
    "arrays_5": (pickle.dumps({"fc.bias": np.zeros(3)}, 5), "array of NumPy.*numpy.savez"),
    "tensors": (pickled({"fc.bias": Raw(TENSORS)}), "pickle .*tensors; load it .*torch.save"),
    "list": (pickle.dumps([1.0, 2.0]), "pickle that torch.save did not write"),
    "dict_0": (pickle.dumps({"a": 1}, 0), "pickle that torch.save did not write"),
    "dict_1": (pickle.dumps({"a": 1}, 1), "pickle that torch.save did not write"),
    "object": (pickled(Raw(glob("sklearn.svm", "SVC") + b")\x81}b")), "pickle that torch.save"),
}
CODE, NONE = b"class M(Module):\n" * 20, pickled(None)
ARCHIVES = {
    "script": ({"net/data.pkl": NONE, "net/code/__torch__.py": CODE}, "TorchScript.*state_dict"),
    "constants": ({"net/data.pkl": NONE, "net/constants.pkl": b"\x80\x02)."}, "TorchScript"),
    "keras": (
        {"metadata.json": b"{}", "config.json": b"{}", "model.weights.h5": b"\x89HDF"},
        "Keras 3.*\\.h5",
    ),
    "export": ({"net/archive_format": b"pt2", "net/version": b"0"}, "torch.export"),
    "inside": ({"weights/best.pth": b"PK", "readme.txt": b""}, "'weights/best.pth' in it; unpack"),
}


def refused(path, words, name):
    """It is refused as a file of another format, in one sentence, which does not name the file."""
    with pytest.raises(FormatError, match=words) as caught:
        read(path)
    assert len(str(caught.value).replace(str(path), "")) < 260
    assert name not in words


@pytest.mark.parametrize("name", FILES)
def test_files(tmp_path, name):
    (tmp_path / "in.pth").write_bytes(FILES[name][0])
    refused(tmp_path / "in.pth", FILES[name][1], "in.pth")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("name", ARCHIVES)
def test_archives(tmp_path, name, method):
    with zipfile.ZipFile(tmp_path / "in.pth", "w", method) as archive:
        for member, data in ARCHIVES[name][0].items():
            archive.writestr(member, data)
    refused(tmp_path / "in.pth", ARCHIVES[name][1], "in.pth")


def test_a_pickle_that_runs_code_is_still_unsafe(tmp_path):
    (tmp_path / "in.pkl").write_bytes(pickled(Raw(call("os", "system", text("true")))))
    with pytest.raises(UnsafeError, match=r"os\.system"):
        read(tmp_path / "in.pkl")


@pytest.mark.parametrize("attributes", [(0o40755 << 16) | 0x10, 0x10, 0])
def test_a_checkpoint_that_was_packed_again(tmp_path, attributes):
    """Its folders are members now; what was stored is read, what is compressed has a way out."""
    (tmp_path / "old.pth").write_bytes(zip_file(small_state()))
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with (
            zipfile.ZipFile(tmp_path / "old.pth") as old,
            zipfile.ZipFile(tmp_path / "new.pth", "w", method) as new,
        ):
            for folder in ("model/", "model/data/", "model/.data/"):
                info = zipfile.ZipInfo(folder)
                info.create_system, info.external_attr = 3 if attributes > 0x10 else 0, attributes
                new.writestr(info, b"")
            for member in old.namelist():
                new.writestr(member, old.read(member))
        if method == zipfile.ZIP_STORED:
            assert list(read(tmp_path / "new.pth").tensors) == list(small_state())
        else:
            with pytest.raises(FormatError, match=r"compressed .* \(zip -0 -r NEW\.pth FOLDER\)"):
                read(tmp_path / "new.pth")


@pytest.mark.parametrize(
    "name", ["model/../", "/", "../", "model//", "a\\b/", "model/data.pkl/", "model/\u202e/"]
)
def test_folders_have_plain_names(tmp_path, name):
    (tmp_path / "old.pth").write_bytes(zip_file(small_state()))
    with (
        zipfile.ZipFile(tmp_path / "old.pth") as old,
        zipfile.ZipFile(tmp_path / "new.pth", "w") as new,
    ):
        new.writestr(zipfile.ZipInfo(name), b"hidden" if name == "model/data.pkl/" else b"")
        for member in old.namelist():
            new.writestr(member, old.read(member))
    with pytest.raises(WeightsError):
        read(tmp_path / "new.pth")
