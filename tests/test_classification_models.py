"""Networks of classification_models for Keras: three generations of names, and bn_data."""

from __future__ import annotations

import re

import cases
import foreign_files as ff
import key_schemes
import numpy as np
import pytest

from tinyresnext import Preprocess, Spec
from tinyresnext.checkpoints.imagenet import imagenet_labels
from tinyresnext.checkpoints.notes import Doubt, prepared
from tinyresnext.errors import FormatError, IntegrityError, WeightsError
from tinyresnext.network.resnext import blocks

SPEC = Spec((1, 2), 32, 4, 10, expansion=1, eps=2e-5)
FIELDS = {"weight": "gamma", "bias": "beta"}
FIELDS |= {"running_mean": "moving_mean", "running_var": "moving_variance"}
MEAN, VARIANCE, SHIFT = (np.float32([a, b, c]) for a, b, c in (
    (120, 110, 100), (3600, 2500, 1600), (0.5, 0, -0.25)))  # fmt: skip


def layers(spec=SPEC, generation="2018", first=1, second=False, top="fc1"):
    """Return the weights of each layer, in the order of the file.

    ``first``: the number of the first convolution without a name; ``second``: the weights have the
    names of the second model of a session.
    """
    made, count = {}, first
    norm = {"beta": SHIFT, "moving_mean": MEAN, "moving_variance": VARIANCE}
    made["bn_data"] = norm
    for key, value in cases.weights(spec, counters=False).items():
        stage, block, module, field = key_schemes.split(key)
        unit = f"stage{stage}_unit{block + 1}_"
        if module == "fc":
            made.setdefault(top, {})[{"weight": "kernel"}.get(field, field)] = value.T
        elif module == "conv2":
            for i, path in enumerate(np.split(value, spec.cardinality)):
                name = f"{unit}conv2_{i}"
                if generation != "2018":
                    name, count = f"conv2d_{count}" if count else "conv2d", count + 1
                made[name] = {"kernel": path.transpose(2, 3, 1, 0)}
        else:
            at = {"downsample.0": "sc", "downsample.1": "sc_bn"}.get(module, module)
            layer = f"{unit}{at}" if stage else {"conv1": "conv0", "bn1": "bn0"}[module]
            if value.ndim == 4:
                made[layer] = {"kernel": value.transpose(2, 3, 1, 0)}
            else:
                made.setdefault(layer, {})[FIELDS[field]] = value
    inner = (lambda name: f"{name}_1") if second else (lambda name: name)
    return {
        layer: {f"{inner(layer)}/{field}:0": array for field, array in weights.items()}
        for layer, weights in made.items()
    }


def with_others(found):
    """Return the layers with those that have no weights, as Keras lists them."""
    return {"data": {}, **found, "softmax": {}}


GENERATIONS = {
    "2018": {},
    "k22": {"generation": "k22"},
    "k22-later": {"generation": "k22", "first": 97},
    "k22-second": {"generation": "k22", "first": 9, "second": True},
    "tf": {"generation": "tf", "first": 0},
    "own-top": {"generation": "tf", "first": 0, "top": "dense_3"},
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "w.h5"


@pytest.mark.parametrize("full", [False, True], ids=["weights", "model"])
@pytest.mark.parametrize("generation", GENERATIONS)
def test_every_generation(path, generation, full):
    found = with_others(layers(**GENERATIONS[generation]))
    path.write_bytes(ff.keras_file(found, fixed=not full, top="model_weights" if full else ""))
    stored, notes = cases.read_checkpoint(path)
    assert stored.spec == SPEC
    for name, value in cases.weights(SPEC, counters=False).items():
        assert np.array_equal(stored.params[name], value), name
    std = np.sqrt(VARIANCE.astype(np.float64) + 2e-5)
    assert np.allclose(stored.preprocess.std, std / 255, rtol=1e-15)
    assert np.allclose(stored.preprocess.mean, (MEAN - SHIFT * std) / 255, rtol=1e-15)
    assert (stored.preprocess.resize, stored.preprocess.crop) == (256, 224)
    assert "found: mean and deviation, in the norm of the input (bn_data)" in notes
    rest = prepared(notes, stored)  # how images are resized and cut, nothing says
    assert rest.startswith("assumed, but for mean and deviation: resized to 256")
    assert isinstance(rest, Doubt)
    assert "names: classification_models" in notes


def test_the_norm_of_the_input_is_the_preprocessing(path):
    """What Keras computes of bytes is what we compute of images."""
    path.write_bytes(ff.keras_file(layers()))
    p = cases.read_checkpoint(path).stored.preprocess
    image = np.arange(256)[:, None].astype(np.float64)
    theirs = (image - MEAN) / np.sqrt(VARIANCE.astype(np.float64) + 2e-5) + SHIFT
    ours = (image / 255 - p.mean) / p.std
    assert np.abs(ours - theirs).max() < 1e-13


def test_the_norm_is_a_part_of_the_network(path):
    """Another preprocessing changes how images are cut, and not what the network computes."""
    path.write_bytes(ff.keras_file(layers()))
    usual = cases.read_checkpoint(path).stored.preprocess
    p = cases.read_checkpoint(path, preprocess=Preprocess(99, 88, "bicubic")).stored.preprocess
    assert (p.resize, p.crop, p.interpolation) == (99, 88, "bicubic")
    assert (p.mean, p.std) == (usual.mean, usual.std)


def test_without_a_classifier(path):
    spec = Spec((1, 2), 32, 4, 0, expansion=1, eps=2e-5)
    path.write_bytes(ff.keras_file(layers(spec)))
    stored, notes = cases.read_checkpoint(path)
    assert (stored.spec, stored.labels) == (spec, ())
    assert any("no classifier" in note for note in notes)


def test_imagenets_classes(path):
    spec = Spec((1,), 32, 4, 1000, expansion=1, eps=2e-5)
    path.write_bytes(ff.keras_file(layers(spec)))
    assert cases.read_checkpoint(path).stored.labels == imagenet_labels()


def test_numbers_are_sorted_as_numbers(path):
    """The list of layers may be in the order of the text, as HDF5 lists them."""
    for options in ({}, {"generation": "k22"}):
        found = dict(sorted(layers(**options).items()))
        assert list(found).index("conv0") > 1 or options
        path.write_bytes(ff.keras_file(found))
        stored, _ = cases.read_checkpoint(path)
        wanted = cases.weights(SPEC)["layer2.1.conv2.weight"]
        assert np.array_equal(stored.params["layer2.1.conv2.weight"], wanted)


# -- squeeze and excitation: all layers are numbers

SE = Spec((2, 1), 32, 4, 10, se_reduction=16, eps=9.999999747378752e-06)


def numbered(first=1, norm=1, spec=SE, depth=True):
    """Return the layers of an SE-ResNeXt; ``first`` and ``norm`` are their first numbers.

    ``depth``: in the order of the file, in which a shortcut stands behind squeeze and excitation.
    """
    weights, made = cases.weights(spec, counters=False), {}
    counts = {"conv2d": first, "batch_normalization": norm}

    def add(kind, fields):
        number = counts[kind]
        counts[kind] += 1
        made[f"{kind}_{number}" if number else kind] = fields

    def conv(name, biased=False):
        value = weights[f"{name}.weight"]
        paths = np.split(value, spec.cardinality) if name.endswith("conv2") else [value]
        for path in paths:
            bias = {"bias": weights[f"{name}.bias"]} if biased else {}
            add("conv2d", {"kernel": path.transpose(2, 3, 1, 0), **bias})

    def bn(name):
        add("batch_normalization", {FIELDS[f]: weights[f"{name}.{f}"] for f in FIELDS})

    conv("conv1")
    bn("bn1")
    for b in blocks(spec):
        for i in (1, 2, 3):
            conv(f"{b.name}.conv{i}")
            bn(f"{b.name}.bn{i}")
        if b.shortcut == "projection":
            conv(f"{b.name}.downsample.0")
            bn(f"{b.name}.downsample.1")
        conv(f"{b.name}.se.fc1", True)
        conv(f"{b.name}.se.fc2", True)
    made["dense_1"] = {"kernel": weights["fc.weight"].T, "bias": weights["fc.bias"]}
    order = sorted(made) if depth else list(made)
    return {
        layer: {f"{layer}/{field}:0": array for field, array in made[layer].items()}
        for layer in order
    }


@pytest.mark.parametrize(
    "options", [{}, {"depth": False}, {"first": 0, "norm": 0}, {"first": 150, "norm": 18}]
)
def test_an_se_network_is_dealt_out_by_number(path, options):
    """The order in the file is another; numbers begin anywhere, and are sorted as numbers."""
    path.write_bytes(ff.keras_file(with_others(numbered(**options))))
    stored, _ = cases.read_checkpoint(path)
    assert stored.spec == SE
    for name, value in cases.weights(SE, counters=False).items():
        assert np.array_equal(stored.params[name], value), name
    assert stored.preprocess == Preprocess()


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f.pop("conv2d_5"),
        lambda f: f.pop("batch_normalization_4"),
        lambda f: f.update(conv2d_999={"conv2d_999/kernel:0": np.ones((1, 1, 4, 4), np.float32)}),
        lambda f: f.update(dense_2=dict(f["dense_1"])),
        lambda f: f.update(own={"own/kernel:0": np.ones((1, 1), np.float32)}),
        lambda f: f["conv2d_3"].update({"conv2d_3/bias:0": np.ones(4, np.float32)}),
        lambda f: f["dense_1"].pop("dense_1/bias:0"),
    ],
)
def test_an_se_network_that_is_another(path, change):
    found = numbered()
    change(found)
    path.write_bytes(ff.keras_file(found))
    with pytest.raises(WeightsError):
        cases.read_checkpoint(path)


def changed(change, **options):
    found = layers(**options)
    change(found)
    return found


WRONG = {
    "no-bn_data": (lambda f: f.pop("bn_data"), FormatError, "keys"),
    "no-shift": (lambda f: f["bn_data"].pop("bn_data/beta:0"), FormatError, "keys"),
    "scaled": (
        lambda f: f["bn_data"].update({"bn_data/gamma:0": SHIFT}),
        FormatError,
        "keys",
    ),
    "a-path-less": (lambda f: f.pop("stage1_unit1_conv2_3"), WeightsError, "resnext11_31x4d"),
    "a-path-more": (
        lambda f: f.update(conv2d_7={"conv2d_7/kernel:0": np.ones((3, 3, 4, 4), np.float32)}),
        FormatError,
        "conv2d_7",
    ),
    "another-layer": (
        lambda f: f.update(dense_9={"dense_9/kernel:0": np.ones((3, 3), np.float32)}),
        FormatError,
        "dense_9",
    ),
    "nan": (
        lambda f: f["bn_data"].update({"bn_data/moving_mean:0": np.float32([1, np.nan, 1])}),
        IntegrityError,
        "NaN",
    ),
    "negative": (
        lambda f: f["bn_data"].update({"bn_data/moving_variance:0": np.float32([1, -1, 1])}),
        IntegrityError,
        "negative variances",
    ),
    "no-variance": (
        lambda f: f["bn_data"].update({"bn_data/moving_variance:0": np.zeros(3, np.float32)}),
        FormatError,
        "bn_data, is none of images",
    ),
    "two-channels": (
        lambda f: f["bn_data"].update(
            {f"bn_data/{n}:0": np.ones(2, np.float32) for n in ("beta", "moving_mean",
                                                               "moving_variance")}
        ),
        WeightsError,
        "bn_data",
    ),
    "unequal-paths": (
        lambda f: f["stage1_unit1_conv2_3"].update(
            {"stage1_unit1_conv2_3/kernel:0": np.ones((3, 3, 4, 8), np.float32)}
        ),
        FormatError,
        "layer1.0.conv2.weight",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_refused(path, case):
    change, error, says = WRONG[case]
    path.write_bytes(ff.keras_file(changed(change)))
    with pytest.raises(error, match=re.escape(says)):
        cases.read_checkpoint(path)
