"""Files that another process makes while a command computes: they are not written over.

`test_many` has those of `classify`, and the others of `evaluate`.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from data_files import picture

import tinyresnext as tr
from tinyresnext.cli.main import main
from tinyresnext.errors import UsageError
from tinyresnext.images.preprocess import Preprocess
from tinyresnext.network.spec import Spec
from tinyresnext.system.writing import NewName, replace, replacing

SPEC = Spec((1,), cardinality=2, width=2, classes=2, stem="cifar", expansion=1)
COMMANDS = {
    "quantise": ["quantise", "m.h5", "--images", "a.png", "--device", "reference", "-o", "new.h5"],
    "convert": ["convert", "m.pth", "new.h5"],
    "reference": ["verify", "m.h5", "--make-reference", "new.npz"],
    **{ending: ["export", "m.h5", f"new.{ending}"] for ending in ("pth", "safetensors", "npz")},
    "onnx": ["export", "m.h5", "new.onnx"],
    "explain": ["explain", "a.png", "--model", "m.h5", "--device", "reference", "-o", "new.html"],
    "bench": ["bench", "--json", "new.json"],
    "dry run": [
        "train", "images", "--blocks", "1", "--stem", "cifar", "--cardinality", "1", "--width",
        "1", "--widen", "1", "--size", "8", "--batch", "2", "--epochs", "1", "--device",
        "reference", "--dry-run", "new.png",
    ],
    "classes": [
        "evaluate", "images", "--model", "m.h5", "--device", "reference", "--csv", "new.csv"
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with a model, in two forms, and images of two classes."""
    folder = tmp_path_factory.mktemp("place")
    model = tr.random_model(
        SPEC, 0, "reference", preprocess=Preprocess(8, 8), labels=["class 0", "class 1"]
    )
    tr.save(model, folder / "m.h5")
    tr.export(model, folder / "m.pth")
    for name in ("0", "1"):
        (folder / "images" / f"class {name}").mkdir(parents=True)
        for number in range(2):
            file = folder / "images" / f"class {name}" / f"{number}.png"
            file.write_bytes(picture(number))
    (folder / "a.png").write_bytes(picture(0))
    return folder


@pytest.fixture
def other(monkeypatch):
    """Let another process make a file called ``new...`` as soon as a command writes its own."""
    begun = replace._begun

    def also(target: Path):
        found = begun(target)
        if target.name.startswith("new"):
            target.write_bytes(b"theirs")
        return found

    monkeypatch.setattr(replace, "_begun", also)


@pytest.mark.parametrize("name", COMMANDS)
def test_what_another_process_has_made_meanwhile_stays(
    place, other, monkeypatch, capsys, name, tmp_path
):
    words = [str(place / word) if (place / word).exists() else word for word in COMMANDS[name]]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tinyresnext.bench.bench.bench", lambda **given: {})
    monkeypatch.setattr("tinyresnext.bench.tables.text", lambda report: "")
    assert main(words) == 2
    assert "exists by now" in capsys.readouterr().err
    assert [file.read_bytes() for file in tmp_path.glob("new*")] == [b"theirs"]
    assert not list(tmp_path.glob(".*.tmp"))


def test_export_from_python_is_no_other(place, other, tmp_path):
    model = tr.load(place / "m.h5", "reference")
    with pytest.raises(UsageError, match=r"exists by now: .* or force=True"):
        tr.export(model, tmp_path / "new.npz")
    assert (tmp_path / "new.npz").read_bytes() == b"theirs"
    tr.export(model, tmp_path / "new.npz", force=True)
    with np.load(tmp_path / "new.npz") as arrays:
        assert "fc.bias" in arrays


def test_a_new_name_is_a_text_that_is_not_replaced(other, tmp_path):
    file = tmp_path / "new"
    assert pickle.loads(pickle.dumps(NewName("new", "wait"))).remedy == "wait"
    with (
        pytest.raises(UsageError, match=r"exists by now: .*; wait"),
        replacing(NewName(str(file), "wait")) as temporary,
    ):
        temporary.write_bytes(b"ours")
    assert file.read_bytes() == b"theirs"
    with replacing(str(file)) as temporary:
        temporary.write_bytes(b"ours")
    assert file.read_bytes() == b"ours"
