"""Distillation: the loss and its gradient, models and stored logits as teachers, and whole runs."""

from __future__ import annotations

import json
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import training_cases as small
from data_files import picture, write_files
from op_cases import generator
from ranks import together
from test_adaptive import stopped_after
from test_training import log_of, same

from tinyresnext import Preprocess, load, train
from tinyresnext.data import open_dataset
from tinyresnext.data.dataset import some_of
from tinyresnext.errors import FormatError, IntegrityError, UsageError
from tinyresnext.images.prepare import normalise
from tinyresnext.inference.files import digest_of, save
from tinyresnext.inference.many.logits import (
    logits_of,
    of_images,
    read_logits,
    scored,
    write_logits,
)
from tinyresnext.network.step import Step
from tinyresnext.network.tape import Tape, gradients
from tinyresnext.ops import cpu, reference
from tinyresnext.ops.distillation import Distillation, distilled
from tinyresnext.store.store import digests
from tinyresnext.training.initial import random_model
from tinyresnext.training.recipes import Recipe
from tinyresnext.training.record import state as training_state
from tinyresnext.training.samples.sample import Samples
from tinyresnext.training.samples.teacher import USUAL, Teacher, distillation, softened, taught
from tinyresnext.training.setting import Setting
from tinyresnext.training.setting import _described as described

OPTIONS = {"preprocess": small.PREPROCESS, "device": "reference"}
GREY = Preprocess(8, 8, mean=(0.5,), std=(0.5,))
HOW = [Distillation(0.9, 4.0), Distillation(0.5, 1.0), Distillation(1.0, 0.5)]
U = 2.0**-24


def model(seed=0, **changes):
    """Return a teacher: a network with random weights."""
    given = {"preprocess": small.PREPROCESS, "labels": tuple("abcd")} | changes
    return random_model(given.pop("spec", small.SPEC), seed, "reference", **given)


# --- the loss -------------------------------------------------------------------------------------


def some_logits(dtype=np.float64):
    """Return logits, targets, what a teacher says, and weights, of 3 samples of 5 classes."""
    rng = generator("distillation")
    z, v = (3 * rng.standard_normal((3, 5)) for _ in range(2))
    rows = rng.dirichlet(np.ones(5), 3)
    return [one.astype(dtype) for one in (z, rows, v, np.array([1.0, 0.5, 2.0]))]


def some_teacher(count):
    """Return probabilities of 4 classes for some images."""
    return generator("some teacher").dirichlet(np.ones(4), count)


def computed(ops, z, rows, v, weights, how, smoothing=0.0):
    """Return the loss with its constant, and the gradient of the logits."""
    tape, q = Tape(ops), softened(v, how.temperature)
    place = [
        ops.upload(np.asarray(one, z.dtype)) for one in (z, rows, q, *how.shares(weights, weights))
    ]
    logits, labels, teacher, given, taught_by = place
    loss = distilled(
        tape, logits, labels=labels, teacher=teacher, shares=(given, taught_by),
        temperature=how.temperature, smoothing=smoothing, dtype=z.dtype,
    )  # fmt: skip
    one = ops.upload(np.ones((), z.dtype))
    [gradient] = gradients(tape, one, [logits])
    return float(ops.download(loss)) + how.constant(q, weights), np.array(ops.download(gradient))


def as_it_is_written(z, rows, v, weights, how, smoothing=0.0):
    """Return the loss, term by term from the formula of the paper."""
    total, classes = 0.0, z.shape[1]
    for i in range(len(z)):
        p, p_t, q = (
            np.exp(a) / np.exp(a).sum()
            for a in (z[i], z[i] / how.temperature, v[i] / how.temperature)
        )
        y = rows[i] * (1 - smoothing) + smoothing / classes
        cross = -sum(y[k] * np.log(p[k]) for k in range(classes))
        divergence = sum(q[k] * np.log(q[k] / p_t[k]) for k in range(classes))
        total += weights[i] * (
            (1 - how.weight) * cross + how.weight * how.temperature**2 * divergence
        )
    return total / len(z)


@pytest.mark.parametrize("how", HOW, ids=str)
def test_the_loss_is_the_papers_and_its_gradient_that_of_differences(how):
    z, rows, v, weights = some_logits()
    loss, gradient = computed(reference, z, rows, v, weights, how, smoothing=0.1)
    assert loss == pytest.approx(as_it_is_written(z, rows, v, weights, how, 0.1), rel=1e-12)
    # As it is derived in `distilled`.
    p, p_t = softened(z, 1.0), softened(z, how.temperature)
    y, q = rows * 0.9 + 0.1 / 5, softened(v, how.temperature)
    derived = (1 - how.weight) * (p - y) + how.weight * how.temperature * (p_t - q)
    np.testing.assert_allclose(gradient, derived * weights[:, None] / 3, rtol=1e-12, atol=1e-15)
    step = 1e-6  # its square times third derivatives of at most 1 / T^2, and roundings over it
    for i, k in np.ndindex(z.shape):
        more, less = z.copy(), z.copy()
        more[i, k] += step
        less[i, k] -= step
        both = (as_it_is_written(one, rows, v, weights, how, 0.1) for one in (more, less))
        found = (next(both) - next(both)) / (2 * step)
        assert found == pytest.approx(gradient[i, k], abs=1e-8)


@pytest.mark.parametrize("how", HOW, ids=str)
def test_it_is_pytorchs(how):
    torch = pytest.importorskip("torch")
    z, rows, v, _ = some_logits()
    at, t = torch.tensor(z, requires_grad=True), how.temperature
    hard = torch.nn.functional.cross_entropy(at, torch.tensor(rows), label_smoothing=0.1)
    soft = torch.nn.functional.kl_div(
        torch.log_softmax(at / t, 1), torch.softmax(torch.tensor(v) / t, 1), reduction="batchmean"
    )
    wanted = (1 - how.weight) * hard + how.weight * t**2 * soft
    wanted.backward()
    loss, gradient = computed(reference, z, rows, v, np.ones(3), how, smoothing=0.1)
    assert loss == pytest.approx(wanted.item(), rel=1e-12)
    np.testing.assert_allclose(gradient, at.grad.numpy(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("how", HOW[:2], ids=str)
def test_on_every_backend(ops, how):
    """Some twenty roundings for a probability, of terms of at most w T^2 times 10."""
    exact = computed(reference, *some_logits(), how)
    loss, gradient = computed(ops, *some_logits(np.float32), how)
    bound = 60 * U * max(1, how.weight * how.temperature**2) * 10
    assert loss == pytest.approx(exact[0], abs=bound)
    assert np.abs(gradient - exact[1]).max() <= bound


@pytest.mark.parametrize("ops", [reference, cpu], ids=["reference", "cpu"])
def test_the_teachers_part_may_weigh_otherwise(ops):
    """Of the difference of two losses, only that part is left."""
    rng, how = generator("soft"), HOW[0]
    x, rows, q = rng.standard_normal((4, 8, 8, 3)), rng.dirichlet(np.ones(4), 4), some_teacher(4)
    step = Step(model().params, small.SPEC, x.shape, ops, distillation=how, threads=1)
    weights, soft = np.array([1.0, 0.5, 2.0, 1.5]), np.array([0.5, 3.0, 1.0, 2.0])
    found, logits = step(x, rows, weights, q, soft)
    v = how.temperature * np.log(q)
    labels = replace(how, weight=0.0), weights
    taught = replace(how, weight=1.0), soft
    parts = [as_it_is_written(logits.astype(float), rows, v, w, one) for one, w in (labels, taught)]
    wanted = (1 - how.weight) * parts[0] + how.weight * parts[1]
    assert found == pytest.approx(wanted, rel=1e-5)  # 16 logarithms in float32


@pytest.mark.parametrize("how", HOW[:2], ids=str)
def test_a_step_with_a_teacher(how):
    """In float64: its loss and gradients are those of the tape, whatever it said before."""
    rng, spec = generator("a step with a teacher"), small.SPEC
    params = {name: w.astype(np.float64) for name, w in model().params.items()}
    x = rng.standard_normal((4, 8, 8, 3))
    rows, q = (rng.dirichlet(np.ones(4), 4) for _ in range(2))
    step = Step(params, spec, x.shape, reference, smoothing=0.1, distillation=how, threads=1)
    step(x, rows, None, q[::-1])
    loss, logits = step(x, rows, None, q)
    v = how.temperature * np.log(q)
    wanted = as_it_is_written(logits, rows, v, np.ones(4), how, 0.1)
    assert loss == pytest.approx(wanted, rel=1e-12)
    bias = computed(reference, logits, rows, v, np.ones(4), how, 0.1)[1].sum(0)
    np.testing.assert_allclose(step.gradients["fc.bias"], bias, rtol=1e-10, atol=1e-14)
    assert step.first_not_finite() is None
    with pytest.raises(ValueError, match=r"the teacher says \(3, 4\)"):
        step(x, rows, None, q[:3])


# --- what a teacher sees and says -----------------------------------------------------------------


def test_the_usual_weight_and_temperature():
    assert taught(small.RECIPE, None) == small.RECIPE
    found = taught(small.RECIPE, Teacher((model(),)))
    assert (found.loss.teacher_weight, found.loss.temperature) == (0.9, 4.0)
    assert distillation(small.RECIPE.changed({"temperature": 2.0})) == replace(
        USUAL, temperature=2.0
    )
    assert Recipe.from_json(found.to_json()) == found
    before = found.to_json()
    for name in ("teacher_weight", "temperature"):
        del before[name]
    assert Recipe.from_json(before) == small.RECIPE


def test_a_teacher_that_normalises_otherwise_sees_the_same_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3)).astype(np.uint8)
    own = Preprocess(8, 8, mean=(0.1, 0.2, 0.3), std=(0.2, 0.5, 1.0))
    one = model(preprocess=own)
    x = normalise(pixels, small.PREPROCESS)
    found = Teacher((one,)).probabilities(x, small.PREPROCESS, 4.0, 2)
    wanted = softened(one(normalise(pixels, own)), 4.0)
    assert np.abs(found - wanted).max() < 1e-5
    assert np.abs(found - softened(one(x), 4.0)).max() > 1e-3
    assert "converted to the mean" in Teacher((one,)).said(small.RECIPE, small.PREPROCESS)


def test_several_teachers_are_the_mean_of_their_probabilities():
    x = np.random.default_rng(0).standard_normal((5, 8, 8, 3)).astype(np.float32)
    each = [model(seed) for seed in (1, 2)]
    found = Teacher(tuple(each)).probabilities(x, small.PREPROCESS, 2.0, 5)
    wanted = (softened(each[0](x), 2.0) + softened(each[1](x), 2.0)) / 2
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def samples(teacher, images, **changes):
    """Return what makes the samples of a run, and its first mini-batch."""
    recipe = taught(small.RECIPE.changed({"batch": len(images), **changes}), teacher)
    setting = Setting(
        images, None, small.PREPROCESS, (), reference, 1, 0, False, {}, teacher=teacher
    )
    with setting.loader(recipe, 8) as loader:
        x, numbers = next(loader.epoch(0))
    return Samples(small.SPEC, recipe, setting).of(x, numbers, 0), numbers


def test_a_model_sees_what_the_network_sees():
    one, images = model(), small.pictures(12)
    found, _ = samples(Teacher((one,)), images, mixup=0.2, cutmix=1.0, cutout=3)
    np.testing.assert_allclose(found.teacher, softened(one(found.x), 4.0), rtol=1e-5)


def test_what_was_said_is_mixed_as_labels_are():
    """It said nearly the label of each image, so its mixture is nearly that of the labels."""
    images = small.pictures(12)
    stored = logits_of(model(), "0", images)
    stored = replace(stored, values=100 * np.eye(4, dtype=np.float32)[images.labels])
    found, numbers = samples(Teacher(stored=(stored,)), images, mixup=1.0, temperature=1.0)
    assert 0 < np.abs(found.rows - np.eye(4)[images.labels[numbers]]).max() < 1
    np.testing.assert_allclose(found.teacher, found.rows, atol=1e-6)


@pytest.mark.parametrize("mixup", [0.0, 1.0])
@pytest.mark.parametrize("stored", [False, True])
def test_smoothing_leaves_the_weight_of_what_a_teacher_says(stored, mixup):
    """It weighs as the classes of the mixture do, however much of the label all classes share."""
    images = replace(small.pictures(12), labels=np.array([0] * 7 + [1, 1, 2, 2, 3]))
    said = Teacher(stored=(logits_of(model(), "0", images),)) if stored else Teacher((model(),))
    changes = {"mixup": mixup, "balance": "weights"}
    smooth, _ = samples(said, images, smoothing=0.5, **changes)
    plain, _ = samples(said, images, smoothing=0.0, **changes)
    weights = np.array([12 / (4 * count) for count in (7, 2, 2, 1)])
    assert plain.soft is None  # it is what the targets weigh
    np.testing.assert_allclose(smooth.soft, plain.rows @ weights, rtol=1e-6)
    np.testing.assert_allclose(smooth.teacher, plain.teacher, rtol=1e-6)


class Other(Exception):
    """No teacher."""


@pytest.mark.parametrize(
    ("teacher", "changes", "text"),
    [
        ({"labels": tuple("abdc")}, {}, "class 2 is 'c' in the data set and 'd' for the teacher"),
        ({"labels": tuple("abcx")}, {}, "the data set has a class 'd'"),
        ({"spec": replace(small.SPEC, classes=5), "labels": tuple("abcde")}, {}, "has 5 classes"),
        ({"spec": replace(small.SPEC, head="sigmoid")}, {}, "has a sigmoid"),
        ({"preprocess": Preprocess(16, 16)}, {}, "takes images of 16 x 16.*--size 16"),
        (
            {"spec": replace(small.SPEC, channels=1), "preprocess": GREY},
            {},
            "takes 1 channels and the network 3",
        ),
        ({}, {"entropy": "binary"}, "entropy binary"),
        (None, {"teacher_weight": 0.5}, "there is no teacher"),
        (None, {"temperature": 2.0}, "there is no teacher"),
        ([], {}, "the teachers are none"),
        ([Other()], {}, "the teachers are Other"),
    ],
)  # fmt: skip
def test_what_cannot_be_right(tmp_path, teacher, changes, text):
    given = model(**teacher) if isinstance(teacher, dict) else teacher
    recipe = small.RECIPE.changed(changes)
    with pytest.raises(UsageError, match=text):
        train(small.SPEC, small.pictures(), recipe, tmp_path / "run", teacher=given, **OPTIONS)
    assert not (tmp_path / "run").exists()


def test_a_sigmoid_has_no_teacher(tmp_path):
    spec = replace(small.SPEC, head="sigmoid")
    with pytest.raises(UsageError, match="head sigmoid"):
        train(spec, small.pictures(), small.RECIPE, tmp_path / "run", teacher=model(), **OPTIONS)


# --- stored logits --------------------------------------------------------------------------------


def stored_in(path, images, seed=0):
    """Write the logits of images to a file, in another order, and return what is read."""
    order = np.random.default_rng(1).permutation(len(images))
    write_logits(path, logits_of(model(seed), digest_of(model(seed)), some_of(images, order)))
    return read_logits(path)


def test_a_journey_of_logits(tmp_path):
    images = small.pictures(20)
    found = stored_in(tmp_path / "logits.npz", images)
    x = normalise(images.pixels, small.PREPROCESS)
    np.testing.assert_allclose(of_images(found, images), model()(x), rtol=1e-5, atol=1e-6)
    assert scored(found).top1 == np.mean(model()(x).argmax(1) == images.labels)
    save(model(), tmp_path / "model.h5")
    assert found.about["model"] == digests(tmp_path / "model.h5").model
    part = some_of(images, np.array([3, 1]))
    assert np.array_equal(of_images(found, part), of_images(found, images)[[3, 1]])


def changed_image(images):
    pixels = images.pixels.copy()
    pixels[7, 0, 0, 0] ^= 1
    return replace(images, pixels=pixels, read=pixels.__getitem__)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda d: replace(d, names=["x.png", *d.names[1:]]), "no logits of the image x.png"),
        (lambda d: replace(d, labels=np.roll(d.labels, 1)), "is of class"),
        (lambda d: replace(d, names=d.names[::-1]), "is of class|other pixels"),
        (changed_image, "the image 007.png has other pixels"),
        (lambda d: replace(d, classes=tuple("abdc")), "the logits are of the classes"),
    ],
)
def test_logits_of_other_images(tmp_path, change, text):
    found = stored_in(tmp_path / "logits.npz", small.pictures())
    with pytest.raises(UsageError, match=text):
        train(
            small.SPEC, change(small.pictures()), small.RECIPE, tmp_path / "run", teacher=found,
            **OPTIONS,
        )  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_images_of_several_sizes_in_memory_count_with_every_pixel(tmp_path):
    """For stored logits, and for a run that goes on; images that are not in memory do not."""
    files = {f"{name}/{i}.png": picture(i, 8 + i) for name in "abcd" for i in range(2)}
    images = open_dataset(write_files(tmp_path / "d", files))
    assert (images.pixels, images.in_memory) == (None, True)
    found = stored_in(tmp_path / "logits.npz", images)
    assert of_images(found, images).shape == (8, 4)
    write_files(tmp_path / "d", {"a/1.png": picture(9, 9)})
    other, later = open_dataset(tmp_path / "d"), open_dataset(tmp_path / "d", memory=0)
    with pytest.raises(UsageError, match=r"the image a/1\.png has other pixels"):
        of_images(found, other)
    assert of_images(found, later).shape == (8, 4)
    assert described(images) == described(open_dataset(write_files(tmp_path / "d", files)))
    assert described(images) != described(other)
    assert described(some_of(images, np.arange(4))) != described(some_of(other, np.arange(4)))


def test_logits_of_which_models():
    images = small.pictures(6)
    with pytest.raises(UsageError, match="two images of the data set have the same name"):
        logits_of(model(), "0", replace(images, names=["a"] * 6))
    with pytest.raises(UsageError, match="have the same order"):
        logits_of(model(labels=tuple("bacd")), "0", images)
    with pytest.raises(UsageError, match="kept of a model with a softmax"):
        logits_of(model(spec=replace(small.SPEC, head="sigmoid")), "0", images)


def rewritten(path, **arrays):
    """Write parts of a file of logits anew; None leaves one out."""
    with np.load(path) as file:
        found = dict(file) | arrays
    np.savez(path, **{name: a for name, a in found.items() if a is not None})


def meta(**changes):
    def of(path):
        with np.load(path) as file:
            said = json.loads(file["meta"].tobytes()) | changes
        rewritten(path, meta=np.frombuffer(json.dumps(said).encode(), np.uint8))

    return of


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-100]), FormatError),
        (lambda p: p.write_bytes(b""), FormatError),
        (lambda p: p.unlink(), FormatError),
        (lambda p: rewritten(p, crc32=None), FormatError),
        (lambda p: rewritten(p, labels=np.full(20, 4)), FormatError),
        (lambda p: rewritten(p, labels=np.zeros(19, np.int64)), FormatError),
        (lambda p: rewritten(p, logits=np.full((20, 4), np.nan, np.float32)), IntegrityError),
        (lambda p: rewritten(p, logits=np.zeros((20, 4))), FormatError),
        (lambda p: rewritten(p, logits=np.array([[None]])), FormatError),
        (lambda p: rewritten(p, meta=np.frombuffer(b"[" * 10**5, np.uint8)), FormatError),
        (meta(names=["a"] * 20), FormatError),
        (meta(names=None), FormatError),
        (meta(model=1), FormatError),
        (meta(format="another"), FormatError),
        (meta(more=1), FormatError),
    ],
)
def test_hostile_logits(tmp_path, damage, error):
    path = tmp_path / "logits.npz"
    stored_in(path, small.pictures(20))
    damage(path)
    with pytest.raises(error):
        read_logits(path)


def test_a_flipped_bit_is_found(tmp_path):
    path = tmp_path / "logits.npz"
    stored_in(path, small.pictures(20))
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as file:
        at = file.getinfo("logits.npy").header_offset + 300
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises((FormatError, IntegrityError)):
        read_logits(path)


# --- runs -----------------------------------------------------------------------------------------


def trained(folder, recipe=small.RECIPE, teacher=None, images=None, **more):
    given = OPTIONS | {"teacher": teacher or model(), **more}
    return train(small.SPEC, images or small.pictures(), recipe, folder, **given)


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_bits_with_the_same_teacher(
    tmp_path, monkeypatch, capsys
):
    trained(tmp_path / "whole")
    said = capsys.readouterr().err
    assert "0.1 of the cross entropy with the labels and 0.9 x 4^2 of the divergence" in said
    with monkeypatch.context() as patch:
        patch.setattr("tinyresnext.training.run.Run.tell", stopped_after(5))
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "parts")
    with pytest.raises(UsageError, match=r"has teacher 'model sha256 .*resume it with what"):
        trained(tmp_path / "parts", teacher=model(1), resume=True)
    colder = small.RECIPE.changed({"temperature": 2.0})
    with pytest.raises(UsageError, match="temperature 4"):
        trained(tmp_path / "parts", colder, resume=True)
    with pytest.raises(UsageError, match="has "):
        train(
            small.SPEC, small.pictures(), small.RECIPE, tmp_path / "parts", resume=True, **OPTIONS
        )
    trained(tmp_path / "parts", resume=True)
    same(tmp_path / "whole", tmp_path / "parts")
    found = load(tmp_path / "whole" / "model.h5", "reference").provenance
    assert found["teacher"] == f"model sha256 {digest_of(model())}"
    assert json.loads(found["recipe"])["temperature"] == 4.0


@pytest.mark.slow
def test_stored_logits_in_a_run(tmp_path, monkeypatch):
    """Of images that are not changed they are what the model says; the order in the file is not."""
    plain = small.RECIPE.changed({"mixup": 0.0, "crop": "none", "padding": 0, "flip": False})
    found = stored_in(tmp_path / "logits.npz", small.pictures())
    trained(tmp_path / "model", plain)
    trained(tmp_path / "stored", plain, found)
    # The model saw other mini-batches, and images prepared one by one: roundings.
    losses = [[line["loss"] for line in log_of(tmp_path / name)] for name in ("model", "stored")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert load(tmp_path / "stored" / "model.h5", "reference").provenance["teacher"] == (
        f"logits sha256 {found.sha256} of model sha256 {digest_of(model())}"
    )
    with monkeypatch.context() as patch:
        patch.setattr("tinyresnext.training.run.Run.tell", stopped_after(5))
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "parts", plain, found)
    trained(tmp_path / "parts", plain, found, resume=True)
    same(tmp_path / "stored", tmp_path / "parts")


def test_a_folder_from_before_there_were_teachers_goes_on(tmp_path, monkeypatch):
    def plain(folder, **more):
        return train(small.SPEC, small.pictures(), small.RECIPE, folder, **OPTIONS, **more)

    plain(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("tinyresnext.training.run.Run.tell", stopped_after(5))
        with pytest.raises(KeyboardInterrupt):
            plain(tmp_path / "parts")
    path = tmp_path / "parts" / "state.npz"
    with np.load(path) as file:
        found = dict(file)
    said = json.loads(found["meta"].tobytes())
    for name in ("teacher_weight", "temperature"):
        del said["recipe"][name]
    found["meta"] = np.frombuffer(json.dumps(said).encode(), np.uint8)
    np.savez(path, **found)
    assert training_state.read(path).recipe == small.RECIPE
    plain(tmp_path / "parts", resume=True)
    same(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow
def test_parts_and_weights_of_classes(tmp_path):
    """Without batch norms that see parts, a mini-batch in parts would be the same; it runs."""
    recipe = small.RECIPE.changed({"parts": 4, "balance": "weights", "cutmix": 1.0})
    trained(tmp_path / "run", recipe)
    assert [line["loss"] > 0 for line in log_of(tmp_path / "run")] == [True] * 3


@pytest.mark.slow
@pytest.mark.parametrize("stored", [False, True])
def test_ranks_with_a_teacher(tmp_path, stored):
    recipe = small.RECIPE.changed({"lr": 0.02})
    teacher = stored_in(tmp_path / "logits.npz", small.pictures()) if stored else model()
    trained(tmp_path / "one", recipe, teacher)

    def work(ranks):
        return trained(tmp_path / "two", recipe, teacher, reduce=ranks, sync_norm=True)

    models = together(2, work)
    assert all(np.array_equal(models[0].params[k], models[1].params[k]) for k in models[0].params)
    losses = [[line["loss"] for line in log_of(tmp_path / name)] for name in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.slow
def test_on_the_processor_a_run_resumes_to_the_same_bits(tmp_path, monkeypatch):
    def there(folder, **more):
        return trained(folder, teacher=random_model(
            small.SPEC, 0, "cpu", preprocess=small.PREPROCESS, labels=tuple("abcd")
        ), device="cpu", threads=1, **more)  # fmt: skip

    there(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("tinyresnext.training.run.Run.tell", stopped_after(5))
        with pytest.raises(KeyboardInterrupt):
            there(tmp_path / "parts")
    there(tmp_path / "parts", resume=True)
    same(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow
def test_a_network_learns_from_a_teacher_alone(tmp_path):
    """The labels are those of another question, and have no weight."""
    images = small.pictures(160)
    teacher = train(
        small.SPEC, images, small.RECIPE.changed({"epochs": 8}), tmp_path / "t", **OPTIONS
    )
    wrong = replace(images, labels=np.roll(images.labels, 1))
    recipe = small.RECIPE.changed({"epochs": 12, "teacher_weight": 1.0, "temperature": 1.0})
    found = trained(tmp_path / "s", recipe, teacher, wrong)
    x = normalise(images.pixels, small.PREPROCESS)
    assert np.mean(found(x).argmax(1) == teacher(x).argmax(1)) > 0.9  # by chance: a quarter


# --- the command line -----------------------------------------------------------------------------

NETWORK = ["--blocks", "1,1", "--cardinality", "2", "--width", "8", "--widen", "1"]
NETWORK += ["--stem", "cifar", "--size", "8"]


@pytest.mark.slow
def test_teachers_as_they_are_typed(run, monkeypatch):
    """A run, a run from stored logits, one that goes on where the teacher has moved, a dry run."""
    small.write_folder(Path("images"))
    spec = replace(small.SPEC, classes=2)
    save(model(spec=spec, labels=("dark", "red")), "teacher.h5")
    quick = ["--epochs", "2", "--batch", "4", "--device", "reference", *NETWORK]
    code, out, err = run(
        "evaluate", "images", "--split", "train", "--model", "teacher.h5", "--logits", "t.npz",
        "--device", "reference",
    )  # fmt: skip
    assert (code, "top-1" in out, "t.npz: the logits of 12 images" in err) == (0, True, True), err
    code, _, err = run("train", "images", *quick, "--teacher", "t.npz", "--out", "stored")
    assert (code, "stored logits" in err, "a teacher saw whole images" in err) == (0, True, True), (
        err
    )
    words = ["train", "images", *quick, "--teacher", "teacher.h5", "--teacher", "teacher.h5"]
    with monkeypatch.context() as patch:
        patch.setattr("tinyresnext.training.run.Run.tell", stopped_after(4))
        assert run(*words, "--out", "run")[0] == 130
    Path("teacher.h5").rename("moved.h5")
    code, _, err = run("train", "--resume", "run")
    assert (code, "teacher.h5, which is not there any more" in err) == (3, True), err
    moved = ["--teacher", "moved.h5", "--teacher", "moved.h5"]
    code, _, err = run("train", "--resume", "run", *moved)
    assert (code, "the mean of their probabilities" in err) == (0, True), err
    code, _, err = run("train", "--resume", "run")
    assert code == 0, err
    code, out, err = run(
        "train", "images", *quick, "--teacher", "moved.h5", "--temperature", "2", "--dry-run"
    )
    assert (code, "0.9 x 2^2 of the divergence" in out, Path("dry-run.png").exists()) == (
        0, True, True
    ), err  # fmt: skip
    code, _, err = run("train", "images", *quick, "--temperature", "2", "--out", "no")
    assert (code, "there is no teacher" in err) == (2, True), err
    for more, told in (
        (["--mirror"], "one view"),
        (["--fast-decode"], "--fast-decode"),
        (["--broken", "wrong"], "cannot count as wrong"),
    ):
        code, _, err = run("evaluate", "images", *more, "--logits", "u.npz")
        assert (code, told in err) == (2, True), err


def test_logits_of_what_train_does_not_read(run):
    """Of the bundled model; a message about `evaluate` alone would say nothing to who runs it."""
    small.write_folder(Path("images"))
    image = next(Path("images").rglob("*.png")).as_posix()
    Path("list.txt").write_text(f"{image} dark\n", "utf-8")
    Path("0.cls").write_text("3", "utf-8")
    with tarfile.open("shard.tar", "w") as shard:
        shard.add(image, "0.png")
        shard.add("0.cls")
    for typed in ("list.txt", "images/*/*/*.png", "shard.tar", "shard-{0..1}.tar"):
        code, out, err = run("evaluate", typed, "--logits", "t.npz", "--device", "reference")
        assert (code, out) == (2, "")
        assert typed in err
        assert "is a list, a pattern or a shard, and --logits is for a data set" in err
        assert "a .csv with the first line image,label" in err
    assert not Path("t.npz").exists()
