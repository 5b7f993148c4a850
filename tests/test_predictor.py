"""`Predictor`: columns in, columns out; small when it is sent; the model is loaded once."""

from __future__ import annotations

import csv
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tinyresnext as tr
from tinyresnext.cli import main as cli
from tinyresnext.errors import UsageError
from tinyresnext.hub.bundled import shipped_model
from tinyresnext.inference.many import predictor as module
from tinyresnext.ops import reference

DATA = Path(__file__).parent / "data"
PATHS = [*sorted(map(str, (DATA / "photographs").rglob("*.jpg"))), str(DATA / "README.md")]


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> list[dict[str, str]]:
    """Return the rows that the command writes for the same images."""
    file = tmp_path_factory.mktemp("table") / "t.csv"
    assert cli.main(["classify", *PATHS, "--top", "3", "--csv", str(file)]) == 1
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def same(found: dict[str, np.ndarray], table: list[dict[str, str]]) -> None:
    assert all(column.shape == (len(table),) for column in found.values())
    for i, row in enumerate(table):
        assert bool(found["error"][i]) == bool(row["error"])
        for rank in "123":
            if row["error"]:
                assert (found[f"label{rank}"][i], found[f"index{rank}"][i]) == ("", -1)
                assert np.isnan(found[f"probability{rank}"][i])
            else:
                assert found[f"label{rank}"][i] == row[f"label{rank}"]
                assert found[f"index{rank}"][i] == int(row[f"index{rank}"])
                assert found[f"probability{rank}"][i] == pytest.approx(
                    float(row[f"probability{rank}"]), abs=1e-6
                )


@pytest.mark.parametrize("column", ["path", "bytes", "image"])
def test_the_rows_are_those_of_classify(table, column):
    values = np.empty(len(PATHS), object)
    for i, path in enumerate(PATHS):
        if column == "image":
            broken = path.endswith(".md")
            values[i] = np.zeros((0, 3, 3), np.uint8) if broken else np.asarray(Image.open(path))
        else:
            values[i] = path if column == "path" else Path(path).read_bytes()
    found = tr.Predictor(top=3, batch=4)({"number": np.arange(len(PATHS)), column: values})
    np.testing.assert_array_equal(found.pop("number"), np.arange(len(PATHS)))
    assert (found.pop("path", None) is not None) == (column == "path")
    guesses = (f"{name}{rank}" for name in ("label", "index", "probability") for rank in "123")
    assert set(found) == {"error", *guesses}
    same(found, table)


def test_arrays_of_one_size():
    images = np.stack([np.asarray(Image.open(path).resize((40, 32))) for path in PATHS[:3]])
    found = tr.Predictor(top=1)({"image": images, "path": np.array(PATHS[:3])})
    expected = tr.load().predict(list(images), top=1)
    assert found["label1"].tolist() == [row[0].label for row in expected]
    assert found["path"].tolist() == PATHS[:3]  # only one column has the images


def test_grey_arrays_of_one_size_or_several():
    grey = [np.full((40, 32 + i), 60 * i, np.uint8) for i in range(3)]
    alone = [tr.Predictor(top=1)({"image": [one]})["label1"][0] for one in grey]
    assert tr.Predictor(top=1)({"image": grey})["label1"].tolist() == alone
    stacked = np.stack([grey[1], grey[1]])
    assert tr.Predictor(top=1)({"image": stacked})["label1"].tolist() == alone[1:2] * 2


@pytest.mark.parametrize("column", ["path", "bytes", "image"])
def test_no_images_of_any_type(column):
    for values in ([], np.array([], object), np.zeros(0)):
        found = tr.Predictor(top=1)({column: values})
        assert {len(one) for one in found.values()} == {0}


def test_it_is_small_and_loads_once(table, tmp_path, monkeypatch):
    model = tmp_path / "model.h5"
    model.write_bytes(Path(shipped_model()).read_bytes())
    loads = []
    load = module.load
    monkeypatch.setattr(module, "load", lambda *a: loads.append(a) or load(*a))
    batch = {"path": np.array(PATHS)}
    named, packed = tr.Predictor(model, threads=1, top=3), tr.Predictor(model.read_bytes(), top=3)
    assert len(pickle.dumps(named)) < 500
    assert len(pickle.dumps(packed)) < model.stat().st_size + 500
    for one in (named, packed):
        loads.clear()
        for _ in range(3):
            same_one = pickle.loads(pickle.dumps(one))
            found = same_one(batch)
            del found["path"]
            same(found, table)
        assert len(loads) == 1
    assert loads[0][1:] == ("cpu", None, "float32")
    tr.save(tr.random_model(tr.cifar(11, 1, 4, classes=3), seed=1), model)  # another model
    assert set(named(batch)["label1"]) <= {"", *tr.load(model).labels}
    loaded = tr.Predictor(tr.load(), top=3)
    found = pickle.loads(pickle.dumps(loaded))(batch)
    del found["path"]
    same(found, table)


IMAGE = {"image": np.zeros((1, 16, 16, 3), np.uint8)}


def small(path: Path, seed: int = 0) -> Path:
    """Write a model with a tensor that a prediction lets go of."""
    model = tr.random_model(tr.Spec((1, 1), 8, 4, 5), seed=seed, device="reference")
    model.preprocess = tr.Preprocess(resize=16, crop=16)
    tr.save(model, path)
    return path


def test_predictors_that_are_called_in_turn_keep_their_models(tmp_path, monkeypatch):
    loads, load = [], module.load
    monkeypatch.setattr(module, "load", lambda *a: loads.append(a) or load(*a))
    files = [small(tmp_path / f"{seed}.h5", seed) for seed in range(3)]
    predictors = [tr.Predictor(file, "reference", top=1) for file in files]
    predictors.append(tr.Predictor(files[0].read_bytes(), "reference", top=1))
    size = len(pickle.dumps(predictors[0]))
    for _ in range(2):
        for one in predictors:
            one(IMAGE)
    assert len(loads) == len(predictors)
    assert len(pickle.dumps(predictors[0])) == size
    small(files[0], seed=7)  # another version
    predictors[0](IMAGE)
    assert len(loads) == len(predictors) + 1


def test_bytes_predict_after_a_first_prediction_that_had_no_memory(tmp_path, monkeypatch):
    """Their file is gone by then, so the weights that it has taken cannot be read again."""
    predictor = tr.Predictor(small(tmp_path / "m.h5", 8).read_bytes(), "reference", top=1)
    pack, refused = reference.pack, []

    def without_memory(*given):
        if not refused:
            refused.append(given)
            raise MemoryError
        return pack(*given)

    monkeypatch.setattr(reference, "pack", without_memory)
    with pytest.raises(MemoryError):
        predictor(IMAGE)
    assert list(predictor(IMAGE)["error"]) == [""]


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ({"picture": np.zeros(3)}, "'picture'; expected a column image"),
        ({}, "no columns"),
        ({"image": np.zeros((2, 8, 8, 3), np.float32)}, "float32"),
        ({"image": np.zeros((8, 8, 3), np.uint8)}, "expected uint8"),
        ({"path": np.zeros(3)}, "float64"),
        ({"image": None}, "expected uint8"),
        ({"path": np.array(PATHS[:1]), "label1": np.zeros(1)}, "write over"),
        ({"path": np.array(PATHS[:1]), "id": np.arange(2)}, "has 1 values, and id 2"),
        ({"bytes": np.array(PATHS[:1])}, "expected one object an image"),
        ({"bytes": np.array(PATHS[:1], object)}, "type str; expected the contents"),
    ],
)
def test_wrong_columns(batch, words):
    with pytest.raises(UsageError, match=words):
        tr.Predictor()(batch)


def test_missing_values_are_rows():
    """As engines have them: None, or pandas' NaN; and names as NumPy's bytes."""
    contents = np.array([Path(PATHS[0]).read_bytes(), None, float("nan")], object)
    found = tr.Predictor(top=1)({"bytes": contents})
    assert [bool(error) for error in found["error"]] == [False, True, True]
    assert found["index1"].tolist()[1:] == [-1, -1]
    named = tr.Predictor(top=1)({"path": np.array([PATHS[0].encode()])})
    assert named["label1"].tolist() == found["label1"].tolist()[:1]


def test_no_images_and_wrong_arguments():
    found = tr.Predictor()({"path": np.array([], object)})
    assert {len(column) for column in found.values()} == {0}
    with pytest.raises(UsageError, match="resnext51"):
        tr.Predictor("resnext51")
    with pytest.raises(UsageError, match="that is loaded"):
        tr.Predictor(tr.load(), threads=1)
    with pytest.raises(UsageError, match="top"):
        tr.Predictor(top=0)


def test_a_list_is_its_images():
    """NumPy alone would take the pixels of Pillow images, and cut zeros off the ends of bytes."""
    image = Image.open(DATA / "chelsea.jpg").convert("CMYK")
    values = np.empty(2, object)
    values[:] = [image, image.copy()]
    predict = tr.Predictor(top=1)
    wanted, found = predict({"image": values}), predict({"image": list(values)})
    assert {name: list(column) for name, column in found.items()} == {
        name: list(column) for name, column in wanted.items()
    }
    sizes = [np.asarray(image.convert("RGB")), np.zeros((40, 50, 3), np.uint8), None]
    assert list(map(bool, predict({"image": sizes})["error"])) == [False, False, True]
    file = (DATA / "chelsea.jpg").read_bytes() + bytes(8)
    assert list(predict({"bytes": [file]})["error"]) == [""]
    assert module._column([file])[0] == file
    names = [str(DATA / "chelsea.jpg").encode()]
    assert list(predict({"path": names})["error"]) == [""]
    with pytest.raises(UsageError, match="expected"):
        predict({"bytes": None})
