"""Nothing outside `tinyresnext.ops` touches an array of a backend, except through its words."""

from __future__ import annotations

import types

import elsewhere
import numpy as np
import pytest
import training_cases as small

import tinyresnext
from tinyresnext.bench.bench import bench
from tinyresnext.inference import verify
from tinyresnext.inference.files import load, save
from tinyresnext.inference.model import Model
from tinyresnext.network import plan, step
from tinyresnext.network.resnext import parameters
from tinyresnext.network.spec import Spec
from tinyresnext.ops import contract, reference
from tinyresnext.training import run, train

SPECS = {
    "imagenet": Spec((1, 2), 4, 8, 7),
    "deep": Spec((1, 1), 4, 8, 7, stem="deep", avg_down=True),
    "padding": Spec((1, 1), 4, 8, 7, shortcut="A"),
}


def model(spec: Spec, ops: types.ModuleType) -> Model:
    """Return a network with random weights."""
    rng = np.random.default_rng(0)
    params = {
        name: np.abs(rng.standard_normal(shape)).astype(np.float32) / max(shape)
        for name, shape in parameters(spec).items()
    }
    labels = tuple(f"class {number}" for number in range(spec.classes))
    return Model(spec, params, small.PREPROCESS, labels, {}, ops)


def test_every_word_of_the_contract_is_there():
    parts = contract.Backend.__mro__
    words = {name for part in parts for name in vars(part) if not name.startswith("_")}
    for ops in (elsewhere, reference, tinyresnext.ops.backend("cpu")):
        missing = {name for name in words - {"precision"} if not callable(getattr(ops, name, None))}
        assert not missing, ops.__name__
        assert ops.precision == "float32"


@pytest.mark.parametrize("name", SPECS)
def test_inference(name):
    x = np.random.default_rng(1).standard_normal((3, 64, 64, 3)).astype(np.float32)
    there, here = model(SPECS[name], elsewhere), model(SPECS[name], reference)
    assert np.array_equal(there(x), here(x))
    for what in ("features", "trace"):
        found, wanted = getattr(there, what)(x), getattr(here, what)(x)
        assert found.keys() == wanted.keys()
        assert all(np.array_equal(found[key], wanted[key]) for key in wanted)
    assert there.rank(there(x)) == here.rank(here(x))
    assert "ms in all" in str(there.plan(x.shape).profile(x, 1))


@pytest.fixture
def on_another_device(monkeypatch):
    """Let the device ``cpu`` be the one elsewhere."""
    for module in (train, verify):
        monkeypatch.setattr(module, "backend", lambda device, precision="float32": elsewhere)


def trained(folder, ops_of, **changes):
    """Train the small network with a validation set."""
    images = small.pictures()
    recipe = small.RECIPE.changed(changes)
    made = train.train(
        small.SPEC, images, recipe, folder, validation=small.pictures(20, seed=1),
        preprocess=small.PREPROCESS, device=ops_of,
    )  # fmt: skip
    return made, (folder / "log.jsonl").read_text("utf-8")


def without_times(log: str) -> list[str]:
    """Return the lines of a log without what differs from run to run."""
    return [
        line.partition('"seconds"')[0] + line.partition('"top1"')[2] for line in log.split("\n")
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        pytest.param({"muon": 0.1, "ema": 0.0}, marks=pytest.mark.slow),
        pytest.param({"sides": (6, 8)}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_training_to_the_bit_of_the_reference(tmp_path, on_another_device, monkeypatch, changes):
    there, log = trained(tmp_path / "there", "cpu", **changes)
    monkeypatch.undo()
    here, wanted = trained(tmp_path / "here", "reference", **changes)
    assert there.ops is elsewhere
    assert here.ops is reference
    assert all(np.array_equal(there.params[name], here.params[name]) for name in here.params)
    assert without_times(log) == without_times(wanted)


def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, on_another_device, monkeypatch):
    whole, _ = trained(tmp_path / "whole", "cpu")
    real, left = run.Run.step, [6]

    def stopping(self, x, labels):
        left[0] -= 1
        real(self, x, labels)
        if left[0] == 0:
            self.stop()

    with monkeypatch.context() as patch:
        patch.setattr(run.Run, "step", stopping)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "stopped", "cpu")
    options = {"validation": small.pictures(20, seed=1), "preprocess": small.PREPROCESS}
    recipe = small.RECIPE
    resumed = train.train(
        small.SPEC, small.pictures(), recipe, tmp_path / "stopped", resume=True, **options
    )
    assert all(np.array_equal(resumed.params[name], whole.params[name]) for name in whole.params)


@pytest.mark.parametrize("stage", [None, "stem", "layer1"])
def test_fine_tuning(tmp_path, stage):
    made = []
    for ops in (elsewhere, reference):
        first = model(small.SPEC, ops)
        images, folder = small.pictures(40, tuple("xyz")), tmp_path / ops.__name__
        recipe = small.RECIPE.changed({"epochs": 1})
        made.append(train.finetune(first, images, recipe, folder, frozen_to=stage).params)
    there, here = made
    assert all(np.array_equal(there[name], here[name]) for name in here)


def test_verify(tmp_path, on_another_device):
    file, reference_file = tmp_path / "model.h5", tmp_path / "reference.npz"
    save(model(small.SPEC, reference), file)
    verify.make_reference(file, reference_file)
    assert verify.verify(file, reference_file).passed
    assert load(file, "reference").ops is reference


def test_bench(monkeypatch):
    from tinyresnext.bench import bench as module
    from tinyresnext.network.spec import variants

    monkeypatch.setattr(variants, "VARIANTS", {"small": small.SPEC})
    monkeypatch.setattr(module, "backend_of", lambda device, precision="float32": elsewhere)
    report = bench(["small"], [2], [32], None, 1, every_layer=True)
    assert report["models"][0]["batch"] == 2
    assert report["layers"]


PLANTED = {
    "assignment": lambda self, x, first: self._x.__setitem__(..., x[first : first + self.at_once]),
    "a NumPy function": lambda self, x, first: np.copyto(self._x, x[first : first + self.at_once]),
    "arithmetic": lambda self, x, first: self._x + x[first : first + self.at_once],
    "slicing": lambda self, x, first: self._x[first:],
    "a view of its own": lambda self, x, first: np.asarray(self._x),
    "a method of arrays": lambda self, x, first: self._x.reshape(-1),
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_is_found(monkeypatch, name):
    monkeypatch.setattr(plan.Plan, "_load", PLANTED[name])
    with pytest.raises(elsewhere.Touched):
        model(SPECS["imagenet"], elsewhere)(np.zeros((1, 64, 64, 3), np.float32))


def test_a_planted_shortcut_in_training_is_found(monkeypatch, tmp_path, on_another_device):
    def load(self, x, labels, more):
        self._given["labels"][...] = labels

    monkeypatch.setattr(step.Step, "_load", load)
    with pytest.raises(elsewhere.Touched):
        trained(tmp_path, "cpu")
