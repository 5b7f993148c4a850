"""Data sets of arrays: what they hold, what becomes of them, and which arrays are refused."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import training_cases as small

import tinyresnext as tr
from tinyresnext.data import from_arrays, open_dataset
from tinyresnext.errors import UsageError

X = np.random.default_rng(5).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
Y = np.array([0, 1, 2, 0, 1, 2])
NAMES = np.array(["cat", "dog", "ant", "cat", "dog", "ant"])


@pytest.mark.parametrize(
    ("y", "classes", "labels", "names"),
    [
        (Y, None, Y, ("0", "1", "2")),
        (Y.astype(np.uint8)[:, None], None, Y, ("0", "1", "2")),
        (Y.tolist(), "abc", Y, None),
        (Y, ["x", "x", "y", "z"], Y, ("x", "x", "y", "z")),
        (Y == 2, None, Y == 2, ("False", "True")),
        (Y > 5, ("good", "bad"), Y > 5, ("good", "bad")),
        (NAMES, None, [1, 2, 0, 1, 2, 0], ("ant", "cat", "dog")),
        (NAMES.astype(object), None, [1, 2, 0, 1, 2, 0], ("ant", "cat", "dog")),
        (NAMES, np.array(["dog", "owl", "ant", "cat"]), [3, 0, 2, 3, 0, 2], None),
        (np.eye(3)[Y], None, np.eye(3)[Y], ("0", "1", "2")),
        (np.eye(3)[Y] == 1, ("a", "b", "c"), np.eye(3)[Y], ("a", "b", "c")),
    ],
)
def test_labels(y, classes, labels, names):
    classes = list(classes) if isinstance(classes, str) else classes
    found = from_arrays(X, y, classes)
    assert found.labels.dtype == np.int64
    assert found.labels.tolist() == np.asarray(labels, int).tolist()
    assert found.classes == (tuple(classes) if names is None else names)
    assert found.pixels is X, "nothing is copied"
    assert (found.picture(4) == X[4]).all()
    assert len(list(found)) == len(found) == len(found.names) == 6


@pytest.mark.parametrize("grey", [X[..., 0], X[..., :1]])
def test_a_grey_image_is_seen_as_three_equal_channels(grey):
    model = tr.random_model(small.SPEC)
    as_colour = from_arrays(np.repeat(grey.reshape(6, 8, 8, 1), 3, axis=3), Y, model.labels)
    found = from_arrays(grey, Y, model.labels)
    assert found.pixels.shape == (6, 8, 8, 1)
    assert tr.evaluate(model, found).loss == tr.evaluate(model, as_colour).loss


def test_a_network_is_trained_on_arrays_and_evaluated(tmp_path):
    images = from_arrays(np.concatenate([X] * 8), np.concatenate([NAMES] * 8))
    recipe = replace(small.RECIPE, epochs=1, batch=16)
    spec = replace(small.SPEC, classes=3)
    model = tr.train(spec, images, recipe, tmp_path / "run", validation=images)
    assert model.labels == ("ant", "cat", "dog")
    assert tr.evaluate(model, from_arrays(X, NAMES)).confusion.sum() == 6


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (X / 255, r"x is float64 .6, 8, 8, 3.; .* from 0 to 1, give \(x \* 255\)\.round\(\)"),
        (X.astype(np.float32), r"expected uint8, .*give x\.round\(\)\.astype\(np\.uint8\)"),
        (X.astype(int), r"give x\.round\(\)\.astype"),
        ((X / 127.5 - 1), "reach from -1 to 1; if they are normalised"),
        (np.where(X > 9, X, np.nan), "has NaN or infinity"),
        (X.transpose(0, 3, 1, 2), r"channels come last, give x\.transpose\(0, 2, 3, 1\)"),
        (X[..., [0, 1, 2, 0]], r"give x\[\.\.\., :3\]"),
        (X[..., :2], r"x is uint8 .6, 8, 8, 2.; expected .n, h, w, 3. for colour"),
        (X[0, 0], "expected .n, h, w, 3. for colour"),
        (X[:0], "which has no pixels"),
        (X[:5], "x has 5 images and y 6 labels"),
        (X.astype(object), "x is object .6, 8, 8, 3.; expected uint8"),
        ([X[0], X[1, :5]], "x is a list, of which NumPy makes no array"),
        (None, "x is object ..; expected uint8"),
        ("images.npy", "x is <U10 ..; expected uint8"),
    ],
)
def test_images_of_other_kinds_are_refused(x, text):
    with pytest.raises(UsageError, match=text):
        from_arrays(x, Y)


@pytest.mark.parametrize(
    ("y", "classes", "text"),
    [
        (Y - 1, None, "reach from -1 to 1; expected numbers from 0 up: leave out"),
        (Y * 2, None, "reach up to 4, and none of them is 1; give the names of all classes"),
        (Y + 2**62, None, "none of them is 0"),
        (Y, ["a", "b"], "reach from 0 to 2; expected numbers from 0 to 1, one for each class"),
        (Y.astype(float), None, r"y is float64 .6.; expected integers .*: give y\.astype\(int\)"),
        (Y / 2, None, r"y is float64 .6.; expected integers from 0, texts .* \[n, classes\]$"),
        (np.where(Y, Y, np.nan), None, "has NaN; leave out images without a label"),
        (np.where(Y, Y, None), None, "y is object .6.; expected integers"),
        (NAMES.astype(bytes), None, r"y is \|S3 .6.; expected integers"),
        (NAMES, ["cat", "dog"], "y has 'ant', which is none of the 2 classes"),
        (NAMES, ["cat", "dog", "ant", "ant"], "two classes have the same name"),
        (np.eye(3)[Y] / 2, None, "with other values than 0 and 1"),
        (np.eye(3)[Y], ["a", "b"], "y has 3 columns and there are 2 classes"),
        (X, None, "y is uint8 .6, 8, 8, 3.; expected"),
        (None, None, "y is object ..; expected"),
        ([[1], [1, 2]], None, "y is a list, of which NumPy makes no array"),
        (Y, 3, "classes is 3; give a list with the name of each class"),
        (Y, "abc", "classes is 'abc'; give a list"),
        (Y, range(3), "classes is range"),
        (Y, [], "classes is ..; give a list"),
    ],
)
def test_labels_of_other_kinds_are_refused(y, classes, text):
    with pytest.raises(UsageError, match=text):
        from_arrays(X, y, classes)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda d: {"labels": d.labels.astype(float)}, r"float64 \[70\], expected a NumPy array"),
        (lambda d: {"labels": d.labels.tolist()}, "are a list, expected a NumPy array"),
        (lambda d: {"labels": d.labels.astype(str)}, "expected a NumPy array"),
        (lambda d: {"labels": d.labels[:, None, None]}, r"are int64 \[70, 1, 1\], expected"),
        (lambda d: {"labels": d.labels[:, None] * 0}, "a column for each of the 4 classes"),
        (lambda d: {"labels": np.full((70, 4), 0.5)}, "expected 0 and 1 only"),
        (lambda d: {"names": d.names[:5]}, "has 5 names and 70 labels"),
        (lambda d: {"pixels": d.pixels / 255}, r"are float64 \[70, 8, 8, 3\], expected a uint8"),
        (lambda d: {"pixels": list(d.pixels)}, "are a list, expected a uint8 array"),
        (lambda d: {"pixels": d.pixels[:5]}, r"are uint8 \[5, 8, 8, 3\].* one image for each"),
        (lambda d: {"classes": range(4)}, r"the classes of the data set are range\(0, 4\)"),
        (lambda d: {"classes": (0, 1, 2, 3)}, r"has the name 0, expected texts: str\(\) makes one"),
        (lambda d: {"names": "a" * 70}, "the names of the data set are 'aaa.*, expected a text"),
        (lambda d: {"names": 70}, "the names of the data set are 70, expected a text for each"),
        (lambda d: {"labels": d.labels[:, None]}, r"y\.ravel\(\) makes them one number for each"),
        (lambda d: {"labels": d.labels.astype("u8") + (1 << 63)}, "reach 92.*, expected ind"),
        (lambda d: {"classes": 4}, "are 4, expected the names of all classes"),
        (lambda d: {"classes": "abcd"}, "are 'abcd', expected the names of all"),
    ],
)
def test_no_data_set_is_made_of_arrays_of_other_types(change, text):
    good = small.pictures()
    with pytest.raises(UsageError, match=r"of the data set (are|has)|the data set has") as raised:
        replace(good, **change(good))
    assert re.search(text, str(raised.value))


def test_unsigned_labels_are_counted_as_others_are():
    good = small.pictures()
    labels = replace(good, labels=good.labels.astype(np.uint64)).labels
    assert labels.dtype == np.int64
    assert np.array_equal(labels, good.labels)


def test_classes_may_be_an_array():
    good = small.pictures()
    assert replace(good, classes=np.array(good.classes)).classes == good.classes
    with pytest.raises(UsageError, match="give a list with the name of each class"):
        from_arrays(X, Y, np.array("a"))


@pytest.mark.parametrize("data", [X, (X, Y), [X, Y], None])
def test_evaluate_says_what_makes_a_data_set_of_arrays(data):
    with pytest.raises(UsageError, match=r"expected a Dataset: .*from_arrays\(x, y\) makes one"):
        tr.evaluate(tr.random_model(small.SPEC), data)


@pytest.mark.parametrize("data", [X, (X, Y), [X, Y]])
def test_open_dataset_says_what_makes_a_data_set_of_arrays(data):
    with pytest.raises(UsageError, match=r"a path was expected, .*from_arrays\(x, y\) makes"):
        open_dataset(data)
