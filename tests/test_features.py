"""The command `features`: an HDF5 file of what a stage computes of images."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

import tinyresnext as tr
from tinyresnext.cli.main import main
from tinyresnext.errors import UsageError
from tinyresnext.inference.many.features import save_features

DATA = Path(__file__).parent / "data"
PHOTOGRAPHS = sorted(map(str, (DATA / "photographs").rglob("*.jpg")))


@pytest.fixture(scope="module")
def model() -> tr.Model:
    return tr.load()


@pytest.mark.parametrize("stage", ["pooled", "layer2"])
def test_the_file(model, stage, tmp_path):
    """Mini-batches of four, of which the last is smaller, and an image that cannot be read."""
    file, broken = tmp_path / "features.h5", str(DATA / "README.md")
    paths = [*PHOTOGRAPHS[:2], broken, *PHOTOGRAPHS[2:]]
    rows = list(save_features(model, paths, file, stage, batch=4))
    assert [path for path, _ in rows] == paths
    assert [path for path, error in rows if error is not None] == [broken]
    with h5py.File(file) as found:
        assert found["paths"].asstr()[:].tolist() == PHOTOGRAPHS
        assert found.attrs["stage"] == stage
        assert found.attrs["architecture"] == model.spec.name
        values = found["features"][:]
    assert values.dtype == np.float32
    for path, row in zip(PHOTOGRAPHS, values, strict=True):
        x = tr.prepare(path, model.preprocess)[None]
        np.testing.assert_allclose(row, model.features(x)[stage][0], rtol=1e-4, atol=1e-5)


def test_the_command(tmp_path, capsys):
    file = tmp_path / "f.h5"
    words = ["features", str(DATA / "photographs"), "-o", str(file)]
    assert main(words) == 0
    assert capsys.readouterr().out == f"{file}: pooled of {len(PHOTOGRAPHS)} images\n"
    with h5py.File(file) as found:
        assert found["features"].shape == (len(PHOTOGRAPHS), 256)
        before = found["features"][:]
    assert main(words) == 2
    assert "--force" in capsys.readouterr().err
    assert main([*words, "--force", "--stage", "layer4"]) == 2
    assert "no stage 'layer4': expected one of stem, layer1" in capsys.readouterr().err
    with h5py.File(file) as found:  # what could not be done has changed nothing
        np.testing.assert_array_equal(found["features"][:], before)
    assert main(["features", str(DATA / "README.md"), *words[1:], "--force"]) == 1
    assert "README.md" in capsys.readouterr().err
    image = tmp_path / "cat.jpg"
    image.write_bytes((DATA / "chelsea.jpg").read_bytes())
    assert main(["features", str(image), "-o", str(image), "--force"]) == 2
    assert image.read_bytes() == (DATA / "chelsea.jpg").read_bytes()
    image.unlink()
    assert main(["features", str(tmp_path), "-o", str(tmp_path / "g.h5")]) == 2
    assert not (tmp_path / "g.h5").exists()


def test_no_file_before_the_end(model, tmp_path):
    file = tmp_path / "f.h5"
    rows = save_features(model, PHOTOGRAPHS, file, batch=1)
    next(rows)
    assert not file.exists()
    rows.close()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match="cannot write"):
        list(save_features(model, PHOTOGRAPHS, tmp_path / "no" / "f.h5"))


def test_a_whole_file_is_of_its_model(model, tmp_path):
    file = tmp_path / "f.h5"
    list(save_features(model, PHOTOGRAPHS[:1], file))
    assert list(save_features(model, PHOTOGRAPHS[:1], file, resume=True)) == []
    bias = model.params["bn1.bias"] + 1
    other = replace(model, params={**model.params, "bn1.bias": bias})
    with pytest.raises(UsageError, match="with other settings"):
        list(save_features(other, PHOTOGRAPHS[:1], file, resume=True))


def test_a_whole_file_is_of_its_computation(model, tmp_path):
    """The output stride, the precision and the device leave no trace in the weights."""
    file = tmp_path / "f.h5"
    list(save_features(model, PHOTOGRAPHS[:1], file))
    dilated = replace(model, spec=replace(model.spec, dilated=1))
    for other in (dilated, tr.load(device="reference"), tr.load(precision="bfloat16")):
        with pytest.raises(UsageError, match="with other settings"):
            list(save_features(other, PHOTOGRAPHS[:1], file, resume=True))
    with h5py.File(file, "r+") as found:  # as it was written before they were in it
        settings = json.loads(found.attrs["settings"])
        found.attrs["settings"] = json.dumps({k: settings[k] for k in settings if k != "spec"})
    with pytest.raises(UsageError, match="with other settings"):
        list(save_features(model, PHOTOGRAPHS[:1], file, resume=True))
