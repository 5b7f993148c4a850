"""Quantised models: scales, weights, plans, files, and the command."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import data_files
import h5py
import numba
import numpy as np
import pytest
from PIL import Image

import tinyresnext as tr
from tinyresnext.cli.main import main
from tinyresnext.errors import (
    DeviceError,
    FormatError,
    ImageError,
    IntegrityError,
    ShapeError,
    UnsafeError,
    UsageError,
    WeightsError,
)
from tinyresnext.inference.files import digest_of
from tinyresnext.inference.heads import same_first
from tinyresnext.inference.many.quantise import quantised
from tinyresnext.network.plan import Plan, program
from tinyresnext.network.plan.calibration import BINS, INSIDE, LEAST, Candidates, Histogram, sample
from tinyresnext.network.plan.quantised import (
    Quantisation,
    Scale,
    integer_parts,
    joined,
    rounded,
    split,
)
from tinyresnext.network.spec import Spec
from tinyresnext.ops import backend, cpu, reference
from tinyresnext.store import contents, digest, integers, store

SPEC = Spec((2, 1), cardinality=4, width=4, classes=5, stem="cifar", expansion=1)
SIDE = 12
JIT = not numba.config.DISABLE_JIT
OTHERS = {
    "padded shortcuts": Spec((2, 1), cardinality=2, width=6, classes=5, stem="cifar", shortcut="A"),
    "squeeze and excitation": Spec(
        (1, 1), cardinality=2, width=4, classes=5, stem="cifar", se_reduction=4, se_divisor=4
    ),
    "deep stem, averaged shortcuts": Spec(
        (1, 1), cardinality=2, width=4, classes=5, stem="deep", avg_down=True
    ),
    "blur pooling": Spec((1, 1), cardinality=2, width=4, classes=5, blur_pool="binomial"),
    "no classifier": Spec((1, 1), cardinality=2, width=4, classes=0, stem="cifar"),
}


def images(spec=SPEC, count=16, side=SIDE, seed=1):
    """Return noise that is smooth enough for a network to see something in it."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 1, (count, side // 4, side // 4, spec.channels))
    return list(coarse.repeat(4, 1).repeat(4, 2).astype(np.float32))


def made(spec=SPEC, device="reference", seed=3, side=SIDE, count=16):
    """Return a random model with norms that do something, and what quantising made of it."""
    model = tr.random_model(spec, seed, device)
    rng, params = np.random.default_rng(seed), dict(model.params)
    for name, array in params.items():
        if name.endswith(("running_mean", "bias")):
            params[name] = rng.normal(0, 0.3, array.shape).astype(np.float32)
        elif array.ndim == 1:
            params[name] = rng.uniform(0.5, 1.5, array.shape).astype(np.float32)
    model.params = params
    return model, quantised(model, images(spec, count, side))


@pytest.fixture(scope="module")
def pair():
    """Return a float32 model and a quantised one."""
    model, found = made()
    return model, found.model


# --- scales ---------------------------------------------------------------------------------------


def test_a_histogram_counts_whatever_comes_first():
    rng = np.random.default_rng(0)
    batches = [rng.normal(0, 1 + 3 * i, 1000).astype(np.float32) for i in range(4)]
    found = Histogram()
    for batch in batches:
        found.add(batch)
    sizes = np.abs(np.concatenate(batches))
    assert found.counts.sum() == sizes.size
    assert found.largest == sizes.max()
    assert found.reach / 2 < found.largest <= found.reach
    wanted, _ = np.histogram(sizes, BINS, (0, found.reach))
    # A number at the edge of a bin may be counted on either side.
    assert np.abs(np.cumsum(found.counts) - np.cumsum(wanted)).max() <= 2
    ranges = found.ranges(127)
    assert ranges["maximum"] == found.largest
    assert (sizes <= ranges["percentile"]).mean() >= INSIDE
    assert ranges["squares"] <= found.largest


def test_a_large_value_is_sampled_in_all_channels(monkeypatch):
    monkeypatch.setattr("tinyresnext.network.plan.calibration.MOST", 100)
    values = np.broadcast_to(np.arange(64, dtype=np.float32), (4, 8, 64))
    found = sample(values)
    assert 64 <= len(found) <= 120
    assert len(set(found.tolist())) == 64
    histogram = Histogram()
    histogram.add(np.where(values == 63, 1000, values))
    assert histogram.largest == 1000  # of all numbers, not of the sample


def test_the_scale_with_the_least_error_on_other_numbers_is_taken():
    rng = np.random.default_rng(0)
    normal = np.abs(rng.normal(0, 1, 20_000)).astype(np.float32)
    chosen = {}
    for name, seen in {"plain": normal[::2], "outlier": np.append(normal[::2], 300)}.items():
        histogram = Histogram()
        histogram.add(seen.astype(np.float32))
        found = Candidates(histogram, signed=False)
        found.measure(normal[1::2])
        best = chosen[name] = found.best()
        assert found.errors[best.method] == min(found.errors.values())
        q = reference.quantise(normal[1::2], scale=best.scale)
        lost = normal[1::2] - reference.dequantise(q, scale=best.scale)
        error = np.square(lost, dtype=float).sum() / np.square(normal[1::2], dtype=float).sum()
        assert best.error == pytest.approx(error, rel=1e-6)
    assert chosen["plain"].error < 1e-4
    assert chosen["outlier"].method == "percentile"  # one number of 10,001 is beyond the range
    assert chosen["outlier"].error < 1e-3 < found.errors["maximum"] / found.squares


def test_values_that_are_always_zero_have_a_scale():
    histogram = Histogram()
    histogram.add(np.zeros(9, np.float32))
    found = Candidates(histogram, signed=True)
    found.measure(np.zeros(9, np.float32))
    assert found.best() == Scale(LEAST, "maximum", 0.0)
    assert reference.quantise(np.ones(1, np.float32), scale=LEAST).tolist() == [255]


def test_a_value_that_is_not_finite_is_an_error():
    with pytest.raises(IntegrityError, match="not finite for a calibration image"):
        Histogram().add(np.array([1, np.nan], np.float32))


def test_a_value_that_is_tiny_in_all_images_counts_as_zero():
    """Bins of it would be narrower than float32 can divide by."""
    histogram = Histogram()
    histogram.add(np.array([[0, 1e-36, -LEAST / 2]], np.float32))
    assert set(histogram.ranges(127).values()) == {0.0}
    assert set(Candidates(histogram, True).scales.values()) == {LEAST}
    histogram.add(np.array([[1, 1e-36, 0]], np.float32))
    assert histogram.largest == histogram.reach == 1
    assert histogram.counts[[0, -1]].tolist() == [5, 1]
    small = Histogram()
    small.add(np.array([[LEAST, 0]], np.float32))
    assert small.counts[[0, -1]].tolist() == [1, 1]


# --- weights --------------------------------------------------------------------------------------


def test_integers_and_scales_come_back_from_the_weights():
    rng = np.random.default_rng(0)
    weight = (rng.normal(0, 1, (64, 3, 3, 3)) * 10.0 ** rng.integers(-20, 8, (64, 1, 1, 1))).astype(
        np.float32
    )
    weight[5], weight[6], weight[7] = 0, 1e-38, np.abs(weight[7])
    integers, scale = split(weight)
    assert np.abs(integers.astype(int)).max() == 127
    live = [i for i in range(64) if i not in (5, 6)]
    assert (np.abs(integers[live].astype(int)).max((1, 2, 3)) == 127).all()
    assert not integers[[5, 6]].any()
    exact = integers.astype(np.float64) * scale.astype(np.float64)[:, None, None, None]
    assert np.array_equal(joined(integers, scale), exact)  # each product is a number of float32
    step = np.abs(weight).max((1, 2, 3), keepdims=True) / 127
    assert (np.abs(exact - weight) <= 0.50001 * step + 1e-30).all()
    again, same = split(rounded(weight))
    assert np.array_equal(again, integers)
    assert np.array_equal(same, scale)
    assert np.array_equal(rounded(rounded(weight)), rounded(weight))


# --- networks -------------------------------------------------------------------------------------


def test_what_is_rounded_and_what_is_not():
    parts = integer_parts(SPEC)
    assert parts.weights[0] == "layer1.0.conv1.weight"
    assert "layer2.0.downsample.0.weight" in parts.weights
    assert not {"conv1.weight", "fc.weight"} & set(parts.weights)
    assert not parts.values["conv1"]  # behind the ReLU of the stem
    assert parts.values["layer2.0.downsample.0"]  # a shortcut has negative numbers
    assert 0.5 < parts.work < 1


def fake(model, quantisation, x):
    """Compute the logits in float64 with numbers that are rounded where the plan rounds them."""
    whole = program(
        {n: w.astype(np.float64) for n, w in model.params.items()}, model.spec, reference
    )
    signed, known = integer_parts(model.spec).values, {id(whole.x): x.astype(np.float64)}
    exact = dict(known)
    for call in whole.calls:
        integers = f"{call.name}.weight" in integer_parts(model.spec).weights
        source = known if integers or "downsample" in call.name else exact
        args = [source.get(id(a), a) for a in call.args]
        attrs = {key: source.get(id(a), a) for key, a in call.attrs.items()}
        y = getattr(reference, call.op)(*args, **attrs)
        exact[id(call.out)] = known[id(call.out)] = y
        if call.name in signed:
            scale = quantisation.scales[call.name].scale
            low, high = (-127, 127) if signed[call.name] else (0, 255)
            known[id(call.out)] = np.clip(np.rint(y / scale), low, high) * scale
    return y


def test_a_plan_computes_what_rounded_numbers_would(pair):
    """The reference's plan, against float64 with rounding in the same places."""
    _, model = pair
    x = np.stack(images(seed=7))
    wanted, found = fake(model, model.quantisation, x), model(x)
    # Float32 and float64 may round a few numbers that are nearly halves to different integers.
    assert np.abs(found - wanted).max() < 0.002 * np.abs(wanted).max()
    wrong = {
        name: one._replace(scale=4 * one.scale) for name, one in model.quantisation.scales.items()
    }
    other = fake(model, Quantisation(wrong, 1), x)
    assert np.abs(found - other).max() > 0.01 * np.abs(wanted).max()


@pytest.mark.parametrize("name", OTHERS)
def test_networks_of_all_kinds(name):
    spec = OTHERS[name]
    side = 64 if spec.stem in ("deep", "imagenet") else SIDE
    model, found = made(spec, side=side)
    assert found.error < 0.2
    x = np.stack(images(spec, 4, side, 9))
    wanted, logits = model(x), found.model(x)
    assert np.abs(logits - wanted).max() < 0.2 * np.abs(wanted).max()
    assert {call.op for call in found.model.plan(x.shape).calls} >= {"conv2d_int8", "quantise"}


def test_first_classes_are_compared_where_there_are_any():
    single = replace(SPEC, classes=1, head="sigmoid")
    _, found = made(single)
    x = np.stack(images(single)[3::4])
    wanted = made(single)[0](x)
    assert found.compared == len(x)
    assert found.same == ((found.model(x) > 0) == (wanted > 0)).sum()
    assert made(OTHERS["no classifier"])[1].same is None
    few, others = np.array([[-1.0], [2.0], [3.0]]), np.array([[1.0], [2.0], [-3.0]])
    assert same_first(single, few, others) == 1


def test_a_network_that_is_too_deep_for_the_count(tmp_path):
    """Eight stages with blur pooling need images of more than 256 pixels."""
    deep = Spec((1,) * 8, cardinality=1, width=1, classes=2, expansion=1, blur_pool="binomial")
    with pytest.raises(UsageError, match="an image of 256 x 256 too small"):
        integer_parts(deep)
    with pytest.raises(FormatError, match="cannot be of a quantised model"):
        integers.meaning({"images": 1, "scales": {}}, deep)
    with pytest.raises(FormatError, match="cannot be of a quantised model"):
        integers.shapes_of_scales(deep)


def test_the_scales_of_a_very_deep_network_have_room():
    """The longest scales of 1,800 values have more bytes than any other document may have."""
    deep = Spec((600,), cardinality=1, width=1, classes=2, expansion=1, stem="cifar")
    longest = Scale(float(np.float32(1.2345678e-12)), "percentile", 1.2345678901234567e-105)
    wanted = Quantisation(dict.fromkeys(integer_parts(deep).values, longest), 10)
    stored = store.Stored(deep, {}, tr.Preprocess(8, 8), ("a", "b"), {})
    documents = contents.documents_of(stored, wanted)
    assert len(documents[integers.DOCUMENT]) > 2 * contents.MOST_JSON
    assert contents.quantisation_of(documents, deep) == wanted
    documents[integers.DOCUMENT] += " " * (1 << 18)
    with pytest.raises(UnsafeError, match="the attribute quantisation has"):
        contents.quantisation_of(documents, deep)


def test_the_processor_computes_it_too(pair):
    _, model = pair
    x = np.stack(images(seed=5))[: 16 if JIT else 1]
    mine = tr.Model(
        model.spec, model.params, model.preprocess, model.labels, model.provenance, cpu, 1,
        model.quantisation,
    )  # fmt: skip
    wanted, found = model(x), mine(x)
    assert np.abs(found - wanted).max() < 0.01 * np.abs(wanted).max()
    if not JIT:  # the rest takes a minute there
        return
    two = pickle.loads(pickle.dumps(mine))  # as it is sent to another process
    two.threads = min(2, cpu.thread_count())
    assert np.array_equal(two(x), found)
    one = np.concatenate([mine(x[i : i + 1]) for i in range(len(x))])
    assert np.array_equal(one, found)  # in any mini-batch, the same bits


def test_a_plan_keeps_values_in_bytes(pair):
    floats, model = pair
    shape = (1, 32, 32, 3)
    wide, narrow = (
        Plan(program(m.params, SPEC, reference, m.quantisation), shape, reference)
        for m in (floats, model)
    )
    assert narrow.bytes < wide.bytes
    assert "conv2d_int8" in str(narrow)
    assert sum(call.op == "quantise" for call in narrow.calls) == 1  # behind the stem


def test_features_are_those_that_the_next_stage_sees(pair):
    floats, model = pair
    x = np.stack(images(seed=5))
    found, wanted = model.features(x), floats.features(x)
    assert found.keys() == wanted.keys()
    for name, values in found.items():
        assert values.dtype == np.float32
        assert np.abs(values - wanted[name]).max() < 0.1 * np.abs(wanted[name]).max(), name
    scale = next(
        call.attrs["scale"] for call in model.plan(x.shape).calls if call.name == "layer1.1.conv3"
    )
    steps = found["layer1"] / np.float32(scale)
    assert np.abs(steps - np.rint(steps)).max() < 1e-4
    # The classifier on the pooled features is the network, so nothing was rounded twice.
    logits = found["pooled"] @ model.params["fc.weight"].T + model.params["fc.bias"]
    assert np.allclose(logits, model(x), atol=1e-5)


def test_an_accuracy_is_not_taken_over():
    model = tr.random_model(SPEC, device="reference")
    model.provenance["accuracy"] = "90.00% of CIFAR-10"
    found = quantised(model, images(count=1)).model
    assert found.provenance["accuracy"] == "90.00% of CIFAR-10, before it was quantised"
    assert found.provenance["quantised"] == "to int8, with 1 images"
    assert "quantised" not in model.provenance


def test_what_needs_float32_says_so(pair, tmp_path):
    _, model = pair
    x = np.stack(images(count=1))
    with pytest.raises(UsageError, match="quantised to 8 bits, and `trace`"):
        model.trace(x)
    with pytest.raises(UsageError, match="quantised to 8 bits, and quantising it again"):
        quantised(model, images())
    for value in (np.nan, np.inf):
        wrong = np.where(x == x[0, 0, 0, 0], value, x).astype(np.float32)
        for of in (model, model.plan(x.shape), model.plan(x.shape).profile, model.features):
            with pytest.raises(UsageError, match="NaN or infinite"):
                of(wrong)
    with pytest.raises(UsageError, match="NaN or infinite in float32"):
        model.plan(x.shape)(x.astype(np.float64) * 1e300)
    with pytest.raises(UsageError, match="no images"):
        quantised(tr.random_model(SPEC, device="reference"), [])
    assert repr(model).endswith("tinyresnext.ops.reference, int8)")
    assert model.precision == "int8"


# --- files ----------------------------------------------------------------------------------------


def test_a_file_comes_back_with_the_same_bits(pair, tmp_path):
    _, model = pair
    path = tmp_path / "m.int8.h5"
    tr.save(model, path)
    again = tr.load(path, "reference")
    x = np.stack(images(seed=5))
    assert np.array_equal(again(x), model(x))
    assert again.quantisation == model.quantisation
    assert digest_of(again) == store.digests(path).model == digest_of(model)
    report = store.check(path)
    assert report.passed
    assert "of the tensors in int8" in str(report)
    for name in again.params:  # the weights were freed, and are read again
        assert np.array_equal(again.params[name], model.params[name]), name
    tr.save(again, tmp_path / "n.int8.h5")
    assert (tmp_path / "n.int8.h5").read_bytes() == path.read_bytes()


def test_who_needs_float32_weights_is_told(pair, tmp_path, capsys):
    _, model = pair
    path = tmp_path / "m.int8.h5"
    tr.save(model, path)
    with pytest.raises(FormatError, match="a quantised model, whose weights are rounded"):
        store.read(path)
    with pytest.raises(DeviceError, match=r"is quantised and .* bfloat16 is asked for; leave out"):
        tr.load(path, "reference", precision="bfloat16")
    for suffix in (".pth", ".npz", ".safetensors"):
        assert main(["export", str(path), str(tmp_path / f"m{suffix}")]) == 2
        assert f"the model is quantised, and {suffix} is not written" in capsys.readouterr().err


def test_a_precision_that_a_model_has_can_be_asked_for(pair, command, capsys):
    """It leads to the same model, and is refused where no file has 8 bits."""
    tr.save(pair[1], path := command / "asked.h5")
    found = tr.load(path, "reference", precision=tr.load(path, "reference").precision)
    assert (found.precision, found.ops) == ("int8", reference)
    rows = ("--precision", "int8", command / "photos" / "a", "-o", command / "asked.jsonl")
    assert typed("classify", "--model", path, *rows) == 0
    assert typed("evaluate", command / "photos", "--model", command / "m.h5", *rows[:2]) == 2
    assert "is not quantised, and int8 is asked for; `tinyresnext quantise`" in (
        capsys.readouterr().err
    )
    with pytest.raises(UsageError, match=r"'int8': expected .*; 8 bits are a matter of the file"):
        backend("reference", "int8")


def test_an_older_version_refuses_the_file(pair, tmp_path, monkeypatch):
    """Version 1 compares the attribute first; that is what this version does with a third."""
    _, model = pair
    path = tmp_path / "m.int8.h5"
    tr.save(model, path)
    with h5py.File(path) as file:
        assert file.attrs["format_version"] == b"2"
        assert file["params/layer1/0/conv1/weight"].dtype == np.int8
    monkeypatch.setattr("tinyresnext.store.reading.QUANTISED", "3")
    with pytest.raises(FormatError, match="not of a version that this tinyresnext knows"):
        tr.load(path, "reference")


CONV1 = "params/layer1/0/conv1"


def scales_of(file):
    """Change the scales of a weight."""
    file[f"{CONV1}/weight_scale"][...] = 9


def an_integer(file):
    """Change an integer of a weight."""
    file[f"{CONV1}/weight"][0, 0, 0, 0] ^= 1


def no_scales(file):
    """Remove the scales of a weight."""
    del file[f"{CONV1}/weight_scale"]


def as_floats(file):
    """Store the integers of a weight as float32."""
    values, sha256 = file[f"{CONV1}/weight"][...], file[f"{CONV1}/weight"].attrs["sha256"]
    del file[f"{CONV1}/weight"]
    file.create_dataset(f"{CONV1}/weight", data=values.astype("<f4"), track_times=False)
    file[f"{CONV1}/weight"].attrs.create("sha256", sha256)


def document(change):
    """Return a function that changes the JSON of the quantisation."""

    def changed(file):
        found = json.loads(bytes(file.attrs["quantisation"]))
        change(found)
        text = json.dumps(found, sort_keys=True, separators=(",", ":"))
        del file.attrs["quantisation"]
        file.attrs.create("quantisation", np.bytes_(text.encode()))

    return changed


CHANGES = {
    "scales of a weight": (scales_of, IntegrityError, "sha256"),
    "an integer": (an_integer, IntegrityError, "sha256"),
    "no scales": (no_scales, ShapeError, "missing"),
    "floats": (as_floats, ShapeError, "is not of type int8"),
    "a value without a scale": (
        document(lambda d: d["scales"].pop("conv1")),
        FormatError,
        "'conv1' is in one of both only",
    ),
    "a negative scale": (
        document(lambda d: d["scales"]["conv1"].__setitem__(0, -1.0)),
        FormatError,
        "for conv1; expected a scale",
    ),
    "another scale": (
        document(lambda d: d["scales"]["conv1"].__setitem__(0, 2.0)),
        IntegrityError,
        "the model has the sha256",
    ),
    "a scale beyond floats": (
        document(lambda d: d["scales"]["conv1"].__setitem__(0, 10**400)),
        FormatError,
        "for conv1; expected a scale",
    ),
    "an error beyond floats": (
        document(lambda d: d["scales"]["conv1"].__setitem__(2, 10**400)),
        FormatError,
        "for conv1; expected a scale",
    ),
    "no number": (document(lambda d: d.update(images=True)), FormatError, "has True images"),
    "more": (document(lambda d: d.update(more=1)), FormatError, "not as tinyresnext writes it"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_file_that_was_changed_is_refused(name, pair, tmp_path):
    change, error, says = CHANGES[name]
    path = tmp_path / "m.int8.h5"
    tr.save(pair[1], path)
    with h5py.File(path, "r+", libver="earliest") as file:
        change(file)
    with pytest.raises(error, match=says):
        tr.load(path, "reference")
    assert not store.check(path).passed


def test_weights_that_are_no_integers_are_not_written(pair, tmp_path):
    _, model = pair
    params = dict(model.params)
    params["layer1.0.conv1.weight"] = params["layer1.0.conv1.weight"] + np.float32(1e-3)
    changed = tr.Model(
        model.spec, params, model.preprocess, model.labels, model.provenance, model.ops, 1,
        model.quantisation,
    )  # fmt: skip
    with pytest.raises(IntegrityError, match="is not a product of integers of 8 bits"):
        tr.save(changed, tmp_path / "m.h5")
    assert not (tmp_path / "m.h5").exists()


def test_a_float_model_has_the_digest_that_it_had(tmp_path):
    """The version of the format is in the digest, and that of float32 models has not changed."""
    model = tr.random_model(SPEC, device="reference")
    tr.save(model, tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5") as file:
        assert file.attrs["format_version"] == b"1"
        assert "quantisation" not in file.attrs
    assert digest.version_of({}) == "1"


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """Return a folder with a model, images and what `quantise` made of them."""
    folder = tmp_path_factory.mktemp("quantise")
    model, _ = made()
    tr.save(model, folder / "m.h5")
    for label in ("a", "b"):
        (folder / "photos" / label).mkdir(parents=True)
    for i, x in enumerate(images(count=10)):
        pixels = np.clip(128 + 50 * x, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / "ab"[i % 2] / f"{i}.png")
    return folder


def typed(*words):
    """Run a command on the reference, and return its exit code."""
    return main([*map(str, words), "--device", "reference"])


def test_the_command_and_all_that_take_its_file(command, capsys):
    photos, out = command / "photos", command / "m.int8.h5"
    assert typed("quantise", command / "m.h5", "--images", photos, "--count", "8") == 0
    done = capsys.readouterr()
    assert done.out == f"{out}\n"
    assert "computes in   int8" in done.err
    assert "found on 8 images" in done.err
    assert "2 of the images were held back" in done.err
    assert out.stat().st_size < (command / "m.h5").stat().st_size
    assert typed("quantise", command / "m.h5", "--images", photos) == 2
    assert "exists; give another name" in capsys.readouterr().err
    assert typed("classify", "--model", out, "--json", photos / "a" / "0.png") == 0
    done = capsys.readouterr()
    assert json.loads(done.out)["precisions"] == ["int8"]
    assert "m.int8.h5 is quantised: its convolutions compute in int8" in done.err
    assert main(["info", str(out)]) == 0
    assert "computes in   int8: " in capsys.readouterr().out
    assert main(["verify", str(out)]) == 0
    words = ("features", "--model", out, "-o", command / "f.h5", photos / "a")
    assert typed(*words, "--precision", "int8") == 0
    assert typed(*words, "--resume") == 0  # whole already, and made in the same precision
    with h5py.File(command / "f.h5") as file:
        assert json.loads(file.attrs["settings"])["precision"] == "int8"
    assert typed("quantise", out, "--images", photos, "-o", command / "n.h5") == 2
    assert "quantised to 8 bits" in capsys.readouterr().err
    assert (
        main(
            [
                "explain",
                str(photos / "a" / "0.png"),
                "--model",
                str(out),
                "-o",
                str(command / "p.html"),
                "--device",
                "reference",
            ]
        )
        == 2
    )
    assert (
        typed("classify", "--model", out, "--device", "reference", "--precision", "float16", photos)
        == 4
    )


def test_a_quantised_model_is_not_trained_and_no_image_is_read_for_that(pair, command, capsys):
    tr.save(pair[1], model := command / "untrained.h5")
    words = ("finetune", command / "nowhere", "--init", model, "--out", command / "run")
    assert typed(*words) == 2
    assert "quantised to 8 bits, and training needs float32" in capsys.readouterr().err


def test_too_few_images_to_hold_one_back(command, capsys):
    words = ("quantise", command / "m.h5", "--images", command / "photos", "-o", command / "few.h5")
    assert typed(*words, "--count", "3") == 0
    said = capsys.readouterr().err
    assert "3 of the images are too few to hold one back" in said
    assert "were held back" not in said


def test_a_broken_image_is_left_out_and_named(command, capsys):
    (command / "photos" / "b" / "x.png").write_bytes(b"no image")
    try:
        out = command / "o.h5"
        assert typed("quantise", command / "m.h5", "--images", command / "photos", "-o", out) == 1
        said = capsys.readouterr()
        assert said.out == f"{out}\n"
        assert "x.png" in said.err
        assert "found on 10 images" in said.err
        assert "1 of 11 images cannot be read" in said.err
        assert tr.load(out, "reference").quantisation.images == 10
    finally:
        (command / "photos" / "b" / "x.png").unlink()


def test_images_are_no_model_and_may_be_given_again(command, capsys):
    photos, out = command / "photos", command / "again.h5"
    named = ("tinyresnext_cifar10", "resnext50_32x4d", "resnext20_2x64d")
    for model in (command / "m.h5", *named, command / "missing.pth"):
        assert typed("quantise", "--images", photos, model, "-o", out) == 2
        assert f"give the model first: `tinyresnext quantise {model} " in capsys.readouterr().err
    words = ("--images", photos / "a", "--images", photos / "b", "--count", "8", "-o", out)
    assert typed("quantise", command / "m.h5", *words) == 0
    assert "found on 8 images" in capsys.readouterr().err


def test_images_that_are_not_there_are_refused(command, capsys):
    """The spread draws some images of all: it may never come to one that is missing."""
    photos, out = command / "photos", command / "there.h5"
    words = ("quantise", command / "m.h5", "-o", out, "--count", "4", "--images")
    assert typed(*words, photos, command / "nihgt") == 2
    assert "nihgt', and nothing is found there" in capsys.readouterr().err
    assert typed(*words, photos / "a" / "*.png", photos / "b" / "{5..5}.png") == 0


def test_what_cannot_be_written_is_said_before_the_work(command):
    words = ["quantise", command / "m.h5", "--images", command / "photos", "-o"]
    assert typed(*words, command / "m.onnx") == 2
    assert typed(*words, command / "m.h5", "--force") == 2
    assert typed(*words, command / "nowhere" / "m.h5") == 2


def test_the_python_function(pair, command):
    model = tr.load(command / "m.h5", "reference")
    found = tr.quantise(model, sorted((command / "photos").rglob("*.png")))
    assert found.quantisation.images == 10
    with pytest.raises(WeightsError):
        store.read(command / "photos" / "a" / "0.png")


def test_the_python_function_takes_a_data_set(command, tmp_path, monkeypatch, capsys):
    """Raw pixels, and images that are found when their turn comes, one of them broken."""
    seen = "tinyresnext.inference.many.quantise.quantised"
    monkeypatch.setattr(seen, lambda _, images: SimpleNamespace(model=list(images)))
    model = tr.load(command / "m.h5", "reference")
    data = tr.data.open_dataset(command / "photos", None)
    pixels = np.stack([data.picture(i) for i in range(len(data))])
    raw = tr.data.from_arrays(pixels, data.labels)
    later = tr.data.open_labelled([command / "photos"])
    wanted = tr.quantise(model, list(pixels))
    for images in (data, raw, later):
        assert np.array_equal(tr.quantise(model, images), wanted)
    grey = tr.data.from_arrays(pixels[:4, :, :, 0], data.labels[:4])
    assert np.shape(tr.quantise(model, grey)) == np.shape(wanted[:4])
    shutil.copytree(command / "photos", tmp_path / "photos")
    (tmp_path / "photos" / "b" / "9.png").write_bytes(b"no image")
    broken = partial(tr.data.open_labelled, [tmp_path / "photos"])
    with pytest.raises(ImageError, match=r"9\.png"):
        tr.quantise(model, broken(on_broken="refuse"))
    assert len(tr.quantise(model, broken(on_broken="skip"))) == 9
    assert "9.png" in capsys.readouterr().err


def test_archives_of_raw_pixels_are_sent_elsewhere(command, tmp_path, capsys):
    (tmp_path / "cifar").mkdir()
    for name, content in data_files.cifar10_binary().items():
        (tmp_path / "cifar" / name.rpartition("/")[2]).write_bytes(content)
    assert typed("quantise", command / "m.h5", "--images", tmp_path / "cifar", "--force") == 2
    assert "raw pixels, such as CIFAR's and MNIST's" in capsys.readouterr().err
