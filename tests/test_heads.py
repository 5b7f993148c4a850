"""What outputs mean: one of several classes, one of two labels, or any number of labels."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import cases
import numpy as np
import pytest
from PIL import Image

from tinyresnext import Model, Preprocess, Spec, evaluate, explain, load, random_model, save
from tinyresnext.data import open_dataset
from tinyresnext.data.dataset import Dataset
from tinyresnext.errors import FormatError, UsageError
from tinyresnext.inference import heads
from tinyresnext.inference.evaluate import score, score_labels
from tinyresnext.inference.scores.precision import ranked, shortest
from tinyresnext.ops import reference
from tinyresnext.store import store

ONE = Spec((1, 1), 2, 8, 1, stem="cifar", expansion=1, head="sigmoid")
MANY = replace(ONE, classes=3)
SMALL = Preprocess(8, 8)


def rng():
    return np.random.default_rng(0)


@pytest.fixture
def images(tmp_path):
    """Eight images in two classes."""
    pixels = rng().integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
    for i, one in enumerate(pixels):
        folder = tmp_path / "data" / "test" / ("cat", "dog")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(one).save(folder / f"{i}.png")
    return tmp_path / "data"


def test_the_sigmoid_has_no_overflow():
    logits = np.array([-1000, -3, 0, 0.5, 1000], np.float32)
    wanted = [0, 1 / (1 + math.exp(3)), 0.5, 1 / (1 + math.exp(-0.5)), 1]
    np.testing.assert_allclose(heads.sigmoid(logits), wanted, rtol=1e-14)
    assert heads.sigmoid(0.0) == heads.sigmoid(-0.0) == 0.5


def test_a_single_output_has_both_labels():
    model = Model(ONE, {}, SMALL, ("cat", "dog"), {}, reference)
    for logit in (-3.0, 0.0, 0.5, 40.0):
        (found,) = model.rank(np.array([[logit]], np.float32))
        probability = 1 / (1 + math.exp(-logit))
        assert {one.label: one.probability for one in found} == pytest.approx(
            {"dog": probability, "cat": 1 - probability}, abs=1e-15
        )
        assert [one.label for one in found] == (["dog", "cat"] if logit >= 0 else ["cat", "dog"])
    high = model.rank(np.array([[0.5]], np.float32), threshold=0.7)  # its probability is 0.62
    assert [one.label for one in high[0]] == ["cat", "dog"]


def test_an_output_at_the_threshold_is_the_second_label():
    """`rank`, `score` and `same_first` say the same, also without a threshold."""
    model = Model(ONE, {}, SMALL, ("cat", "dog"), {}, reference)
    logits = rng().standard_normal((200, 1)).astype(np.float32)
    logits[:3, 0] = 0.0, 1e-20, -1e-20
    limits = [0.5, *map(float, heads.sigmoid(logits[:, 0]))]  # each is exactly one of them
    for limit in (None, *limits):
        ranked = [row[0].index for row in model.rank(logits, threshold=limit)]
        assert limit is None or ranked == (heads.sigmoid(logits[:, 0]) >= limit).tolist()
        labels = np.array(ranked)
        found = score(heads.both, [(logits, labels)], model.labels, threshold=limit or 0.5)
        assert found.top1 == 1
    assert [row[0].label for row in model.rank(logits[:3])] == ["dog"] * 3
    assert heads.same_first(ONE, logits[:3], np.array([[0.0], [2.0], [-2.0]])) == 2


def test_several_labels_have_probabilities_of_their_own():
    model = Model(MANY, {}, SMALL, tuple("abc"), {}, reference)
    logits = np.array([[2.0, -1.0, 2.0], [-5.0, -5.0, -5.0]], np.float32)
    found = model.rank(logits)
    assert [one.label for one in found[0]] == ["a", "c", "b"]
    assert sum(one.probability for one in found[0]) > 1.9
    named = model.rank(logits, threshold=0.5)
    assert [[one.label for one in row] for row in named] == [["a", "c"], []]
    assert [[one.label for one in row] for row in model.rank(logits, 1, 0.2)] == [["a"], []]


def test_all_labels_above_a_threshold_are_named():
    many = replace(MANY, classes=8)
    model = Model(many, {}, SMALL, tuple("abcdefgh"), {}, reference)
    logits = np.array([[2.0] * 7 + [-2.0]], np.float32)
    assert len(model.rank(logits, threshold=0.5)[0]) == 7
    assert len(model.rank(logits, 3, 0.5)[0]) == 3
    assert len(model.rank(logits)[0]) == 5
    trained = replace(random_model(many, device="reference"), preprocess=SMALL)
    image = np.zeros((8, 8, 3), np.uint8)
    assert len(trained.predict(image, threshold=1e-6)[0]) == 8


@pytest.mark.parametrize("threshold", [-0.5, 1.5, math.nan, True, "high"])
def test_thresholds_that_cannot_be(threshold):
    with pytest.raises(UsageError, match="expected a probability from 0 to 1"):
        heads.check_threshold(MANY, threshold)


def test_a_threshold_of_zero_names_all_labels(run, images):
    """It is the plain way to ask for the probabilities of all; from 1 on, hardly any is named."""
    logits = np.array([[-1000.0, *range(7)]], np.float32)
    model = random_model(replace(ONE, classes=8), device="reference")
    assert len(model.rank(logits, threshold=0)[0]) == 8
    assert model.rank(logits, threshold=1.0) == [[]]
    one = random_model(ONE, device="reference")
    first = [one.rank(np.array([[0.0]], np.float32), threshold=t)[0][0].index for t in (0, 1)]
    assert first == [1, 0]
    save(replace(model, preprocess=SMALL), "many.h5")
    words = ["classify", images / "test" / "cat" / "0.png", "--model", "many.h5", "--json"]
    code, out, err = run(*words, "--device", "reference", "--threshold", "0")
    assert (code, len(json.loads(out)["predictions"])) == (0, 8), err


def test_a_softmax_has_no_threshold():
    with pytest.raises(UsageError, match="under the softmax of this model exactly one"):
        random_model(replace(MANY, head="softmax")).predict([], threshold=0.5)


# --- where the head is recorded -------------------------------------------------------------------


def test_a_softmax_is_not_mentioned_so_that_older_files_stay_as_they_are():
    for spec in (ONE, MANY, replace(MANY, head="softmax"), Spec()):
        assert Spec.from_json(spec.to_json()) == spec
        assert ("head" in spec.to_json()) == (spec.head == "sigmoid")
    assert Spec(head="sigmoid").name == "resnext50_32x4d"
    with pytest.raises(UsageError, match="head is 'tanh'"):
        replace(ONE, head="tanh")
    with pytest.raises(FormatError, match="head"):
        Spec.from_json(ONE.to_json() | {"head": 3})


@pytest.mark.parametrize(("spec", "labels"), [(ONE, ("cat", "dog")), (MANY, tuple("abc"))])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npz"])
def test_the_head_comes_back(run, spec, labels, suffix):
    model = random_model(spec, labels=labels, preprocess=SMALL, device="reference")
    save(model, "model.h5")
    assert load("model.h5", "reference").spec == spec
    assert load("model.h5", "reference").labels == labels
    code, _, err = run("export", "model.h5", f"out{suffix}")
    meaning = "outputs are logits for a sigmoid" if spec == MANY else "a logit, whose sigmoid is"
    assert (code, meaning in err) == (0, True)
    assert ("--head sigmoid" in err) == (spec == MANY)  # a single output has one anyway
    assert run("convert", f"out{suffix}", "again.h5")[0] == 0
    stored = store.read("again.h5")
    assert (stored.spec, stored.labels) == (spec, labels)
    code, out, _ = run("info", "again.h5")
    assert ("one output for two labels, sigmoid" if spec == ONE else "3 labels, sigmoid") in out


def test_labels_of_a_single_output_are_two(tmp_path):
    with pytest.raises(UsageError, match="3 labels for 2 classes"):
        random_model(ONE, labels=tuple("abc"))
    model = random_model(ONE, labels=tuple("ab"), device="reference")
    with pytest.raises(Exception, match="1 labels for 2 classes"):
        save(replace(model, labels=("a",)), tmp_path / "one.h5")


def test_a_single_output_of_another_system(run, images):
    spec = replace(ONE, stem="imagenet")
    with open("one.pth", "wb") as file:
        file.write(cases.checkpoint(cases.weights(spec), legacy=False))
    code, _, err = run("convert", "one.pth", "--crop", 8, "--resize", 8)
    assert (code, "one output: taken for the logit of the second of two labels" in err) == (0, True)
    assert load("one.h5", "reference").labels == ("class 0", "class 1")
    with open("names.txt", "w") as file:
        file.write("dog\n")
    words = ["convert", "one.pth", "--crop", 8, "--resize", 8, "--force"]
    assert run(*words, "--labels", "names.txt")[0] == 0
    assert load("one.h5", "reference").labels == ("not dog", "dog")
    code, _, err = run(*words, "--head", "softmax")
    assert (code, "give --head sigmoid" in err) == (2, True)
    image = images / "test" / "cat" / "0.png"
    code, out, _ = run("classify", image, "--model", "one.h5", "--device", "reference", "--json")
    found = {one["label"]: one["probability"] for one in json.loads(out)["predictions"]}
    model = load("one.h5", "reference")
    (guess,) = model.predict(image)
    assert found == {one.label: one.probability for one in guess}
    assert sum(found.values()) == pytest.approx(1)


# --- as it is typed -------------------------------------------------------------------------------


def test_classify_names_labels_above_the_threshold(run, images):
    model = random_model(MANY, labels=("sea", "sky", "sand"), preprocess=SMALL, device="reference")
    model.params = {
        **model.params,
        "fc.weight": model.params["fc.weight"] * 0,
        "fc.bias": np.log([9, 1 / 9, 3]).astype(np.float32),  # 90 %, 10 % and 75 %
    }
    save(model, "many.h5")
    image = images / "test" / "cat" / "0.png"
    words = ["classify", image, "--model", "many.h5", "--device", "reference"]
    code, out, err = run(*words)
    assert (code, out) == (0, f"{image}\n   90.0%  sea\n   75.0%  sand\n")
    assert "those of at least 50% are named (--threshold)" in err
    assert run(*words, "--threshold", "0.05")[1].count("%") == 3
    assert run(*words, "--top", "1")[1] == f"{image}\n   90.0%  sea\n"
    assert "no label reaches the threshold" in run(*words, "--threshold", "0.95")[1]
    row = json.loads(run(*words, "--json", "--threshold", "0.8")[1])
    assert (row["threshold"], [one["label"] for one in row["predictions"]]) == (0.8, ["sea"])
    heading, row = csv.reader(io.StringIO(run(*words, "--csv", "-")[1]))
    assert (len(heading), row[2::3]) == (2 + 9, ["sea", "sand"])
    words[-2:] = ["--model", "many.h5", "--device", "reference"]
    for limit, said in (("0.004", "0.4%"), ("0.996", "99.6%"), ("0.07", "7%"), ("1e-5", "0.001%")):
        assert f"those of at least {said} are named" in run(*words, "--threshold", limit)[2]
    code, _, err = run(*words, "--threshold", "nan")
    assert (code, "the threshold is nan" in err, "are named" in err) == (2, True, False)
    code, _, err = run("classify", image, "--device", "reference", "--threshold", "0.5")
    assert (code, "exactly one class holds" in err) == (2, True)


@pytest.mark.parametrize("threshold", ["0.5", "2"])
def test_a_refused_threshold_leaves_no_file(run, images, threshold):
    words = ["classify", images / "test" / "cat" / "0.png", "--device", "reference"]
    before = sorted(Path().iterdir())
    code, _, err = run(*words, "--threshold", threshold, "-o", "rows.jsonl")
    assert (code, "the threshold" in err or "a threshold" in err) == (2, True)
    assert sorted(Path().iterdir()) == before


# --- evaluating -----------------------------------------------------------------------------------


def test_average_precision_by_hand():
    """Of scores 4, 3, 2, 1, the first and the third are right: 1/2 * 1 + 1/2 * 2/3."""
    found = ranked(np.array([4.0, 3, 2, 1]), np.array([True, False, True, False]))
    assert found.average_precision == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert (found.best, found.f1) == (2.0, pytest.approx(0.8))
    tied = ranked(np.array([1.0, 1, 1, 0]), np.array([True, False, False, True]))
    assert tied.average_precision == pytest.approx(0.5 * 1 / 3 + 0.5 * 2 / 4)
    assert ranked(np.zeros(3), np.zeros(3, bool)) == (None, None, None)


def test_logits_have_an_order_where_probabilities_have_none():
    """Both probabilities are 1 in float64, so no threshold tells them apart."""
    both = [(np.array([[40.0], [38.0]]), np.array([[1], [0]]))]
    [found] = score_labels(lambda x: x, both, ("a",)).per_label
    assert found.average_precision == 1
    assert (found.best_threshold, found.best_f1) == (1, pytest.approx(2 / 3))
    many = Model(replace(MANY, classes=2), {}, SMALL, ("a", "b"), {}, reference)
    assert [one.index for one in many.rank(np.array([[38.0, 40]]))[0]] == [1, 0]
    one = Model(replace(MANY, head="softmax"), {}, SMALL, tuple("abc"), {}, reference)
    row = one.rank(np.array([[0, 110, 1]], np.float32))[0]
    assert [part.index for part in row] == [1, 2, 0]
    assert row[1].probability == row[2].probability == 0


@pytest.mark.parametrize(
    ("threshold", "others", "said"),
    [
        (0.99964, [0.998], "99.9%"),
        (0.999645, [0.99961, 0.1], "99.964%"),
        (0.5, [0.2], "50%"),
        (0.0001, [0.00003], "0.01%"),
        (0.0001, [], "0%"),
        (1.0, [1 - 2**-53], "100%"),
        (1 - 2**-53, [1 - 2**-52], "99.99999999999999%"),
        (3.5e-9, [2e-9], "0.0000003%"),
    ],
)
def test_the_threshold_that_is_said_names_the_same(threshold, others, said):
    scores = np.array([threshold, 1.0, *others])
    found = shortest(threshold, scores)
    assert ((scores >= found) == (scores >= threshold)).all()
    assert heads.percent(found) == said
    typed = float(f"{said[:-1]}e-2")  # as a person divides it by 100
    assert ((scores >= typed) == (scores >= threshold)).all()


def test_the_table_says_thresholds_that_name_the_same():
    logits, truth = np.array([[7.93], [7.94], [-1.0]]), np.array([[0], [1], [0]])
    found = score_labels(lambda x: x, [(logits, truth)], ("a",))
    assert str(found).endswith(" 100.00% 99.9643%")
    assert sum(heads.sigmoid(logits[:, 0]) >= 0.999643) == 1


def test_a_single_output_is_evaluated(images, tmp_path, run):
    model = random_model(ONE, labels=("cat", "dog"), preprocess=SMALL, device="reference")
    data = open_dataset(images, "test")
    logits = model(np.stack([model_input(data, i, model) for i in range(8)]))[:, 0]
    found = evaluate(model, data)
    truth = data.labels == 1
    wanted = np.logaddexp(0, np.where(truth, -logits, logits).astype(np.float64)).mean()
    assert found.loss == pytest.approx(wanted, rel=1e-6)
    assert found.confusion.tolist() == [
        [int(((logits > 0) == answer)[truth == real].sum()) for answer in (0, 1)] for real in (0, 1)
    ]
    assert found.average_precision == ranked(logits, truth).average_precision
    middle = float(heads.sigmoid(np.sort(logits)[5:7]).mean())  # two images lie above
    high = evaluate(model, data, threshold=middle)
    assert high.confusion[:, 1].sum() == 2
    assert (high.loss, high.average_precision) == (found.loss, found.average_precision)
    save(model, "one.h5")
    words = ["evaluate", images, "--model", "one.h5", "--device", "reference"]
    code, out, _ = run(*words, "--threshold", middle)
    assert (code, "average precision" in out, "for dog" in out) == (0, True, True)
    code, out, _ = run(*words, "--json")
    assert json.loads(out)["average_precision"] == pytest.approx(found.average_precision)


def model_input(data, i, model):
    """Return one image as the model takes it."""
    from tinyresnext import prepare

    return prepare(data.picture(i), model.preprocess)


def test_several_labels_are_evaluated(images, run):
    logits = rng().standard_normal((40, 3)).astype(np.float32)
    truth = rng().random((40, 3)) < heads.sigmoid(logits)
    batches = [(logits[:25], truth[:25].astype(int)), (logits[25:], truth[25:].astype(int))]
    found = score_labels(lambda x: x, batches, tuple("abc"), threshold=0.6)
    named = heads.sigmoid(logits) >= 0.6
    for i, one in enumerate(found.per_label):
        assert one.pictures == truth[:, i].sum()
        assert one.precision == (named & truth)[:, i].sum() / named[:, i].sum()
        assert one.recall == (named & truth)[:, i].sum() / truth[:, i].sum()
        above = heads.sigmoid(logits[:, i]) >= one.best_threshold
        both = (above & truth[:, i]).sum()
        assert one.best_f1 == pytest.approx(2 * both / (above.sum() + truth[:, i].sum()))
    assert found.exact == (named == truth).all(1).mean()
    assert found.score == np.mean([one.average_precision for one in found.per_label])
    for limit, said in ((0.004, "0.4%"), (0.996, "99.6%"), (0.29, "29%")):
        assert f"labels of at least {said}:" in str(replace(found, threshold=limit))
    p = heads.sigmoid(logits)
    assert found.loss == pytest.approx(-np.log(np.where(truth, p, 1 - p)).mean(), rel=1e-6)
    other = score_labels(
        lambda x: x[:, [2, 0, 1]],
        batches,
        ("c", "a", "b"),
        numbers=(1, 2, 0),
        threshold=0.6,
    )
    assert (other.score, other.loss) == (pytest.approx(found.score), pytest.approx(found.loss))
    with pytest.raises(UsageError, match="no images"):
        score_labels(lambda x: x, [], tuple("abc"))
    none = score_labels(lambda x: x, [(logits, np.zeros((40, 3), int))], tuple("abc"))
    assert (none.mean_average_precision, none.to_json()["mean_average_precision"]) == (None, None)
    assert "mean average precision        -  no image has a label\n" in str(none)


def test_rows_say_of_each_label_whether_an_image_has_it():
    """What a table has no column for is not known, and not absent."""
    batches = [(np.full((2, 3), 5.0), np.array([[1], [1]]))]
    with pytest.raises(UsageError, match=r"no column for the label 'b'.*add one, with 0"):
        score_labels(lambda x: x, batches, ("a", "b", "c"), numbers=(0,))
    model = random_model(MANY, labels=tuple("abc"), preprocess=SMALL)
    data = Dataset(("a", "c"), np.array([[1, 1]]), ["x.png"], [].__getitem__)  # none is read
    with pytest.raises(UsageError, match="no column for the label 'b'"):
        evaluate(model, data)


def test_one_class_for_each_image_is_evaluated_by_a_model_of_several(images, run):
    model = random_model(replace(MANY, classes=2), labels=("dog", "cat"), preprocess=SMALL)
    found = evaluate(model, open_dataset(images, "test"))
    assert [one.pictures for one in found.per_label] == [4, 4]
    assert found.truth.sum(1).tolist() == [1] * 8
    assert found.truth[0].tolist() == [False, True]  # cats come first in the data set
    save(model, "many.h5")
    words = ["evaluate", images, "--model", "many.h5", "--device", "reference"]
    code, out, _ = run(*words, "--csv", "table.csv")
    assert (code, "mean average precision" in out) == (0, True)
    with open("table.csv") as file:
        wanted = ["name", "pictures", "precision", "recall", "average_precision"]
        assert next(csv.reader(file))[:5] == wanted
    assert set(json.loads(run(*words, "--json")[1])) >= {"mean_average_precision", "exact"}
    code, _, err = run(*words, "--picture", "c.png")
    assert (code, "no confusion matrix" in err) == (2, True)


def test_labels_of_which_an_image_has_several_need_such_a_model():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype("u1")
    data = Dataset(tuple("abc"), np.eye(3, dtype=np.int64)[::-1], list("xyz"), pixels.__getitem__)
    model = random_model(replace(MANY, head="softmax"), labels=tuple("abc"), preprocess=SMALL)
    # A single 1 in each row is a class.
    found, wanted = (
        evaluate(model, one) for one in (data, replace(data, labels=np.arange(3)[::-1]))
    )
    assert (found.confusion == wanted.confusion).all()
    assert found.loss == wanted.loss
    labels = data.labels.copy()
    labels[1, 0] = 1
    with pytest.raises(
        UsageError, match=r"any number of labels \(y has 2\), and the model names one"
    ):
        evaluate(model, replace(data, labels=labels))
    with pytest.raises(UsageError, match="labels run from"):
        score(lambda x: x, [(np.zeros((1, 3)), np.array([4]))], tuple("abc"))


@pytest.mark.parametrize(
    ("labels", "threshold", "words"),
    [
        (np.eye(4, 2), 0.5, r"float64 \(4, 2\), expected a list .* or rows of 3 numbers 0 and 1"),
        (np.full((4, 3), 2), 0.5, "a label is 2: in a row of labels, expected 1"),
        (np.full((4, 3), np.nan), 0.5, "a label is nan"),
        ([[1, 0, 0], [1]], 0.5, r"the labels are object \(\)"),
        (["a", "b", "c", "a"], 0.5, "the labels are <U1"),
        (np.zeros(4), 0.5, "the labels are float64"),
        ([0, 1, 2, 3], 0.5, "labels run from 0 to 3"),
        ([0, 1, 2, 0], 1.5, "the threshold is 1.5"),
    ],
)
def test_rows_of_labels_that_cannot_be(labels, threshold, words):
    with pytest.raises(UsageError, match=words):
        score_labels(lambda x: x, [(np.zeros((4, 3)), labels)], "abc", threshold=threshold)


def test_labels_in_every_form_that_can_be():
    logits, rows = rng().standard_normal((4, 3)), np.eye(3)[[0, 1, 2, 0]]
    wanted = score_labels(lambda x: x, [(logits, rows.astype(int))], "abc").to_json()
    for labels in (rows, rows == 1, rows.tolist(), [0, 1, 2, 0], np.array([0, 1, 2, 0], "u1")):
        assert score_labels(lambda x: x, [(logits, labels)], "abc").to_json() == wanted


def test_a_single_output_is_not_explained(images):
    model = random_model(ONE, labels=("cat", "dog"), preprocess=SMALL, device="reference")
    with pytest.raises(UsageError, match="single output, and its two labels share one logit"):
        explain(model, images / "test" / "cat" / "0.png")
    several = random_model(MANY, labels=tuple("abc"), preprocess=SMALL, device="reference")
    assert explain(several, images / "test" / "cat" / "0.png", top=3).logits.shape == (3,)
