"""A loaded `Model`: calls, predictions, features and traces, and the errors of wrong calls."""

from __future__ import annotations

import copy
import dataclasses
import gc
import io
import itertools
import multiprocessing
import pickle
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cases
import numpy as np
import pytest
from PIL import Image

import tinyresnext
from tinyresnext import Model, Predictor, Preprocess, Spec
from tinyresnext.data.dataset import Dataset
from tinyresnext.errors import (
    DeviceError,
    FormatError,
    ImageError,
    IntegrityError,
    OutOfMemoryError,
    ShapeError,
    UsageError,
)
from tinyresnext.images.decode import decode
from tinyresnext.images.files import MAX_FILE_BYTES
from tinyresnext.images.prepare import prepare
from tinyresnext.inference import model as inference_model
from tinyresnext.inference.classify import classify
from tinyresnext.inference.ensemble import Ensemble
from tinyresnext.ops import backend, cpu, reference

CAT = Path(__file__).parent / "data" / "chelsea.jpg"
SPEC = Spec((1, 1), 4, 8, 10)


def make(spec: Spec = SPEC, **changes) -> Model:
    """Return a small model with weights made from their names."""
    parts = {
        "spec": spec,
        "params": cases.weights(spec, counters=False),
        "preprocess": Preprocess(resize=72, crop=64),
        "labels": tuple(f"label {i}" for i in range(spec.classes)),
        "provenance": {"source": "made here"},
        "ops": cpu,
    }
    return Model(**(parts | changes))


@pytest.fixture(scope="module")
def model() -> Model:
    return make()


def test_predictions_are_ranked_probabilities(model):
    [guesses] = model.predict(CAT, top=10)
    assert [g.probability for g in guesses] == sorted(
        (g.probability for g in guesses), reverse=True
    )
    assert sum(g.probability for g in guesses) == pytest.approx(1, abs=1e-6)
    assert sorted(g.index for g in guesses) == list(range(10))
    assert all(g.label == f"label {g.index}" for g in guesses)


def test_everything_that_stands_for_a_picture(model):
    pixels = decode(CAT)
    same = [CAT, str(CAT), pixels, Image.fromarray(pixels)]
    found = model.predict(same, top=3, batch=3)
    assert len(found) == 4
    for guesses in found[1:]:
        assert [g.index for g in guesses] == [g.index for g in found[0]]
        assert [g.probability for g in guesses] == pytest.approx(
            [g.probability for g in found[0]], rel=1e-5
        )
    for one in same:
        assert len(model.predict(one)) == 1
    assert model.predict([]) == []
    assert len(model.predict(np.stack([pixels, pixels]))) == 2


class Socket:
    """A file that cannot be rewound and returns less than it was asked for."""

    def __init__(self, data: bytes):
        self.rest = data

    def read(self, most: int = -1) -> bytes:
        part, self.rest = self.rest[:1000], self.rest[1000:]
        return part


@pytest.fixture
def hands(tmp_path):
    """Return functions that make the same image in the forms that programs have it in."""
    data = CAT.read_bytes()

    def written() -> io.BytesIO:
        file = io.BytesIO()
        file.write(data)  # it stands at its end
        return file

    with open(CAT, "rb") as file, open(CAT, "rb", buffering=0) as raw:
        yield {
            "bytes": lambda: data,
            "bytearray": lambda: bytearray(data),
            "memoryview": lambda: memoryview(data),
            "part of a view": lambda: memoryview(
                b"-".join(data[i : i + 1] for i in range(len(data)))
            )[::2],
            "BytesIO": written,
            "file": lambda: file,
            "unbuffered": lambda: raw,
            "socket": lambda: Socket(data),
            "generator": lambda: (path for path in [CAT]),
            "map": lambda: map(str, [CAT]),
            "set": lambda: {CAT},
            "dict's keys": lambda: {CAT: 0}.keys(),
            "array of names": lambda: np.array([str(CAT)]),
            "array of paths": lambda: np.array([CAT], object),
            "iterator of bytes": lambda: iter([data]),
        }


def test_everything_that_a_program_has_in_its_hands(model, hands):
    wanted = model.predict(CAT)
    for name, made in hands.items():
        assert model.predict(made()) == wanted, name
        assert model.predict(made()) == wanted, name  # files are read from their beginning
    parts = list(hands)[:8]
    assert model.predict([hands[name]() for name in parts], batch=3) == wanted * 8
    for name in parts:
        same = tinyresnext.prepare(hands[name](), model.preprocess)
        np.testing.assert_array_equal(same, prepare(CAT, model.preprocess))


def test_a_generator_is_read_a_mini_batch_at_a_time(model):
    taken = []

    def images():
        for i in range(5):
            taken.append(i)
            yield CAT
        yield 5

    with pytest.raises(UsageError, match="item 5 of the generator is of type int"):
        model.predict(images(), batch=2)
    with pytest.raises(UsageError, match="item 0 of the count is of type int"):
        model.predict(itertools.count())
    assert model.predict(iter(())) == []


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (5, "type int"),
        (None, "type NoneType"),
        (3.5, "type float"),
        (object(), "type object"),
        (Path, "type type"),
        ({"a": CAT}, "type dict"),
        ([[CAT]], "item 0 of the list is of type list"),
        ([None], "item 0 of the list is of type NoneType"),
        (range(3), "item 0 of the range is of type int"),
        (Exception("no"), "type Exception"),
        (io.StringIO("text"), "StringIO"),
        (io.BytesIO, "the image in the type"),
    ],
    ids=str,
)
def test_what_is_no_image_is_named(model, images, words):
    with pytest.raises(UsageError, match=rf"{words}.*give .*(path|'rb')"):
        model.predict(images)
    with pytest.raises((UsageError, ImageError)):
        tinyresnext.prepare(images, model.preprocess)


def test_a_data_set_is_no_image(model):
    """It has a method `read`, as an open file has; `classify` takes it."""
    data = Dataset(("a", "b"), np.array([0, 1]), list("xy"), lambda i: np.zeros((8, 8, 3), "u1"))
    with pytest.raises(UsageError, match=r"a data set has labels beside its images; .*evaluate"):
        model.predict(data)
    assert [row.path for row in classify(model, data)] == ["x", "y"]


def test_files_that_cannot_be_read_are_explained(model, tmp_path):
    with open(CAT, "rb") as closed, open(CAT, encoding="latin-1") as text:
        with pytest.raises(UsageError, match=r"TextIOWrapper.*'rb'"):
            model.predict(text)
        released = memoryview(b"data")
    released.release()
    with pytest.raises(UsageError, match=r"BufferedReader.*closed"):
        model.predict(closed)
    with pytest.raises(UsageError, match=r"memoryview.*released"):
        model.predict(released)
    with open(tmp_path / "new", "wb") as new, pytest.raises(UsageError, match="BufferedWriter"):
        model.predict(new)
    for nothing in (b"", io.BytesIO(), memoryview(b"")):
        with pytest.raises(ImageError, match="is empty"):
            model.predict(nothing)
    with pytest.raises(ImageError, match="the bytes"):
        model.predict(b"photo.jpg")
    for large in (bytes(MAX_FILE_BYTES + 1), io.BytesIO(bytes(MAX_FILE_BYTES + 9))):
        with pytest.raises(ImageError, match="more than"):
            model.predict([CAT, large])


def test_a_tie_goes_to_the_smaller_number(model):
    [guesses] = model.rank(np.zeros((1, 10), np.float32), top=3)
    assert [g.index for g in guesses] == [0, 1, 2]


def test_more_guesses_than_classes(model):
    assert len(model.predict(CAT, top=99)[0]) == 10


def test_features_are_the_stages(model):
    x = prepare(CAT, model.preprocess)[None]
    found = model.features(x)
    assert {name: value.shape for name, value in found.items()} == {
        "stem": (1, 16, 16, 64),
        "layer1": (1, 16, 16, 256),
        "layer2": (1, 8, 8, 512),
        "pooled": (1, 512),
    }
    np.testing.assert_allclose(found["pooled"], found["layer2"].mean((1, 2)), rtol=1e-5)
    logits = found["pooled"] @ model.params["fc.weight"].T + model.params["fc.bias"]
    np.testing.assert_allclose(model(x), logits, rtol=1e-4, atol=1e-5)


def test_features_of_some_stages(model):
    x = prepare(CAT, model.preprocess)[None]
    whole, traced = model.features(x), model.trace(x)
    for name, value in whole.items():
        np.testing.assert_allclose(value, traced[name], rtol=1e-4, atol=1e-5)
    assert list(model.features(x, ["pooled", "layer1"])) == ["layer1", "pooled"]
    for asked in (["layer1"], "layer1", ["stem", "layer1"]):
        np.testing.assert_array_equal(model.features(x, asked)["layer1"], whole["layer1"])
    assert model.features(x[:0], ["layer2"])["layer2"].shape == (0, 8, 8, 512)
    with pytest.raises(UsageError, match=r"no stage 'layer3': expected one of stem, layer1"):
        model.features(x, ["layer3"])


def test_features_compute_nothing_later(model, monkeypatch):
    x, made = prepare(CAT, model.preprocess)[None], []
    bind = reference.bind
    there = Model(model.spec, model.params, model.preprocess, model.labels, {}, reference)
    monkeypatch.setattr(reference, "bind", lambda op, *a, **k: made.append(op) or bind(op, *a, **k))
    there.features(x, ["layer1"])
    assert "mean_pool" not in made
    assert made.count("conv2d") == 1 + 4 * model.spec.blocks[0] - (model.spec.blocks[0] - 1)
    there.features(x, ["layer1"])
    assert made.count("max_pool2d") == 1  # the plan is kept


def test_plans_are_kept_but_not_for_ever(model):
    first = model.plan((1, 64, 64, 3))
    assert model.plan((1, 64, 64, 3)) is first
    model.plan((2, 64, 64, 3))
    model.plan((3, 64, 64, 3))
    assert model.plan((1, 64, 64, 3)) is not first


def test_no_pictures(model):
    assert model(np.empty((0, 64, 64, 3), np.float32)).shape == (0, 10)


def test_memory_order_of_the_input_does_not_matter(model):
    x = (
        np.random.default_rng(0)
        .standard_normal((2, 3, 64, 64))
        .astype(np.float32)
        .transpose(0, 2, 3, 1)
    )
    np.testing.assert_array_equal(model(x), model(np.ascontiguousarray(x)))


def test_the_callers_input_is_left_alone(model):
    x = np.random.default_rng(0).standard_normal((1, 64, 64, 3)).astype(np.float32)
    before = x.copy()
    first = model(x)
    second = model(x * 2)
    np.testing.assert_array_equal(x, before)
    assert first is not second
    np.testing.assert_array_equal(first, model(x))


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros((1, 64, 64, 3)), "float64"),
        (np.zeros((64, 64, 3), np.float32), r"\(64, 64, 3\)"),
        (np.zeros((1, 3, 64, 64), np.float32), r"\[n, h, w, 3\]"),
        (np.zeros((1, 64, 64, 3), np.uint8), "model.predict"),
        ([[1.0]], "list"),
        ("photo.jpg", "str"),
        (np.zeros((1, 0, 64, 3), np.float32), "larger picture|does not fit"),
    ],
)
def test_wrong_inputs_are_explained(model, x, words):
    with pytest.raises(UsageError, match=words):
        model(x)
    with pytest.raises(UsageError):
        model.trace(x)


@pytest.mark.parametrize("shape", [64, (64, 64, 3), (-1, 64, 64, 3), (1, 64.0, 64, 3)])
def test_wrong_shapes_of_plans_are_explained(model, shape):
    with pytest.raises(UsageError, match="give four whole numbers"):
        model.plan(shape)


@pytest.mark.parametrize("options", [{"top": 0}, {"batch": 0}, {"top": -1}])
def test_wrong_options_are_explained(model, options):
    with pytest.raises(UsageError, match="at least 1"):
        model.predict(CAT, **options)


def test_wrong_pictures_are_explained(model, tmp_path):
    with pytest.raises(ImageError, match=r"missing\.jpg"):
        model.predict([CAT, tmp_path / "missing.jpg"])
    with pytest.raises(UsageError, match="channels"):
        make(Spec((1, 1), 4, 8, 10, channels=4)).predict(CAT)


def test_a_single_output_under_a_softmax_is_no_class(tmp_path):
    spec = Spec((1, 1), 4, 8, 1)
    one = make(spec, ops=reference)
    x = prepare(CAT, one.preprocess)[None]
    for call in (
        lambda: one.predict(CAT),
        lambda: one.predict([]),
        lambda: one.rank(one(x)),
        lambda: classify(one, [str(CAT)]),
        lambda: classify(one, []),
    ):
        with pytest.raises(
            UsageError, match=r"single output.* softmax.*convert it again \(--head sigmoid\)"
        ):
            call()
    logit = one(x)
    assert logit.shape == (1, 1)
    tinyresnext.save(one, tmp_path / "one.h5")
    np.testing.assert_array_equal(tinyresnext.load(tmp_path / "one.h5", "reference")(x), logit)
    np.testing.assert_allclose(one.trace(x)["fc"], logit, rtol=1e-4, atol=1e-5)


def test_grey_network():
    model = make(
        Spec((1, 1), 4, 8, 10, channels=1), preprocess=Preprocess(72, 64, mean=(0.5,), std=(0.5,))
    )
    assert len(model.predict(CAT)[0]) == 5


def test_weights_that_overflow_give_no_answer():
    params = cases.weights(SPEC, counters=False)
    params["fc.weight"][:] = 3e38
    with pytest.raises(IntegrityError, match="not finite"):
        make(params=params).predict(CAT)


def test_many_shapes_from_many_threads():
    made, wrong = make(ops=reference), []
    shapes = [(n, 32, 32, 3) for n in (1, 2, 3, 4, 5)]

    def run(seed):
        for i in np.random.default_rng(seed).integers(0, 5, 40):
            if made(np.zeros(shapes[i], np.float32)).shape != (shapes[i][0], 10):
                wrong.append(shapes[i])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(4)))
    assert not wrong


def test_save_and_load(model, tmp_path):
    tinyresnext.save(model, tmp_path / "m.h5")
    again = tinyresnext.load(tmp_path / "m.h5")
    assert (again.spec, again.labels, again.preprocess, again.provenance) == (
        model.spec, model.labels, model.preprocess, model.provenance,
    )  # fmt: skip
    assert again.predict(CAT) == model.predict(CAT)
    assert (
        tinyresnext.load(str(tmp_path / "m.h5"), device="reference").predict(CAT)[0][0].index
        == model.predict(CAT)[0][0].index
    )


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "replace": dataclasses.replace,
} | {
    f"pickle {protocol}": lambda model, protocol=protocol: pickle.loads(
        pickle.dumps(model, protocol)
    )
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
}


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("ops", [cpu, reference])
def test_copies_compute_the_same_bits(name, ops):
    x = np.random.default_rng(0).standard_normal((2, 64, 64, 3)).astype(np.float32)
    model = make(ops=ops, threads=1)
    for _ in ("fresh", "used"):
        other = COPIES[name](model)
        assert repr(other) == repr(model)
        for field in ("spec", "preprocess", "labels", "provenance", "ops", "threads"):
            assert getattr(other, field) == getattr(model, field), field
        assert other.params.keys() == model.params.keys()
        np.testing.assert_array_equal(other(x), model(x))
        np.testing.assert_array_equal(other(x), COPIES[name](other)(x))
        assert other.plan(x.shape) is not model.plan(x.shape)


def test_a_deep_copy_has_weights_of_its_own():
    model = make(ops=reference)
    other = copy.deepcopy(model)
    x = np.zeros((1, 64, 64, 3), np.float32)
    before = model(x)
    assert not np.shares_memory(other.params["fc.bias"], model.params["fc.bias"])
    other.params = {**other.params, "fc.bias": other.params["fc.bias"] + 7}
    np.testing.assert_array_equal(model(x), before)
    assert copy.copy(model).params["fc.bias"] is model.params["fc.bias"]


def test_a_replaced_part_counts_after_a_model_has_computed():
    model = make(ops=reference)
    x = np.zeros((1, 64, 64, 3), np.float32)
    before = model(x)
    params = model.params | {"fc.bias": model.params["fc.bias"] + 1}
    other = dataclasses.replace(model, params=params)
    np.testing.assert_allclose(other(x), before + 1, rtol=1e-5)
    np.testing.assert_array_equal(model(x), before)


def test_a_pickle_has_the_weights_and_no_plans():
    model = make(ops=reference)
    size = len(pickle.dumps(model))
    model.predict(CAT)
    assert len(pickle.dumps(model)) == size < 1.1 * sum(a.nbytes for a in model.params.values())


def test_a_model_is_sent_to_a_process_that_was_spawned():
    model = make(ops=reference, threads=1)
    x = np.random.default_rng(0).standard_normal((1, 64, 64, 3)).astype(np.float32)
    wanted = model(x)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        np.testing.assert_array_equal(pool.apply(model, (x,)), wanted)
        assert pool.apply(repr, (model,)) == repr(model)


def test_a_pickle_whose_backend_is_not_there_is_explained():
    data = pickle.dumps(make(ops=reference), 2)
    for name in (b"tinyresnext.ops.elsewhere", b"os", b"tinyresnext.ops.cpu.conv"):
        own = b"tinyresnext.ops.reference"
        text = b"X" + len(own).to_bytes(4, "little") + own
        assert text in data
        other = data.replace(text, b"X" + len(name).to_bytes(4, "little") + name)
        with pytest.raises(DeviceError, match="load the model"):
            pickle.loads(other)


def test_what_load_cannot_find(tmp_path):
    with pytest.raises(
        UsageError, match="is not on this computer; `tinyresnext pull resnext50_32x4d`"
    ):
        tinyresnext.load("resnext50_32x4d")
    with pytest.raises(FormatError, match="No such file"):
        tinyresnext.load(tmp_path / "nothing.h5")
    (tmp_path / "in.pth").write_bytes(cases.checkpoint(cases.weights(SPEC), legacy=False))
    with pytest.raises(FormatError, match="convert"):
        tinyresnext.load(tmp_path / "in.pth")
    assert tinyresnext.load_checkpoint(tmp_path / "in.pth").predict(CAT)


def test_a_device_that_is_not_there_is_an_error():
    with pytest.raises(DeviceError, match=r"no device cuda:99|NVIDIA"):
        backend("cuda:99")
    assert backend("auto") is backend("auto")


def test_list_models():
    assert tinyresnext.list_models("resnext50*")[0] == "resnext50_32x4d"
    assert tinyresnext.list_models("nothing*") == []


def test_a_network_with_random_weights():
    made = tinyresnext.random_model("resnext20_2x64d", seed=3, device="reference")
    assert made.spec == tinyresnext.variant("resnext20_2x64d")
    assert made.preprocess.crop == 32
    assert made.labels[9] == "class 9"
    assert made.provenance == {"source": "random weights, seed 3"}
    again, other = (tinyresnext.random_model("resnext20_2x64d", seed=seed) for seed in (3, 4))
    same = [np.array_equal(made.params[name], again.params[name]) for name in made.params]
    changed = [not np.array_equal(made.params[n], other.params[n]) for n in made.params]
    assert all(same)
    assert any(changed)
    kernel = made.params["layer3.0.conv1.weight"]  # N(0, 2 / (k_h k_w c_out)): see `initialise`
    count, deviation = kernel.size, (2 / kernel.shape[0]) ** 0.5
    assert abs(kernel.std() / deviation - 1) < 5 / (2 * count) ** 0.5  # five standard errors
    grey = tinyresnext.random_model(Spec((1, 1), 2, 4, 3, channels=1), labels="abc")
    assert (grey.labels, len(grey.preprocess.mean)) == (("a", "b", "c"), 1)
    with pytest.raises(UsageError, match="2 labels for 10 classes"):
        tinyresnext.random_model("resnext20_2x64d", labels="ab")
    with pytest.raises(UsageError, match="expected a text for each class"):
        tinyresnext.random_model("resnext20_2x64d", labels=range(10))
    with pytest.raises(UsageError, match="did you mean resnext20_2x64d"):
        tinyresnext.random_model("resnext20_2x64")


@pytest.mark.parametrize("top", [0, -1, True, 2.5, "3"])
def test_numbers_of_classes_that_make_no_sense(top):
    one = make()
    logits = np.zeros((1, one.spec.classes), np.float32)
    with pytest.raises(UsageError, match="top is"):
        one.rank(logits, top)
    with pytest.raises(UsageError, match="top is"):
        Ensemble((one,)).rank(logits, top)


def test_logits_of_another_network_are_not_ranked():
    one = make()
    for shape in ((2, one.spec.classes - 1), (2, one.spec.classes + 1), (one.spec.classes,)):
        with pytest.raises(UsageError, match="a row for each image"):
            one.rank(np.zeros(shape, np.float32))
        with pytest.raises(UsageError, match="a row for each image"):
            one.probabilities(np.zeros(shape, np.float32))
    one.labels = one.labels[:-1]
    with pytest.raises(ShapeError, match="labels for"):
        one.rank(np.zeros((1, one.spec.classes), np.float32))


def test_parameters_of_another_network():
    one, x = make(), np.ones((1, 8, 8, 3), np.float32)
    right = dict(one.params)
    fewer = {name: value for name, value in right.items() if name != "fc.bias"}
    for wrong, says in (
        ({**right, "fc.bais": right["fc.bias"]}, "'fc.bais' is not expected"),
        (fewer, "'fc.bias' is missing"),
        ({**right, "fc.bias": right["fc.bias"][1:]}, "fc.bias has the shape"),
    ):
        one.params = wrong
        for compute in (one, one.trace, one.features, lambda x: tinyresnext.quantise(one, list(x))):
            with pytest.raises(ShapeError, match=says):
                compute(x)
    one.params = right
    assert one(x).shape == (1, one.spec.classes)


def test_what_a_notebook_prints_is_short(tmp_path):
    for number in range(300):
        Image.new("RGB", (8, 8)).save(tmp_path / f"cat_{number}.png")
        (tmp_path / f"{number % 30:03}").mkdir(exist_ok=True)
        (tmp_path / f"cat_{number}.png").rename(tmp_path / f"{number % 30:03}" / f"{number}.png")
    images = tinyresnext.data.open_dataset(tmp_path, None)
    assert repr(images) == "<Dataset of 300 images in 30 classes>"
    labelled = tinyresnext.data.open_labelled([tmp_path])
    assert repr(labelled).startswith("<LabelledImages of 300 images in 30 classes")
    explained = tinyresnext.explain(tinyresnext.load(device="reference"), CAT)
    assert repr(explained.blocks[0]) == "<Terms of layer1.0: 18 terms of (16, 16, 128)>"
    one = explained.stages[0]
    for shown in (images, labelled, explained, one, one.channels[0]):
        assert len(repr(shown)) < 200


def test_names_that_are_loaded_late_are_offered():
    """By the completion of an editor or a notebook."""
    there = {
        tinyresnext: {"load", "export", "data", "ops"},
        tinyresnext.data: {"open_dataset", "open_labelled"},
        tinyresnext.ops: {"backend", "cpu", "cuda", "reference"},
        cpu: {"conv2d", "conv2d_int8", "quantise", "softmax_cross_entropy_backward", "upload"},
    }
    for module, names in there.items():
        assert names <= set(dir(module))
    for module in (tinyresnext, tinyresnext.data):
        assert not {"Any", "TYPE_CHECKING", "annotations", "import_module"} & set(dir(module))


def test_an_attribute_that_a_model_does_not_have_or_that_is_something_else():
    one, x = make(), np.ones((1, 8, 8, 3), np.float32)
    before = one(x)
    for name, wrong, says in (
        ("device", "cuda", r"no attribute 'device' .*tinyresnext\.load takes device="),
        ("precision", "bfloat16", r"tinyresnext\.load takes precision="),
        ("lables", ("a",) * 10, "did you mean labels"),
        ("preproces", one.preprocess, "did you mean preprocess"),
        ("predict", one.predict, "no attribute 'predict'"),
        ("spec", "resnext50_32x4d", "spec of a model is 'resnext50_32x4d'; expected a Spec"),
        ("ops", "cuda", r"ops of a model is 'cuda'; .*tinyresnext\.load takes device="),
        ("ops", None, "expected a backend"),
        ("labels", None, "labels of a model is None; expected a list of texts"),
        ("labels", {"cat": 0}, "expected a list of texts"),
        ("labels", "cat", "expected a list of texts"),
        ("labels", [1, 2], "expected a list of texts"),
        ("preprocess", "imagenet", r"expected a tinyresnext\.Preprocess"),
        ("provenance", "mine", "expected a dict of texts"),
        ("quantisation", 8, "quantisation of a model is 8"),
        ("params", None, "params is of type NoneType; give a mapping"),
    ):
        with pytest.raises(UsageError, match=says):
            setattr(one, name, wrong)
        with pytest.raises((UsageError, TypeError)):  # Python refuses unknown names
            dataclasses.replace(one, **{name: wrong})
    for wrong, says in (([0] * 10, "list"), (np.zeros(10), "float64"), (None, "NoneType")):
        for change in (
            lambda params: setattr(one, "params", params),
            lambda params: dataclasses.replace(one, params=params),
        ):
            with pytest.raises(ShapeError, match=f"fc.bias has the type {says}, .*numpy.asarray"):
                change({**one.params, "fc.bias": wrong})
    np.testing.assert_array_equal(one(x), before)
    for kind in (list, np.array):
        one.labels = kind(one.labels)
        assert type(one.labels) is tuple


@dataclasses.dataclass(eq=False, repr=False)
class Named(Model):
    """A model with a field of its own."""

    nickname: str = ""


def test_a_subclass_has_attributes_of_its_own():
    one = make()
    own = Named(one.spec, one.params, one.preprocess, one.labels, {}, one.ops)
    own.nickname, own.path = "my own", "here.h5"
    for again in (copy.copy(own), copy.deepcopy(own), pickle.loads(pickle.dumps(own))):
        assert (type(again), again.nickname, again.path) == (Named, "my own", "here.h5")
    with pytest.raises(UsageError, match="expected a list of texts"):
        own.labels = None


def test_what_is_no_model():
    for wrong in ("a.h5", ["a.h5"], None, 3):
        with pytest.raises(UsageError, match=r"a model was expected, .*tinyresnext.load reads one"):
            Ensemble.of(wrong)


def test_what_is_something_else_is_one_error(model, tmp_path):
    """Each of them names what was found, and what makes the right thing."""
    several, pixels = Ensemble((model,)), np.zeros((64, 64, 3), np.uint8)
    calls = {
        "a model was expected": [
            lambda: tinyresnext.quantise("x.h5", [pixels]),
            lambda: tinyresnext.quantise(several, [pixels]),
            lambda: tinyresnext.explain("x.h5", pixels),
            lambda: tinyresnext.explain(pixels, model),
            lambda: tinyresnext.explain([model], pixels),
            lambda: tinyresnext.explain(several, pixels),
            lambda: tinyresnext.save("x.h5", tmp_path / "y.h5"),
            lambda: tinyresnext.finetune(
                "x.h5", None, tinyresnext.recipe("finetune"), tmp_path / "run"
            ),
            lambda: Predictor(several),
            lambda: Predictor([model]),
            lambda: Predictor(bytearray(b"model")),
            lambda: Predictor(3),
        ],
        "expected a Dataset": [
            lambda: tinyresnext.evaluate(model, ["a.jpg"]),
            lambda: tinyresnext.evaluate(model, None),
        ],
        "a Spec was expected": [
            lambda: tinyresnext.train(
                name, None, tinyresnext.recipe("fast-cifar"), tmp_path / "run"
            ),
            lambda: tinyresnext.train(
                name,
                [],
                tinyresnext.recipe("fast-cifar"),
                tmp_path / "run",
                preprocess=model.preprocess,
            ),
        ],
        "the name of an architecture was expected": [
            lambda: tinyresnext.variant(None),
            lambda: tinyresnext.variant(50),
        ],
        "depth is '29'": [lambda: tinyresnext.cifar("29", 8, 64)],
        "stages is 4; give names": [lambda: model.features(np.zeros((1, 64, 64, 3), "f4"), 4)],
    }
    name = "resnext50_32x4d"
    for words, wrong in calls.items():
        for call in wrong:
            with pytest.raises(UsageError, match=words):
                call()
    assert not any(tmp_path.iterdir())


def test_an_attribute_that_is_set_counts():
    """Plans and laid out weights are made anew."""
    one, x = make(), np.ones((1, 8, 8, 3), np.float32)
    before = one(x)
    one.params = {**one.params, "fc.bias": one.params["fc.bias"] + 1}
    assert np.allclose(one(x), before + 1, rtol=1e-5, atol=1e-5)
    one.ops = reference
    assert np.allclose(one(x), before + 1, rtol=1e-4, atol=1e-4)
    assert one.plan(x.shape).threads == reference.thread_count(None)


def test_an_attribute_that_is_set_while_a_plan_is_made_counts(monkeypatch):
    one, x, begun = make(ops=reference), np.ones((1, 8, 8, 3), np.float32), threading.Event()
    before, set_ = one(x), threading.Event()
    one.threads = None  # the program is made anew
    params = {**one.params, "fc.bias": one.params["fc.bias"] + 1}
    real = inference_model.program

    def slowly(*args):
        found = real(*args)
        begun.set()
        set_.wait(0.2)  # the other thread waits for the lock, or sets too early
        return found

    def change() -> None:
        begun.wait()
        one.params = params
        set_.set()

    monkeypatch.setattr(inference_model, "program", slowly)
    changing = threading.Thread(target=change)
    changing.start()
    one(x)
    changing.join()
    np.testing.assert_allclose(one(x), before + 1, rtol=1e-5)


class Small:
    """The reference, where plans find so many bytes."""

    def __init__(self) -> None:
        self.most, self.held = float("inf"), 0

    def __getattr__(self, name):
        return getattr(reference, name)

    def empty(self, shape, dtype=np.float32):
        made = reference.empty(shape, dtype)
        for collect in (lambda: 0, gc.collect):
            collect()
            if self.held + made.nbytes <= self.most:
                self.add(made.nbytes)
                weakref.finalize(made, self.add, -made.nbytes)
                return made
        raise OutOfMemoryError("it is full")

    def add(self, size: int) -> None:
        self.held += size


def test_plans_that_are_kept_leave_room_for_the_next_one():
    ops = Small()
    model = make(Spec((1,), 2, 4, 5, stem="cifar"), ops=ops)

    def plan(n: int):
        return model.plan((n, 16, 16, 3))

    plan(4)
    need = ops.held
    ops.most = 1.6 * need
    second = plan(2)
    assert not plan(3).in_parts  # when the oldest one is dropped: all three do not fit
    assert plan(2) is second
    del second
    assert not plan(4).in_parts  # without any other
    ops.most = 1.1 * need
    assert not plan(1).in_parts
    held, x = plan(4), np.ones((4, 16, 16, 3), np.float32)
    with pytest.raises(OutOfMemoryError, match="it is full"):
        plan(1)  # whoever holds a plan has its memory
    np.testing.assert_array_equal(held(x)[0], held(x)[3])
    ops.most = 1.3 * need
    assert plan(2).in_parts
