"""Several models, and several views of an image, predict together."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tinyresnext as tr
from tinyresnext.cli.main import main
from tinyresnext.data import open_dataset
from tinyresnext.errors import IntegrityError, UsageError
from tinyresnext.images.prepare import prepare, views
from tinyresnext.images.preprocess import Preprocess
from tinyresnext.inference import ensemble
from tinyresnext.inference.classify import classify
from tinyresnext.inference.ensemble import Ensemble
from tinyresnext.inference.heads import sigmoid

DATA = Path(__file__).parent / "data"
CAT = DATA / "chelsea.jpg"
HALF = (0.5, 0.5, 0.5)


def small(seed: int, head: str = "softmax", classes: int = 3, size: int = 20) -> tr.Model:
    """Return a small network with random weights, large enough to have opinions."""
    spec = tr.Spec((1, 1), 2, 8, classes, stem="cifar", expansion=1, head=head)
    preprocess = Preprocess(size + 4, size, mean=HALF, std=HALF)
    made = tr.random_model(spec, seed, preprocess=preprocess)
    made.params = {**made.params, "fc.weight": made.params["fc.weight"] * 8}
    return made


def probabilities(model: tr.Model, logits: np.ndarray) -> np.ndarray:
    return np.asarray(model.probabilities(logits.astype(np.float32)))


@pytest.mark.parametrize(("height", "width"), [(20, 30), (31, 20), (20, 20)])
@pytest.mark.parametrize("interpolation", ["bilinear", "torch7"])
def test_the_views(height, width, interpolation):
    """Nothing is resized, so each view is a part of the image: torchvision's FiveCrop, TenCrop."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    preprocess = Preprocess(20, 13, interpolation, HALF, HALF)
    x = (pixels.astype(np.float32) / 255 - 0.5) / 0.5
    down, across = height - 13, width - 13
    middle = prepare(pixels, preprocess)
    wanted = [x[:13, :13], x[:13, across:], x[down:, :13], x[down:, across:], middle]
    five = views(pixels, preprocess, 5)
    np.testing.assert_allclose(five, wanted, atol=1e-6)
    ten = views(pixels, preprocess, 10)
    assert np.array_equal(ten, np.concatenate([five, views(pixels[:, ::-1], preprocess, 5)]))
    mirrored = views(pixels, preprocess, 5, mirror=True)
    assert np.array_equal(mirrored, np.concatenate([five, five[:, :, ::-1]]))
    assert np.array_equal(ten, views(pixels, preprocess, 10, mirror=True))
    both = views(pixels, preprocess, 1, mirror=True)
    assert np.array_equal(both, [middle, middle[:, ::-1]])
    assert np.array_equal(views(pixels, preprocess), [middle])


@pytest.mark.parametrize("interpolation", ["bilinear", "torch7"])
def test_ten_crops_are_those_of_the_resized_image_and_of_its_mirror_image(interpolation):
    """As torchvision's TenCrop behind a Resize: half of 20 - 13 is rounded to 4 on both sides."""
    pixels = np.random.default_rng(0).integers(0, 256, (33, 33, 3)).astype(np.uint8)
    [whole] = views(pixels, Preprocess(20, 20, interpolation, HALF, HALF))
    wanted = [
        x[top : top + 13, left : left + 13]
        for x in (whole, whole[:, ::-1])
        for top, left in ((0, 0), (0, 7), (7, 0), (7, 7), (4, 4))
    ]
    ten = views(pixels, Preprocess(20, 13, interpolation, HALF, HALF), 10)
    assert np.array_equal(ten, wanted)
    assert not np.array_equal(ten[9], ten[4][:, ::-1])  # which begins in the column before


@pytest.mark.parametrize("interpolation", ["bilinear", "torch7", "keras"])
def test_where_the_image_is_not_larger_than_the_crop_corners_are_the_middle(interpolation):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3)).astype(np.uint8)
    for crop in (20,) if interpolation == "keras" else (20, 27):
        five = views(pixels, Preprocess(20, crop, interpolation, HALF, HALF), 5)
        assert all(np.array_equal(view, five[4]) for view in five)


def test_one_model_and_one_view_are_as_alone():
    model = tr.load()
    rows = list(classify(model, [str(CAT)]))
    assert rows[0].predictions == model.predict(CAT)[0]
    x = prepare(CAT, model.preprocess)[None]
    together = Ensemble.of(model)
    assert np.array_equal(together([together.prepare(CAT)]), model(x))


@pytest.mark.parametrize(("head", "classes"), [("softmax", 3), ("sigmoid", 3), ("sigmoid", 1)])
def test_the_mean_of_the_probabilities(head, classes):
    """Two models that prepare images in their own ways, ten views each: the mean of twenty."""
    models = [small(0, head, classes), small(1, head, classes, 24)]
    images = [str(CAT), *map(str, (DATA / "photographs" / "dog").glob("*.jpg"))]
    together = Ensemble(tuple(models), 10)
    logits = together([together.prepare(image) for image in images])
    found = probabilities(models[0], logits)
    for image, row in zip(images, found, strict=True):
        each = [probabilities(m, m(views(image, m.preprocess, 10))) for m in models]
        assert np.concatenate(each).std(0).max() > 1e-3
        np.testing.assert_allclose(row, np.concatenate(each).mean(0), rtol=1e-5)
    rows = list(classify(models, images, crops=10, batch=1))
    best = [row.predictions[0] for row in rows]
    assert [guess.probability for guess in best] == pytest.approx(found.max(1).tolist(), rel=1e-5)


def test_nothing_underflows():
    """A class that all are sure it is not keeps a finite logit, and the mean is right."""
    logits = np.array([[[0.0, 2000.0, -2000.0], [1000.0, 0.0, -3000.0]]])
    [row] = ensemble._mean(logits, tr.Spec(classes=3))
    assert np.isfinite(row).all()
    np.testing.assert_allclose(np.exp(row), [0.5, 0.5, 0], atol=1e-12)
    several = tr.Spec(classes=3, head="sigmoid")
    [row] = ensemble._mean(logits, several)
    np.testing.assert_allclose(sigmoid(row), [0.75, 0.75, 0], atol=1e-12)
    with pytest.raises(IntegrityError, match="not finite"):
        ensemble._mean(np.full_like(logits, np.inf), several)


def test_an_evaluation():
    models = [small(seed, classes=6) for seed in (3, 4)]
    data = open_dataset(DATA / "photographs", "train")
    names = tuple(data.classes) + ("other",) * (6 - len(data.classes))
    models = [replace(model, labels=names) for model in models]
    found = tr.evaluate(models, data, crops=5, mirror=True, batch=4)
    every = np.zeros((len(data), 6))
    for m in models:
        seen = [views(data.picture(i), m.preprocess, 5, mirror=True) for i in range(len(data))]
        of_views = probabilities(m, m(np.concatenate(seen)))
        every += of_views.reshape(len(data), 10, 6).mean(1) / len(models)
    right = (every.argmax(1) == data.labels).sum()
    losses = -np.log(every[np.arange(len(data)), data.labels])
    assert found.pictures == len(data)
    assert found.top1 == right / len(data)
    assert found.loss == pytest.approx(np.mean(losses), rel=1e-5)


def test_what_does_not_fit():
    model = small(0)
    with pytest.raises(UsageError, match="crops is 3: expected 1, 5 or 10"):
        Ensemble.of(model, 3)
    with pytest.raises(UsageError, match="those of the mirrored image already"):
        model.predict([], crops=10, mirror=True)
    with pytest.raises(UsageError, match="no model"):
        Ensemble.of([])
    for other in (replace(model, labels=("a", "b", "c")), small(0, "sigmoid"), small(0, classes=4)):
        with pytest.raises(UsageError, match="are not those of"):
            classify([model, other], [str(CAT)])
    assert Ensemble.of([model, model])([]).shape == (0, 3)


def test_the_commands(tmp_path, capsys):
    for seed in (0, 1):
        tr.save(small(seed), tmp_path / f"{seed}.h5")
    both = ["--model", str(tmp_path / "0.h5"), "--model", str(tmp_path / "1.h5")]
    assert main(["classify", str(CAT), *both, "--mirror", "--json"]) == 0
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert said["model"] == "0.h5 + 1.h5"
    assert (said["models"], said["crops"], said["mirror"]) == (["0.h5", "1.h5"], 1, True)
    assert "2 models, 2 views of each image: the mean of the probabilities counts" in err
    models = [tr.load(tmp_path / f"{seed}.h5") for seed in (0, 1)]
    [row] = classify(models, [str(CAT)], mirror=True)
    guesses = json.loads(out)["predictions"]
    assert [guess["label"] for guess in guesses] == [p.label for p in row.predictions]
    words = ["evaluate", str(DATA / "photographs"), "--split", "train", "--crops", "5", "--json"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert "one model, 5 views of each image" in err
    data = open_dataset(DATA / "photographs", "train")
    said = json.loads(out)
    assert said["top1"] == tr.evaluate(tr.load(), data, crops=5).top1
    assert (said["crops"], said["mirror"], len(said["models"])) == (5, False, 1)
    assert main(["classify", str(CAT), *both, "--model", "nothing.h5"]) == 3
    capsys.readouterr()


@pytest.mark.parametrize(("crops", "mirror"), [(1, False), (5, False), (10, False), (1, True)])
def test_a_model_predicts_from_several_views(crops, mirror):
    """As the mean of the probabilities of its views."""
    model = small(4)
    pixels = np.random.default_rng(3).integers(0, 256, (30, 26, 3)).astype(np.uint8)
    found = model.predict([pixels, pixels], top=3, batch=1, crops=crops, mirror=mirror)
    seen = views(pixels, model.preprocess, crops, mirror)
    wanted = probabilities(model, model(seen)).mean(0)
    for row in found:
        assert [guess.index for guess in row] == np.argsort(-wanted).tolist()
        # float32 logits of the mean, and their softmax
        np.testing.assert_allclose([g.probability for g in row], np.sort(wanted)[::-1], rtol=1e-5)
    assert np.ptp(wanted) > 0.01
    with pytest.raises(UsageError, match="expected 1, 5 or 10 views"):
        model.predict(pixels, crops=2)


def test_views_of_an_ensemble_are_its_own(tmp_path):
    together, image = Ensemble((small(0),)), str(DATA / "chelsea.jpg")
    for views_of in ({"crops": 10}, {"mirror": True}):
        with pytest.raises(UsageError, match="views of its own"):
            list(classify(together, [image], **views_of))
    many = Ensemble((small(0),), 5)
    assert len(list(classify(many, [image], crops=5))) == 1  # the same ones


def test_one_output_and_two_do_not_predict_together():
    one, two = small(0, "sigmoid", 1), small(1, "sigmoid", 2)
    two.labels = one.labels
    with pytest.raises(UsageError, match="as many outputs"):
        Ensemble((one, two))


def test_the_head_of_a_spec_stays(tmp_path):
    model = small(0, "sigmoid", 4)
    np.savez(tmp_path / "w.npz", **model.params)
    assert tr.load_checkpoint(tmp_path / "w.npz", arch=model.spec).spec.head == "sigmoid"
    spec = replace(model.spec, head="softmax")
    assert tr.load_checkpoint(tmp_path / "w.npz", arch=spec).spec.head == "softmax"
    assert tr.load_checkpoint(tmp_path / "w.npz", arch=spec, head="sigmoid").spec.several
