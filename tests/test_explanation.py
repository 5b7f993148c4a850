"""What an explanation says of paths, maps and effects, against the network's own forward pass."""

from __future__ import annotations

import inspect
from pathlib import Path

import elsewhere
import numpy as np
import pytest
import recipe

import tinyresnext as tr
from tinyresnext.errors import ImageError, UsageError
from tinyresnext.explanation import effects
from tinyresnext.explanation.explain import class_number
from tinyresnext.explanation.paths import addends, last_layer, projections
from tinyresnext.explanation.recorded import record
from tinyresnext.images.preprocess import Preprocess
from tinyresnext.inference.model import Model
from tinyresnext.network.resnext import blocks, forward, parameters
from tinyresnext.network.spec import Spec
from tinyresnext.ops import cpu, reference

DATA = Path(__file__).parent / "data"
PHOTOGRAPHS = [DATA / "chelsea.jpg", *sorted((DATA / "photographs").rglob("*.jpg"))[::2][:2]]
SPECS = {
    "imagenet": Spec((1, 2), 4, 8, 7),
    "deep": Spec((1, 1), 4, 8, 7, stem="deep", avg_down=True),
    "padding": Spec((1, 1), 2, 8, 7, shortcut="A"),
    "one path": Spec((2, 1), 1, 16, 7, stem="cifar"),
    "excited": Spec((1, 2), 4, 8, 7, stem="caffe", se_reduction=16),
    "blurred and excited": Spec((1, 1), 4, 8, 7, se_reduction=16, blur_pool="binomial"),
    "dilated": Spec((1, 2), 4, 8, 7, dilated=1),
    "grey": Spec((1, 1), 4, 4, 7, channels=1, stem="pooled", stride_on=1),
}


def gamma(k: int) -> float:
    """Return the relative error of a sum of k products in float32, in whatever order."""
    return k * 2**-24 / (1 - k * 2**-24)


def model_of(name: str, ops=reference) -> Model:
    """Return a network with random weights, whose images have an odd side."""
    spec = SPECS[name]
    params = {key: recipe.tensor(key, shape) for key, shape in parameters(spec).items()}
    mean = (0.5,) * spec.channels
    labels = tuple(f"class {number}" for number in range(spec.classes))
    return Model(spec, params, Preprocess(45, 45, mean=mean, std=mean), labels, {}, ops)


@pytest.fixture(scope="module")
def bundled() -> Model:
    return tr.load()


@pytest.fixture(scope="module")
def chelsea(bundled) -> np.ndarray:
    return tr.prepare(DATA / "chelsea.jpg", bundled.preprocess)


@pytest.fixture(scope="module")
def unlikely(bundled) -> str:
    """Return the class that the photograph is least taken for."""
    [guesses] = bundled.predict(DATA / "chelsea.jpg", top=10)
    return guesses[-1].label


@pytest.fixture(scope="module")
def explained(bundled, unlikely) -> tr.Explanation:
    return tr.explain(bundled, DATA / "chelsea.jpg", block="all", label=unlikely)


def check_sums(model: Model, x: np.ndarray) -> None:
    """Compare the sum of the terms of each block with the network's own sum.

    With k = C d products of a path's last layer, M the sum of their magnitudes, of the shift's and
    of the shortcut's: the network errs by gamma(k + 2) M at most, and the addends, each of them a
    sum of d products, by gamma(d) M.
    """
    recorded = record(model, x)
    for block in blocks(model.spec):
        paths = addends(recorded, block).astype(np.float64)
        last, shortcut = last_layer(recorded, block), recorded.shortcut(block)
        assert len(paths) == model.spec.cardinality
        found = paths.sum(0) + last.shift + shortcut
        inner = np.abs(recorded.inner(block)).astype(np.float64)
        magnitude = inner @ np.abs(last.weight[:, :, 0, 0].T) + np.abs(last.shift)
        magnitude += np.abs(shortcut)
        d = block.channels // model.spec.cardinality
        bound = (gamma(block.channels + 2) + gamma(d)) * magnitude
        error = np.abs(found - recorded.value(f"{block.name}.add"))
        assert (error <= bound).all(), block.name


@pytest.mark.parametrize("photograph", PHOTOGRAPHS, ids=lambda path: path.name)
def test_the_terms_add_up_to_the_block(bundled, photograph):
    check_sums(bundled, tr.prepare(photograph, bundled.preprocess))


@pytest.mark.parametrize("name", SPECS)
def test_the_terms_add_up_in_every_kind_of_network(name):
    model = model_of(name)
    check_sums(model, recipe.pictures(name, (1, model.spec.channels, 45, 45))[0])


def test_the_recorded_network_is_the_one_that_predicts(bundled, chelsea):
    x = chelsea
    recorded, traced = record(bundled, x, 2), bundled.trace(x[None])
    np.testing.assert_allclose(recorded.here(recorded.made["fc"].out)[1], bundled(x[None])[0], 1e-4)
    for name in ("layer1.0.relu_1", "layer2.0.add", "layer3.1.relu_2"):
        theirs = traced[name][0]
        assert np.abs(recorded.value(name) - theirs).max() <= 1e-5 * np.abs(theirs).max()


def without(model: Model, x: np.ndarray, block: str, term: int) -> np.ndarray:
    """Return the logits of `forward` without a term: its weights, shift or shortcut are zero.

    What squeeze and excitation multiplies by stays that of the whole block.
    """
    params, paths = dict(model.params), model.spec.cardinality
    seen: dict[str, np.ndarray] = {}
    excitation = model.trace(x[None])[f"{block}.se.fc2"] if model.spec.se_reduction else None
    if term < paths:
        weight = params[f"{block}.conv3.weight"].copy()
        d = weight.shape[1] // paths
        weight[:, term * d : (term + 1) * d] = 0
        params[f"{block}.conv3.weight"] = weight
    elif term == paths:
        mean, var, scale = (
            params[f"{block}.bn3.{part}"] for part in ("running_mean", "running_var", "weight")
        )
        params[f"{block}.bn3.bias"] = mean * scale / np.sqrt(var + model.spec.eps)

    def at(name, value):
        seen[name] = value
        if name == f"{block}.se.fc2":
            return excitation
        if name == f"{block}.add" and term == paths + 1:
            return seen.get(f"{block}.se", seen[f"{block}.bn3"])
        return value

    return forward(params, model.spec, x[None], reference, at=at)[0]


@pytest.mark.parametrize("photograph", PHOTOGRAPHS, ids=lambda path: path.name)
def test_an_exact_effect_is_what_the_forward_pass_says(bundled, photograph):
    """Two forward passes in float32 that round in other places differ by some 1e-6."""
    x = tr.prepare(photograph, bundled.preprocess)
    recorded, [logits] = record(bundled, x), bundled(x[None])
    for number in (0, 3, -1):  # both kinds of shortcuts
        block = recorded.blocks[number]
        found = effects.exact(recorded, block)
        assert found.shape == (bundled.spec.cardinality + 2, 10)
        for term, lost in enumerate(found):
            theirs = without(bundled, x, block.name, term)
            assert np.abs(logits - lost - theirs).max() <= 1e-4, (block.name, term)


@pytest.mark.parametrize("name", SPECS)
def test_effects_in_every_kind_of_network(name):
    model = model_of(name, cpu)
    image = np.random.default_rng(3).integers(0, 256, (45, 45, 3)).astype(np.uint8)
    found = tr.explain(model, image, block="all", top=2)
    x = tr.prepare(image, model.preprocess)
    numbers = [guess.index for guess in found.classes]
    scale = np.abs(found.logits).max()
    for terms in found.blocks:
        assert terms.shares.sum() == pytest.approx(1, abs=1e-4)
        for term in range(len(terms.names)):
            theirs = without(model, x, terms.block.name, term)[numbers]
            assert np.abs(found.logits - terms.exact[:, term] - theirs).max() <= 1e-4 * scale


def test_a_first_order_effect_is_a_slope():
    """The logit's slope along a term, by a central difference in float64."""
    model, h = model_of("imagenet"), 1e-6
    image = np.random.default_rng(4).integers(0, 256, (45, 45, 3)).astype(np.uint8)
    found, recorded = tr.explain(model, image), record(model, tr.prepare(image, model.preprocess))
    params = {name: value.astype(np.float64) for name, value in model.params.items()}
    x = tr.prepare(image, model.preprocess)[None].astype(np.float64)
    for terms in found.blocks:
        all_terms = [*addends(recorded, terms.block), recorded.shortcut(terms.block)]
        for number, term in ((0, all_terms[0]), (2, all_terms[2]), (5, all_terms[-1])):
            ends = []
            for step in (h, -h):

                def at(name, value, step=step, block=terms.block.name, term=term):
                    return value + step * term if name == f"{block}.add" else value

                ends.append(forward(params, model.spec, x, reference, at=at)[0])
            slope = (ends[0] - ends[1]) / (2 * h)
            slopes = slope[[guess.index for guess in found.classes]]
            np.testing.assert_allclose(
                terms.effects[:, number], slopes, rtol=1e-3, atol=1e-4 * np.abs(slopes).max()
            )


def test_what_a_projection_says_is_what_the_addends_say(explained, bundled, chelsea):
    recorded = record(bundled, chelsea)
    for terms in explained.blocks:
        block, paths = terms.block, addends(recorded, terms.block).astype(np.float64)
        shift = np.broadcast_to(last_layer(recorded, block).shift, paths[0].shape)
        all_terms = np.stack([*paths, shift, recorded.shortcut(block)])
        y = all_terms.sum(0)
        shares = (all_terms * y).sum(3) / (y * y).sum()
        np.testing.assert_allclose(terms.share_maps, shares, atol=1e-6)
        np.testing.assert_allclose(terms.channel_maps, all_terms[..., terms.channel], atol=1e-5)
        direction = np.random.default_rng(0).standard_normal(y.shape)[None]
        np.testing.assert_allclose(
            projections(recorded, block, direction)[0], (all_terms * direction).sum(3), atol=1e-4
        )
        assert terms.shares.sum() == pytest.approx(1, abs=1e-6)


def test_the_class_activation_map_is_the_logit(explained, bundled, chelsea):
    """The network's mean is a sum of p values, its logit one of c products: see `gamma`."""
    last, p = bundled.features(chelsea[None])["layer3"][0].astype(np.float64), 16
    for k, guess in enumerate(explained.classes):
        weight, bias = bundled.params["fc.weight"][guess.index], explained.biases[k]
        magnitude = (last.mean((0, 1)) * np.abs(weight)).sum() + abs(bias)
        error = abs(explained.cam[k].mean() + bias - explained.logits[k])
        # The plan and the recorded pass round the last stage differently, by some 1e-6.
        assert error <= (gamma(len(weight) + p + 3) + 1e-6) * magnitude


def test_grad_cam_of_the_last_stage_is_the_class_activation_map(explained):
    """There the gradient is the classifier's weight over the number of positions."""
    cam = np.maximum(explained.cam, 0)
    found = explained.stages[-1].grad_cam
    np.testing.assert_allclose(found, cam / 16, atol=1e-6 * cam.max())


def test_what_is_explained(explained, bundled, unlikely):
    assert explained.predictions[0].label == "cat"
    assert explained.predictions == bundled.predict(DATA / "chelsea.jpg")[0]
    assert explained.classes[explained.label].label == unlikely
    assert len(explained.classes) == 6
    assert explained.image.shape == (32, 32, 3)
    assert [stage.name for stage in explained.stages] == ["layer1", "layer2", "layer3"]
    for stage in explained.stages:
        means = [channel.mean for channel in stage.channels]
        assert means == sorted(means, reverse=True)
    paths = [f"path {number}" for number in range(bundled.spec.cardinality)]
    assert explained.blocks[0].names == (*paths, "shift", "shortcut")
    assert "chelsea.jpg" in repr(explained)
    usual = tr.explain(bundled, str(DATA / "chelsea.jpg"), top=1)
    assert [terms.exact is None for terms in usual.blocks] == [True] * 5 + [False]
    assert len(usual.classes) == 1


def test_more_classes_than_copies(bundled, chelsea):
    numbers, names = [3, 0, 9, 5, 1], ["layer1.0.add", "layer3.1.relu_2"]
    few, many = (record(bundled, chelsea, n).gradients(numbers, names) for n in (2, 5))
    for name in names:
        assert len(few[name]) == 5
        np.testing.assert_allclose(few[name], many[name], atol=1e-6)


def test_terms_in_pieces(bundled, chelsea, explained, monkeypatch):
    monkeypatch.setattr(effects, "PIECE", 1)
    recorded = record(bundled, chelsea)
    found = effects.exact(recorded, recorded.blocks[1])
    numbers = [guess.index for guess in explained.classes]
    np.testing.assert_allclose(found[:, numbers].T, explained.blocks[1].exact, atol=1e-5)


@pytest.mark.parametrize("name", SPECS)
def test_a_device_with_its_own_memory(name):
    image = np.random.default_rng(5).integers(0, 256, (60, 50, 3)).astype(np.uint8)
    there, here = (
        tr.explain(model_of(name, ops), image, block="all", top=3) for ops in (elsewhere, reference)
    )
    assert np.array_equal(there.cam, here.cam)
    for one, other in zip(there.blocks, here.blocks, strict=True):
        for field in ("share_maps", "effect_maps", "channel_maps", "exact"):
            assert np.array_equal(getattr(one, field), getattr(other, field)), field
    for one, other in zip(there.stages, here.stages, strict=True):
        assert np.array_equal(one.grad_cam, other.grad_cam)


def test_a_dead_block_has_no_shares():
    model = model_of("one path")
    model.params = {name: value * 0 for name, value in model.params.items()}
    model.params |= {name: value + 1 for name, value in model.params.items() if "var" in name}
    found = tr.explain(model, np.zeros((45, 45, 3), np.uint8), top=1)
    assert found.blocks[0].shares.tolist() == [0, 0, 0]
    assert found.html()


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"block": "layer9.0"}, UsageError, "there is no block 'layer9.0': expected one of layer1"),
        ({"label": "dgo"}, UsageError, "did you mean dog"),
        ({"label": 10}, UsageError, "label is 10"),
        ({"block": 3}, UsageError, "there is no block 3"),
        ({"top": 0}, UsageError, "top is 0"),
        ({"top": 21}, UsageError, "top is 21"),
        ({"image": DATA / "README.md"}, ImageError, "README.md"),
        ({"image": DATA / "nothing.jpg"}, ImageError, "nothing.jpg"),
    ],
)
def test_errors(bundled, given, error, words):
    with pytest.raises(error, match=words):
        tr.explain(bundled, **({"image": DATA / "chelsea.jpg"} | given))


def test_block_and_label_may_be_positional():
    """The four arguments before those that have names only are these, in this order."""
    kinds = inspect.signature(tr.explain).parameters
    places = [name for name, one in kinds.items() if one.kind is one.POSITIONAL_OR_KEYWORD]
    assert places == ["model", "image", "block", "label"]


def test_a_class_by_name_or_number(bundled):
    for label, number in (
        ("dog", 5),
        ("DOG", 5),
        ("5", 5),
        ("0000000005", 5),
        (np.int64(9), 9),
        ("airplane", 0),
    ):
        assert class_number(bundled.labels, label) == number
    assert class_number(("7", "3"), "7") == 0  # names come before numbers
    with pytest.raises(UsageError, match=r"2 classes are called 'crane'; give a number: 0, 1"):
        class_number(("crane", "crane", "tench"), "crane")
    many = tuple(f"class {i}" for i in range(1000))
    for wrong in ("clas 77", "1000", "-1", "", "0000001234", "9" * 5000):
        with pytest.raises(UsageError, match="one of its 1000 names, or a number below 1000"):
            class_number(many, wrong)


def test_another_precision_is_refused():
    model = tr.load(device="reference", precision="bfloat16")
    with pytest.raises(UsageError, match="computes in bfloat16, and an explanation"):
        tr.explain(model, DATA / "chelsea.jpg")


def test_a_single_class_is_refused():
    model = model_of("one path")
    model.spec = Spec((2, 1), 1, 16, 1, stem="cifar")
    with pytest.raises(UsageError, match="single output"):
        tr.explain(model, DATA / "chelsea.jpg")
