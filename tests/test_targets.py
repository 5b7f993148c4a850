"""What is learnt of labels: targets of each head, weights, balanced mini-batches, runs."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import training_cases as small
from test_training import OPTIONS, changed, interrupted_after, log_of, same  # noqa: F401

from tinyresnext import evaluate, finetune, load, random_model, train
from tinyresnext.data.dataset import Dataset
from tinyresnext.data.loader import Loader
from tinyresnext.errors import UsageError
from tinyresnext.network.step import Step
from tinyresnext.ops import cpu, reference
from tinyresnext.training.recipes.parts import Loss
from tinyresnext.training.samples.augmentation import unchanged
from tinyresnext.training.samples.sample import Samples
from tinyresnext.training.samples.seen import said_of_seen
from tinyresnext.training.samples.targets import targets
from tinyresnext.training.setting import Setting
from tinyresnext.training.train import headed

ONE = replace(small.SPEC, classes=1, head="sigmoid")
MANY = replace(small.SPEC, classes=3, head="sigmoid")


def two(count=60, seed=0):
    """Images of two classes."""
    return small.pictures(count, ("dark", "red"), seed)


def several(count=60, seed=0):
    """Noise whose redness, greenness and blueness are three labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (count, 3))
    pixels = (rng.integers(0, 100, (count, 8, 8, 3)) + 120 * labels[:, None, None]).astype("u1")
    names = [f"{i}.png" for i in range(count)]
    return Dataset(("red", "green", "blue"), labels, names, pixels.__getitem__, pixels)


# --- targets and weights --------------------------------------------------------------------------


def test_rows_of_each_head():
    plain = targets(small.SPEC, small.pictures(), Loss())
    assert plain.rows(np.array([0, 3])).tolist() == [[1, 0, 0, 0], [0, 0, 0, 1]]
    assert targets(ONE, two(), Loss()).rows(np.array([0, 1])).tolist() == [[0], [1]]
    many = targets(MANY, several(), Loss())
    assert many.rows(np.array([[0, 1, 1]])).tolist() == [[0, 1, 1]]
    assert many.rows(np.array([2])).tolist() == [[0, 0, 1]]
    rows = plain.rows(np.array([0]))
    assert plain.weighed(rows) == (rows, None)


def test_what_is_right_under_each_head():
    logits = np.array([[1, 2, -1], [-1, 0.5, 3]], np.float32)
    three = replace(small.SPEC, classes=3)
    assert (
        targets(three, small.pictures(classes=("a", "b", "c")), Loss()).correct(
            logits, np.array([1, 0])
        )
        == 1
    )
    many = targets(MANY, several(), Loss())
    assert many.correct(logits, np.array([[1, 1, 0], [0, 1, 0]])) == 1
    one = targets(ONE, two(), Loss())
    assert one.correct(np.array([[0.1], [-3]], np.float32), np.array([1, 1])) == 1


def test_classes_weigh_the_same():
    labels = np.array([0] * 6 + [1] * 3 + [3])
    data = replace(small.pictures(10), labels=labels)
    found = targets(small.SPEC, data, Loss(balance="weights"))
    rows, weights = found.weighed(found.rows(labels))
    assert (rows == found.rows(labels)).all()  # each is of one class
    sums = [weights[labels == label].sum() for label in (0, 1, 3)]
    assert sums == pytest.approx([10 / 3] * 3)
    data = several()
    found = targets(MANY, data, Loss(balance="weights"))
    weights = found.weighed(found.rows(data.labels))[1]
    for label in range(3):
        has = data.labels[:, label] == 1
        assert weights[has, label].sum() == pytest.approx(30)
        assert weights[~has, label].sum() == pytest.approx(30)
    labels = np.tile([0, 1, 0], (60, 1))
    labels[:30, 2] = 1
    odd = replace(data, labels=labels)  # a label that no image has, one that all have, and a half
    found = targets(MANY, odd, Loss(balance="weights"))
    assert (found.weighed(found.rows(labels))[1] == 1).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("spec", [small.SPEC, ONE, MANY], ids=["softmax", "one", "many"])
def test_each_class_of_a_mixture_has_its_own_weight(spec, smoothing):
    """The loss is the sum of target * weight * -log(p), as PyTorch's, whose words these are."""
    data = {4: small.pictures(40), 1: two(40), 3: several(40)}[spec.classes]
    data = replace(data, labels=np.where(np.arange(40) < 32, data.labels.T, 0).T)
    found = targets(spec, data, Loss(balance="weights", smoothing=smoothing))
    rows = found.rows(data.labels)
    mixed = (0.3 * rows + 0.7 * rows[::-1]).astype(np.float32)
    z = np.random.default_rng(0).standard_normal(rows.shape).astype(np.float32)
    given, weights = found.weighed(mixed)
    if spec.head == "softmax":
        logs = z - np.log(np.exp(z).sum(1, keepdims=True))
        wanted = -(mixed * found.balance * logs).sum(1).mean()
        loss = reference.softmax_cross_entropy(z, labels=given, smoothing=0.0, weights=weights)
        mass = (mixed * found.balance).sum(0)
    else:
        low, high = np.logaddexp(0, z), np.logaddexp(0, -z)
        wanted = (mixed * found.balance[1] * high + (1 - mixed) * found.balance[0] * low).mean()
        loss = reference.binary_cross_entropy(z, labels=given, smoothing=0.0, weights=weights)
        mass = np.array([1.0])
    assert float(np.mean(loss)) == pytest.approx(float(wanted), rel=1e-5)
    if not smoothing:
        assert mass == pytest.approx([mass[0]] * len(mass))  # so the classes weigh the same


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weights_of_classes_are_those_of_pytorch(smoothing):
    torch = pytest.importorskip("torch")
    data = replace(small.pictures(8), labels=np.array([0, 0, 0, 0, 1, 1, 2, 3]))
    found = targets(small.SPEC, data, Loss(balance="weights", smoothing=smoothing))
    z = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
    given, weights = found.weighed(found.rows(data.labels))
    ours = reference.softmax_cross_entropy(z, labels=given, smoothing=0.0, weights=weights)
    theirs = torch.nn.functional.cross_entropy(
        torch.tensor(z), torch.tensor(data.labels), torch.tensor(found.balance),
        label_smoothing=smoothing, reduction="sum",
    )  # fmt: skip
    assert float(np.mean(ours)) == pytest.approx(float(theirs) / 8, rel=1e-6)


@pytest.mark.parametrize("ops", [reference, cpu], ids=["reference", "cpu"])
@pytest.mark.parametrize("spec", [small.SPEC, ONE, MANY], ids=["softmax", "one", "many"])
def test_a_step_with_weights(ops, spec):
    """All weights of two double the loss and every gradient; a weight of zero leaves one out."""
    data = {4: small.pictures(8), 1: two(8), 3: several(8)}[spec.classes]
    model = random_model(spec, preprocess=small.PREPROCESS, device="reference")
    x = np.random.default_rng(0).standard_normal((8, 8, 8, 3)).astype(np.float32)
    rows = targets(spec, data, Loss()).rows(data.labels)
    plain = Step(model.params, spec, x.shape, ops, threads=1)
    loss, _ = plain(x, rows)
    wanted = {name: np.array(ops.download(value)) for name, value in plain.gradients.items()}
    step = Step(model.params, spec, x.shape, ops, weighted=True, threads=1)
    shape = rows.shape if spec.head == "sigmoid" else rows.shape[:1]
    found, _ = step(x, rows, np.full(shape, 2.0))
    assert found == pytest.approx(2 * loss, rel=1e-6)
    for name, value in wanted.items():
        np.testing.assert_allclose(
            ops.download(step.gradients[name]), 2 * value, rtol=1e-4, atol=1e-6
        )
    none, _ = step(x, rows, np.zeros(shape))
    assert none == 0
    assert not any(ops.download(value).any() for value in step.gradients.values())


# --- balanced mini-batches ------------------------------------------------------------------------


def test_balanced_sampling():
    labels = np.array([0] * 14 + [1] * 5 + [3])
    data = replace(small.pictures(20), labels=labels)
    plain = unchanged(small.PREPROCESS)
    with Loader(data, plain, batch=4, balanced=True) as loader:
        orders = [loader.order(epoch) for epoch in range(6)]
        again = loader.order(0)
    assert np.array_equal(orders[0], again)
    assert not np.array_equal(orders[0], orders[1])
    counts = np.array([np.bincount(labels[order], minlength=4) for order in orders])
    assert counts[:, 2].tolist() == [0] * 6
    assert set(counts[:, [0, 1, 3]].ravel().tolist()) == {6, 7}
    assert (counts.sum(0)[[0, 1, 3]] == 40).all()  # what is left over goes round
    assert len(set(np.concatenate(orders)[labels[np.concatenate(orders)] == 0].tolist())) == 14
    for order in orders:  # of a small class, every image comes about as often
        seen = np.bincount(order, minlength=20)
        assert set(seen[14:19].tolist()) <= {1, 2}
        assert seen[:14].max() == 1
    with Loader(data, plain, batch=4) as loader:
        assert sorted(loader.order(0).tolist()) == list(range(20))


# --- runs -----------------------------------------------------------------------------------------


def test_the_head_follows_the_data():
    assert headed(small.SPEC, two()).head == "softmax"
    assert (headed(small.SPEC, two(), "sigmoid").classes, headed(ONE, two()).classes) == (1, 2)
    assert headed(small.SPEC, several()) == MANY
    assert headed(small.SPEC, small.pictures(), "sigmoid") == replace(small.SPEC, head="sigmoid")


@pytest.mark.parametrize("balance", ["none", "weights", "sampling"])
def test_a_single_output_learns(tmp_path, balance):
    recipe = changed(epochs=8, mixup=0.0, balance=balance)
    made = train(ONE, two(), recipe, tmp_path, validation=two(30, 1), **OPTIONS)
    lines = log_of(tmp_path)
    assert lines[-1]["loss"] < 0.8 * lines[0]["loss"]
    assert lines[-1]["average_precision"] > 0.9
    stored = load(tmp_path / "model.h5", "reference")
    assert (stored.spec, stored.labels) == (ONE, ("dark", "red"))
    assert "top-1 of 30 images" in stored.provenance["accuracy"]
    assert json.loads(stored.provenance["recipe"])["balance"] == balance
    found = evaluate(made, two(30, 1))
    assert found.top1 == pytest.approx(lines[-1]["top1"], abs=0.07)


def test_several_labels_are_learnt_and_resumed(
    tmp_path,
    interrupted_after,  # noqa: F811
    monkeypatch,
):
    recipe = changed(epochs=8, mixup=0.1, balance="weights", lr=0.3)
    options = OPTIONS | {"validation": several(30, 1)}
    made = train(MANY, several(), recipe, tmp_path / "whole", **options)
    lines = log_of(tmp_path / "whole")
    assert lines[-1]["average_precision"] > 0.9
    assert "mean average precision of 30 images" in made.provenance["accuracy"]
    assert evaluate(made, several(30, 1)).score > 0.9
    interrupted_after(8)
    with pytest.raises(KeyboardInterrupt):
        train(MANY, several(), recipe, tmp_path / "cut", **options)
    monkeypatch.undo()
    train(MANY, several(), recipe, tmp_path / "cut", resume=True, **options)
    same(tmp_path / "whole", tmp_path / "cut")


def test_finetune_to_other_heads(tmp_path):
    model = random_model(small.SPEC, preprocess=small.PREPROCESS, device="reference")
    recipe = changed(epochs=1)
    many = finetune(model, several(), recipe, tmp_path / "a", frozen_to="layer2")
    assert (many.spec, many.labels) == (MANY, ("red", "green", "blue"))
    one = finetune(many, two(), recipe, tmp_path / "b", head="sigmoid")
    assert one.spec == ONE
    assert finetune(one, small.pictures(), recipe, tmp_path / "c").spec == small.SPEC


@pytest.mark.parametrize(
    ("spec", "data", "changes", "text"),
    [
        (replace(MANY, head="softmax"), several(), {}, "any number of labels.*--head sigmoid"),
        (MANY, several(), {"balance": "sampling"}, "give --balance weights"),
        (
            small.SPEC,
            small.pictures(),
            {"balance": "weights", "entropy": "binary"},
            "entropy is binary and balance weights: under a softmax head.* give --balance sampling",
        ),
        (ONE, small.pictures(), {}, "4 classes and the network 2"),
        (MANY, two(), {}, "2 classes and the network 3"),
    ],
)
def test_heads_that_do_not_fit(tmp_path, spec, data, changes, text):
    with pytest.raises(UsageError, match=text):
        train(spec, data, changed(**changes), tmp_path / "run", **OPTIONS)
    assert not (tmp_path / "run").exists()


def test_validation_images_without_a_label_say_nothing(tmp_path):
    none = replace(several(20), labels=np.zeros((20, 3), np.int64))
    with pytest.raises(UsageError, match="no validation image has a label"):
        train(MANY, several(), changed(), tmp_path / "run", **OPTIONS | {"validation": none})
    assert not (tmp_path / "run").exists()


# --- the binary cross entropy of one label an image -----------------------------------------------


def test_targets_above_a_threshold_are_one():
    said = Loss(entropy="binary", smoothing=0.1, threshold=0.2)
    found = targets(small.SPEC, small.pictures(), said)
    rows = found.rows(np.array([2, 0]))
    assert np.allclose(rows, [[0.025, 0.025, 0.925, 0.025], [0.925, 0.025, 0.025, 0.025]])
    assert found.cut(0.7 * rows[:1] + 0.3 * rows[1:]).tolist() == [[1, 0, 1, 0]]
    assert found.cut(0.9 * rows[:1] + 0.1 * rows[1:]).tolist() == [[0, 0, 1, 0]]
    as_they_are = targets(small.SPEC, small.pictures(), Loss(entropy="binary"))
    assert (as_they_are.cut(rows) == rows).all()


@pytest.mark.parametrize(
    ("spec", "data"), [(small.SPEC, small.pictures(12)), (ONE, two(12)), (MANY, several(12))]
)
def test_the_larger_part_of_a_mixture_is_right(spec, data):
    setting = Setting(data, None, small.PREPROCESS, (), reference, 1, 0, False, {})
    made = Samples(spec, changed(mixup=1.0, batch=12), setting)
    x, known = np.zeros((12, 8, 8, 3), np.float32), made.targets.known(data.labels)
    kept = set()
    for step in range(8):
        seen = made.of(x, np.arange(12), step)
        own = bool(np.abs(seen.rows - known).max() < 0.5)  # neighbours have the smaller part
        right = known if own else np.roll(known, 1, axis=0)
        assert made.targets.correct(2 * right - 1, seen.labels) == 12
        kept.add(own)
    assert kept == {True, False}


@pytest.mark.parametrize(
    ("spec", "data", "labels", "known"),
    [
        (MANY, several(), np.array([[1, 0, 1], [0, 0, 1]]), [[1, 0, 1], [0, 0, 1]]),
        (MANY, several(), np.array([2, 0]), [[0, 0, 1], [1, 0, 0]]),
        (ONE, two(), np.array([1, 0]), [[1], [0]]),
    ],
)
@pytest.mark.parametrize("balance", ["none", "weights"])
def test_a_sigmoid_smooths_and_mixes_before_it_cuts(spec, data, labels, known, balance):
    """A mixture of 3 to 7 has 0.3, smoothed 0.34: above a threshold of 0.32 only when smoothed."""
    said = Loss(entropy="binary", smoothing=0.2, threshold=0.32, balance=balance)
    found = targets(spec, data, said)
    rows = found.rows(labels)
    assert np.allclose(rows, 0.8 * np.array(known) + 0.1)
    assert found.softened == 0.2  # so the loss does not smooth once more
    lower, mixed = (found.cut(x * rows[:1] + (1 - x) * rows[1:]) for x in (0.25, 0.3))
    assert (lower == known[1:]).all()
    assert (mixed == np.maximum(*np.array(known))).all()
    assert found.cut(rows).tolist() == known
    logits = 2 * np.array(known, np.float32) - 1
    assert found.correct(logits, labels) == 2
    plain = targets(spec, data, replace(said, threshold=0.0))
    if balance == "none":
        assert (plain.rows(labels) == known).all()  # the loss smooths
    if balance == "weights":
        assert np.array_equal(found.balance, plain.balance)


def test_several_labels_weigh_the_same_under_timms_recipe(tmp_path):
    recipe = changed(epochs=1, entropy="binary", threshold=0.2, smoothing=0.1, balance="weights")
    train(MANY, several(), recipe, tmp_path, **OPTIONS)
    assert np.isfinite(log_of(tmp_path)[0]["loss"])


@pytest.mark.parametrize("ops", [reference, cpu])
def test_the_binary_loss_of_a_softmax_head(ops):
    """It is the mean over samples and classes, as PyTorch's and timm's."""
    model = random_model(small.SPEC, seed=0)
    params = {name: ops.upload(value) for name, value in model.params.items()}
    step = Step(params, small.SPEC, (4, 8, 8, 3), ops, binary=True)
    x = np.random.default_rng(0).standard_normal((4, 8, 8, 3)).astype(np.float32)
    rows = np.eye(4, dtype=np.float32)[[0, 3, 1, 1]]
    loss, logits = step(x, rows, None)
    z = logits.astype(np.float64)
    expected = np.mean(np.logaddexp(0, z) - rows * z)
    assert abs(loss - expected) < 1e-6 * expected  # some roundings of float32


# --- the classes of a run -------------------------------------------------------------------------


def columns(images):
    """The same images, with a column of 0 and 1 for each class in place of its number."""
    return replace(images, labels=np.eye(len(images.classes), dtype=int)[images.labels])


SHORT = changed(epochs=1, mixup=0.0, ema=0.0)


def test_columns_with_a_single_1_are_classes_under_a_softmax(tmp_path, capsys):
    images, validation = small.pictures(), small.pictures(20, seed=1)
    plain = train(small.SPEC, images, SHORT, tmp_path / "a", validation=validation, **OPTIONS)
    assert "exactly one label" not in capsys.readouterr().err
    given = columns(images), SHORT, tmp_path / "b"
    train(small.SPEC, *given, validation=columns(validation), **OPTIONS)
    same(tmp_path / "a", tmp_path / "b")
    many = replace(small.SPEC, head="sigmoid")
    train(many, columns(images), SHORT, tmp_path / "c", **OPTIONS)
    assert capsys.readouterr().err.count("every image has exactly one label") == 1
    tuned = finetune(plain, columns(images), SHORT, tmp_path / "d", head="softmax")
    assert tuned.spec == plain.spec
    assert "trained further" in (said := capsys.readouterr().err), said
    assert finetune(plain, columns(images), SHORT, tmp_path / "e").spec.head == "sigmoid"
    assert "every image has exactly one label" in capsys.readouterr().err
    odd = columns(images)
    odd.labels[7] = 1
    with pytest.raises(UsageError, match=r"\('007.png' has 4\).*--head sigmoid"):
        train(small.SPEC, odd, SHORT, tmp_path / "f", **OPTIONS)
    with pytest.raises(UsageError, match=r"y\.ravel\(\) makes"):
        replace(images, labels=images.labels[:, None])  # as Keras has them


def test_classes_without_images_are_named(tmp_path, capsys):
    rare = small.pictures(classes=("a", "b", "c"))
    missing = replace(rare, classes=(*rare.classes, "d"))
    train(small.SPEC, missing, SHORT, tmp_path / "a", validation=rare, **OPTIONS)
    said = capsys.readouterr().err
    assert "warning: no training image has the class 'd', which the network cannot learn" in said
    assert "no validation image has the class 'd'\n" in said
    train(small.SPEC, missing, SHORT, tmp_path / "a", resume=True, validation=rare, **OPTIONS)
    assert "no training image" not in capsys.readouterr().err
    many = replace(several(), labels=several().labels * np.array([1, 0, 0]))
    train(MANY, many, SHORT, "", dry_run=tmp_path / "x.png", **OPTIONS)
    assert "no training image has the labels 'green', 'blue', which" in capsys.readouterr().err
    train(small.SPEC, small.pictures(), SHORT, tmp_path / "b", **OPTIONS)
    assert "no training image" not in capsys.readouterr().err


def test_validation_images_that_are_trained_on_are_counted(tmp_path, capsys):
    """Whatever they are called: a copy has another name. What is not in memory has its path."""
    images, other = small.pictures(20), small.pictures(10, seed=1)
    copies = np.concatenate([images.pixels[:3], other.pixels])
    labels = np.concatenate([images.labels[:3], other.labels])
    names = [f"copy/{i}.png" for i in range(13)]
    both = Dataset(images.classes, labels, names, copies.__getitem__, copies)
    assert said_of_seen(images, None) == said_of_seen(images, other) == ""
    found = said_of_seen(images, both)
    assert found.startswith("3 of the 13 validation images are also trained on, with the same pix")
    assert "such as 'copy/0.png'" in found
    large = replace(images, pixels=None, root=str(tmp_path))
    late = replace(both, pixels=None, names=[*names[:12], "005.png"], root=f"{tmp_path}/./")
    assert "1 of the 13 validation images is also trained on, with the same path" in (
        said_of_seen(large, late)
    )
    assert said_of_seen(images, late) == said_of_seen(replace(large, root=""), late) == ""
    train(small.SPEC, images, SHORT, tmp_path, validation=both, **OPTIONS)
    assert f"warning: {found}" in capsys.readouterr().err


def test_validation_images_have_their_classes_by_name(tmp_path):
    images, validation = small.pictures(), small.pictures(20, seed=1)
    plain = train(small.SPEC, images, SHORT, tmp_path / "a", validation=validation, **OPTIONS)
    order = [3, 1, 0, 2]
    turned = replace(
        validation,
        classes=tuple(images.classes[i] for i in order),
        labels=np.argsort(order)[validation.labels],
    )
    train(small.SPEC, images, SHORT, tmp_path / "b", validation=turned, **OPTIONS)
    assert log_of(tmp_path / "a") == log_of(tmp_path / "b")
    other = replace(validation, classes=("a", "b", "c", "x"))
    with pytest.raises(UsageError, match="the validation set has a class 'x', and the data set to"):
        train(small.SPEC, images, SHORT, tmp_path / "c", validation=other, **OPTIONS)
    many, colours = several(), several(20, seed=1)
    moved = replace(colours, classes=("blue", "red", "green"), labels=colours.labels[:, [2, 0, 1]])
    train(MANY, many, SHORT, tmp_path / "d", validation=colours, **OPTIONS)
    train(MANY, many, SHORT, tmp_path / "e", validation=moved, **OPTIONS)
    assert log_of(tmp_path / "d") == log_of(tmp_path / "e")
    few = replace(colours, classes=("red", "green"), labels=colours.labels[:, :2])
    with pytest.raises(UsageError, match="no column for the label 'blue'"):
        train(MANY, many, SHORT, tmp_path / "f", validation=few, **OPTIONS)
    assert plain.labels == images.classes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"classes": (0, 1, 2, 3)}, r"has the name 0, expected texts: str\(\) makes one"),
        ({"classes": 4}, "the classes of the data set are 4, expected the names"),
        ({"classes": "abcd"}, "the classes of the data set are 'abcd'"),
        ({"names": None}, "the names of the data set are None, expected a text for each"),
    ],
)
def test_names_that_are_no_texts(tmp_path, changes, words):
    with pytest.raises(UsageError, match=words):
        train(small.SPEC, replace(small.pictures(), **changes), SHORT, tmp_path, **OPTIONS)
    assert not list(tmp_path.iterdir())
