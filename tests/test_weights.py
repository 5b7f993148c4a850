"""The weights of a model file: one copy in memory, and whoever asks for them has them."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import tracemalloc
from collections import UserDict

import cases
import numpy as np
import pytest

from tinyresnext import load, random_model, save
from tinyresnext.errors import FormatError, IntegrityError, UsageError
from tinyresnext.images.preprocess import Preprocess
from tinyresnext.network.plan import program
from tinyresnext.network.resnext import parameters
from tinyresnext.network.spec import Spec
from tinyresnext.ops import cpu
from tinyresnext.store import store
from tinyresnext.store.weights import SMALL, Weights, digest_of

SPEC = Spec((1, 1), 8, 4, 5)
LARGE = "layer2.0.conv3.weight"  # a tensor that is freed
X = np.random.default_rng(0).standard_normal((1, 16, 16, 3)).astype(np.float32)


def written(path, spec, params, half):
    """Write a model file."""
    labels = tuple(map(str, range(spec.classes)))
    store.write(path, store.Stored(spec, params, Preprocess(), labels, {}), half=half)


@pytest.fixture(params=[False, True], ids=["single", "half"])
def file(tmp_path, request):
    """Return a model file and its parameters."""
    path, params = tmp_path / "m.h5", cases.weights(SPEC, counters=False)
    written(path, SPEC, params, request.param)
    assert params[LARGE].nbytes > SMALL
    wide = {name: value.astype(np.float16).astype(np.float32) for name, value in params.items()}
    rounded = {name: wide[name] if value.ndim > 1 else value for name, value in params.items()}
    return path, rounded if request.param else params


def held(model):
    """Return the names of the tensors that are in memory."""
    return {name for name, array in model.params._arrays.items() if array is not None}


def test_a_prediction_lets_go_of_large_tensors_and_all_are_there_when_asked_for(file):
    path, params = file
    model = load(path, "reference")
    assert held(model) == params.keys()
    before = repr(model)
    y = model(X)
    assert held(model) == {name for name, value in params.items() if value.nbytes <= SMALL}
    assert repr(model) == before  # which reads nothing
    assert len(model.params) == len(params)
    assert LARGE in model.params
    assert list(model.params) == list(parameters(SPEC))
    assert LARGE not in held(model)
    assert all(np.array_equal(model.params[name], value) for name, value in params.items())
    assert held(model) == params.keys()
    again = dataclasses.replace(model)
    np.testing.assert_array_equal(again(X), y)
    plain = dataclasses.replace(model, params=params)
    np.testing.assert_array_equal(plain(X), y)


def test_a_tensor_that_was_asked_for_stays(file):
    path, params = file
    model = load(path, "reference")
    asked = model.params[LARGE]
    model(X)
    path.unlink()
    assert model.params[LARGE] is asked
    np.testing.assert_array_equal(asked, params[LARGE])


def test_nobody_can_change_the_weights_of_a_model_in_part(file):
    """Its plan would have the old ones, and what it saves, traces and copies the new ones."""
    path, params = file
    given = {name: value.copy() for name, value in params.items()}
    read = load(path, "reference")
    models = [
        read,
        load(path, "reference"),
        dataclasses.replace(read, params=given),
        copy.deepcopy(read),
        pickle.loads(pickle.dumps(read)),
        random_model(SPEC, device="reference"),
    ]
    for n, model in enumerate(models):
        before = model(X) if n else None  # the first one has no plan
        for array in (model.params["fc.bias"], model.params[LARGE]):
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0
        for change in (
            lambda p: p.__setitem__("fc.bias", params["fc.bias"]),
            lambda p: p.__delitem__("fc.bias"),
            lambda p: p.update(params),
            lambda p: p.pop("fc.bias"),
            lambda p: p.clear(),
        ):
            with pytest.raises(UsageError, match=r"model\.params = \{\*\*model\.params, name: arr"):
                change(model.params)
        given["fc.bias"] += 1  # the model has a copy
        assert before is None or np.array_equal(model(X), before)
        wanted = model(X) + 1
        model.params = {**model.params, "fc.bias": model.params["fc.bias"] + 1}
        np.testing.assert_allclose(model(X), wanted, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(model.trace(X)["fc"], wanted, rtol=1e-3, atol=1e-3)


def test_a_mapping_is_read_once(file):
    """That of a checkpoint reads and converts a tensor whenever it is asked for one."""
    path, params = file
    model, asked = load(path, "reference"), []

    class Lazy(UserDict):
        def __getitem__(self, name):
            asked.append(name)
            return super().__getitem__(name)

    for take in (Weights, lambda lazy: dataclasses.replace(model, params=lazy)):
        lazy = Lazy(params)
        asked.clear()
        take(lazy)
        assert asked == list(params)


def test_arrays_that_nobody_can_write_into_are_not_copied(file):
    path, params = file
    fixed = {name: value.copy() for name, value in params.items()}
    for value in fixed.values():
        value.flags.writeable = False
    model = dataclasses.replace(load(path, "reference"), params=fixed)
    assert all(model.params[name] is value for name, value in fixed.items())


def test_the_digest_of_a_tensor_is_the_same_whoever_has_asked_for_it(file):
    path, params = file
    model = load(path, "reference")
    wanted = digest_of(params)
    assert digest_of(model.params) == wanted
    dict(model.params)
    assert digest_of(model.params) == wanted == digest_of(dict(model.params))


def test_another_plan_needs_no_file(file):
    path, _ = file
    model = load(path, "reference")
    model(X)
    path.unlink()
    assert model(np.zeros((2, 17, 16, 3), np.float32)).shape == (2, 5)


def test_a_file_that_is_gone_changed_or_cut_is_an_error_and_no_other_tensor(file):
    path, params = file
    model, x = load(path, "reference"), X
    y, data = model(x), bytearray(path.read_bytes())
    stored = params[LARGE]
    stored = stored.astype(np.float16) if stored.tobytes() not in data else stored
    at = data.index(stored.tobytes())
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"m\.h5.*conv3\.weight is not what it was.*leave"):
        model.params[LARGE]
    np.testing.assert_array_equal(model.params["fc.bias"], params["fc.bias"])
    path.write_bytes(data[: at + 1])
    with pytest.raises(FormatError, match=r"cut short in layer2\.0\.conv3\.weight"):
        model.params[LARGE]
    path.unlink()
    with pytest.raises(FormatError, match=r"cannot be read.*read from its file again"):
        model.params[LARGE]
    with pytest.raises(FormatError, match="read from its file again"):
        model.trace(x)
    np.testing.assert_array_equal(model(x), y)
    data[at] ^= 1
    path.write_bytes(data)  # as it was: what failed is asked for again
    np.testing.assert_array_equal(model.params[LARGE], params[LARGE])


def test_saved_over_its_own_file(file):
    path, params = file
    model = load(path, "reference")
    y = model(X)
    save(model, path)
    np.testing.assert_array_equal(load(path, "reference")(X), y)
    save(model, path, half=True)
    model.threads = None
    np.testing.assert_array_equal(model(X), y)
    assert all(np.array_equal(model.params[name], value) for name, value in params.items())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_needs_no_file(file, copied):
    path, params = file
    model = load(path, "reference")
    y = model(X)
    other, weights = copied(model), copied(model.params)
    assert type(weights) is dict
    assert all(np.array_equal(weights[name], value) for name, value in params.items())
    path.unlink()
    np.testing.assert_array_equal(other(X), y)


def test_it_is_like_a_dict(file):
    path, params = file
    weights = store.read(path).params
    assert weights | {"a": 1} == {**weights, "a": 1}
    assert {"a": 1, "fc.bias": 2} | weights == {"a": 1, **weights}
    assert type(weights.copy()) is dict
    assert weights.copy() == dict(weights)
    weights |= {}
    assert type(weights) is dict
    weights = store.read(path).params
    assert "fc.bais" not in weights
    for one in (weights, weights.releasing()):
        with pytest.raises(KeyError):
            one["fc.bais"]
    assert len(weights) == len(list(weights.releasing())) == len(params)
    assert len(weights.releasing()) == len(weights)
    assert "tensors of" in repr(weights)
    assert repr(Weights(params)) == f"<{len(params)} tensors in memory>"


@pytest.mark.parametrize("half", [False, True])
def test_a_program_takes_one_copy_of_the_weights(tmp_path, half):
    """Of one layer: what was read, what is folded, and its copies while it is packed.

    With all of it twice in memory, as it was once, this is far above the limit.
    """
    spec = Spec((1, 1, 1, 4), 16, 4, 10)
    params = {name: np.zeros(shape, np.float32) for name, shape in parameters(spec).items()}
    written(tmp_path / "m.h5", spec, params, half)
    sizes = [value.nbytes for value in params.values()]
    most = sum(sizes) + 4 * max(sizes) + (1 << 20)
    assert most < 1.8 * sum(sizes)
    tracemalloc.start()
    try:
        made = program(store.read(tmp_path / "m.h5").params.releasing(), spec, cpu)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert made.calls
    assert peak < most
