"""Whole runs on small networks: their files, how they stop, and that they resume exactly."""

from __future__ import annotations

import json
import re
import signal
import sys
from dataclasses import replace
from functools import partial

import cases
import numpy as np
import odd_streams
import pytest
import training_cases as small

from tinyresnext import Model, Preprocess, Spec, cifar, evaluate, finetune, load, train
from tinyresnext.data.dataset import Dataset
from tinyresnext.data.loader import Loader
from tinyresnext.errors import (
    FormatError,
    ImageError,
    MachineError,
    OutOfMemoryError,
    TrainingError,
    UsageError,
)
from tinyresnext.images.prepare import prepare
from tinyresnext.images.preprocess import CIFAR, CIFAR_100
from tinyresnext.ops import reference
from tinyresnext.training import run as training_run
from tinyresnext.training.initial import initialise
from tinyresnext.training.recipes import RECIPES, Recipe
from tinyresnext.training.record import log as training_log
from tinyresnext.training.record import state as states
from tinyresnext.training.samples import augmentation
from tinyresnext.training.samples.given import check_kinds, check_labels
from tinyresnext.training.weights import size, views

OPTIONS = {"preprocess": small.PREPROCESS, "device": "reference"}


def changed(**changes):
    """Return the small recipe with other settings."""
    return small.RECIPE.changed(changes)


TIMES = ("seconds", "images_per_second")


@pytest.fixture
def interrupted_after(monkeypatch):
    return partial(small.interrupt, monkeypatch)


def log_of(folder):
    """The lines but for what a clock decides."""
    text = (folder / "log.jsonl").read_text("utf-8")
    assert text.endswith("\n")
    return [
        {name: value for name, value in json.loads(line).items() if name not in TIMES}
        for line in text.splitlines()
    ]


def same(a, b):
    """Two folders with the same model, bit by bit, and the same log."""
    first, second = load(a / "model.h5", "reference"), load(b / "model.h5", "reference")
    for name, value in first.params.items():
        assert value.tobytes() == second.params[name].tobytes(), name
    assert log_of(a) == log_of(b)


def test_it_learns_and_says_so(tmp_path):
    validation = small.pictures(30, seed=1)
    recipe = changed(epochs=8, mixup=0.0)
    made = train(
        small.SPEC,
        small.pictures(),
        recipe,
        tmp_path,
        validation=validation,
        log_every=3,
        **OPTIONS,
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".lock",
        "best.h5",
        "curve.png",
        "log.jsonl",
        "model.h5",
        "state.npz",
    ]
    lines = log_of(tmp_path)
    assert [(line["epoch"], line.get("step")) for line in lines] == [
        (epoch, step)
        for epoch in range(1, 9)
        for step in (1, 2, 3, 4, None)
        if step is None or (4 * epoch - 4 + step) % 3 == 0
    ]
    assert lines[-1]["loss"] < 0.8 * lines[1]["loss"]
    assert lines[-1]["top1"] > 0.6  # of four classes
    stored = load(tmp_path / "model.h5", "reference")
    assert stored.labels == ("a", "b", "c", "d")
    assert stored.preprocess == small.PREPROCESS
    assert stored.provenance["accuracy"] == f"{lines[-1]['top1']:.2%} top-1 of 30 images"
    assert Recipe.from_json(json.loads(stored.provenance["recipe"])) == recipe
    x = np.zeros((1, 8, 8, 3), np.float32)
    assert made(x).tobytes() == stored(x).tobytes()
    best = max(line["top1"] for line in lines if "top1" in line)
    assert f"{best:.2%}" in load(tmp_path / "best.h5", "reference").provenance["accuracy"]
    assert stored.predict(validation.picture(0), top=1)[0][0].label in "abcd"


def test_the_same_seed_gives_the_same_bits(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(
            small.SPEC,
            small.pictures(),
            changed(epochs=1, seed=seed),
            tmp_path / name,
            **OPTIONS,
        )
    same(tmp_path / "a", tmp_path / "b")
    with pytest.raises(AssertionError):
        same(tmp_path / "a", tmp_path / "c")


@pytest.mark.parametrize("device", ["reference", "cpu"])
@pytest.mark.parametrize(
    "steps",
    [pytest.param(n, marks=pytest.mark.slow) if n != 4 else n for n in (1, 4, 6, 12)],
)  # the first; the last of an epoch of four; in the middle; the very last
def test_a_stopped_run_goes_on_to_the_same_bits(
    tmp_path, interrupted_after, monkeypatch, device, steps
):
    options = OPTIONS | {"device": device, "validation": small.pictures(20, seed=1), "log_every": 1}
    train(small.SPEC, small.pictures(), small.RECIPE, tmp_path / "whole", **options)
    interrupted_after(steps)
    with pytest.raises(
        KeyboardInterrupt, match=r"stopped after step \d of 4 in epoch \d of 3.*resume=True"
    ):
        train(small.SPEC, small.pictures(), small.RECIPE, tmp_path / "stopped", **options)
    assert not (tmp_path / "stopped" / "model.h5").exists()
    monkeypatch.undo()
    train(small.SPEC, small.pictures(), small.RECIPE, tmp_path / "stopped", resume=True, **options)
    same(tmp_path / "whole", tmp_path / "stopped")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_muon_in_a_run(tmp_path, interrupted_after, monkeypatch):
    recipe = changed(muon=0.1, ema=0.0)
    made = train(small.SPEC, small.pictures(), recipe, tmp_path / "whole", **OPTIONS)
    first = views(np.zeros(size(small.SPEC), np.float32), small.SPEC)
    initialise(first, recipe.start, recipe.seed)
    for name, value in first.items():
        if value.ndim == 4:  # the norm stays where Muon is, and only there: all others have a decay
            kept = np.linalg.norm(made.params[name]) == pytest.approx(
                np.linalg.norm(value), rel=1e-5
            )
            assert kept == name.startswith("layer"), name
            assert not np.array_equal(made.params[name], value), name
    interrupted_after(6)
    with pytest.raises(KeyboardInterrupt):
        train(small.SPEC, small.pictures(), recipe, tmp_path / "stopped", **OPTIONS)
    monkeypatch.undo()
    train(small.SPEC, small.pictures(), recipe, tmp_path / "stopped", resume=True, **OPTIONS)
    same(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.slow
def test_stopping_in_the_validation(tmp_path, monkeypatch):
    options = OPTIONS | {"validation": small.pictures(40, seed=1)}
    train(small.SPEC, small.pictures(), small.RECIPE, tmp_path / "whole", **options)
    real = training_log.Progress.say
    monkeypatch.setattr(
        training_log.Progress, "say", lambda *a: (signal.raise_signal(signal.SIGTERM), real(*a))
    )
    with pytest.raises(KeyboardInterrupt, match="step 4 of 4 in epoch 1 of 3"):
        train(small.SPEC, small.pictures(), small.RECIPE, tmp_path / "stopped", **options)
    monkeypatch.undo()
    train(small.SPEC, small.pictures(), small.RECIPE, tmp_path / "stopped", resume=True, **options)
    same(tmp_path / "whole", tmp_path / "stopped")


def test_lines_behind_the_last_state_are_told_again(tmp_path, interrupted_after, monkeypatch):
    train(small.SPEC, small.pictures(), small.RECIPE, tmp_path / "whole", log_every=1, **OPTIONS)
    interrupted_after(6)
    with pytest.raises(KeyboardInterrupt):
        train(small.SPEC, small.pictures(), small.RECIPE, tmp_path / "cut", log_every=1, **OPTIONS)
    monkeypatch.undo()
    with open(
        tmp_path / "cut" / "log.jsonl", "ab"
    ) as file:  # as if steps had been made, and a line half written
        file.write(b'{"epoch": 2, "step": 3}\n{"epo')
    train(
        small.SPEC,
        small.pictures(),
        small.RECIPE,
        tmp_path / "cut",
        log_every=1,
        resume=True,
        **OPTIONS,
    )
    same(tmp_path / "whole", tmp_path / "cut")


def test_a_run_in_the_background_of_a_script_is_not_stopped_by_ctrl_c():
    """A shell starts it with the signal ignored: it is meant for the command in the foreground."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with training_log.Stop() as stop:
            signal.raise_signal(signal.SIGINT)
            assert not stop.asked
            signal.raise_signal(signal.SIGTERM)
            assert stop.asked
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("sides", [(), (4, 6, 8)])
def test_a_finished_run_is_resumed_to_itself(tmp_path, sides):
    recipe = changed(sides=sides)
    train(small.SPEC, small.pictures(), recipe, tmp_path, **OPTIONS)
    before = (tmp_path / "model.h5").read_bytes()
    (tmp_path / "model.h5").unlink()  # killed just before it was written
    train(small.SPEC, small.pictures(), recipe, tmp_path, resume=True, **OPTIONS)
    assert (tmp_path / "model.h5").read_bytes() == before


@pytest.mark.parametrize(("device", "parts"), [("reference", 1), ("reference", 2), ("cpu", 1)])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, monkeypatch, device, parts):
    real, count = training_run.Run.step, [0]

    def step(run, x, labels):
        count[0] += 1
        if count[0] == 6:
            run.weights.params["layer1.0.conv2.weight"][...] = np.inf
        real(run, x, labels)

    monkeypatch.setattr(training_run.Run, "step", step)
    options, recipe = OPTIONS | {"device": device}, changed(parts=parts)
    with pytest.raises(
        TrainingError, match=r"loss is nan in step 2 of epoch 2: .* layer1\.0\.conv2;.*smaller --lr"
    ):
        train(small.SPEC, small.pictures(), recipe, tmp_path, **options)
    monkeypatch.undo()
    # The state before is whole.
    train(small.SPEC, small.pictures(), recipe, tmp_path, resume=True, **options)
    assert len(log_of(tmp_path)) == 3


@pytest.mark.parametrize("validation", [None, small.pictures(20, seed=1)], ids=["alone", "tried"])
def test_weights_that_are_not_finite_are_not_saved(tmp_path, monkeypatch, validation):
    real, count = training_run.Run.step, [0]

    def step(run, x, labels):
        count[0] += 1
        real(run, x, labels)
        if count[0] == 8:  # the last of the second epoch
            run.weights.params["fc.bias"][2] = np.nan

    monkeypatch.setattr(training_run.Run, "step", step)
    options, recipe = (
        OPTIONS | {"validation": validation},
        changed(ema=0.0),
    )  # else the average is tried
    with pytest.raises(TrainingError, match=r"fc\.bias"):
        train(small.SPEC, small.pictures(), recipe, tmp_path, **options)
    monkeypatch.undo()
    train(small.SPEC, small.pictures(), recipe, tmp_path, resume=True, **options)
    assert [line["epoch"] for line in log_of(tmp_path)] == [1, 2, 3]


def test_too_high_a_rate(tmp_path):
    wild = changed(lr=1000.0, warmup=0.0, epochs=50, mixup=0.0)
    with pytest.raises(TrainingError, match="first value that is not finite"):
        train(small.SPEC, small.pictures(), wild, tmp_path, **OPTIONS)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return train(
        small.SPEC, small.pictures(), small.RECIPE, tmp_path_factory.mktemp("model"), **OPTIONS
    )


@pytest.mark.parametrize(
    ("stage", "still"),
    [
        (None, ()),
        ("stem", ("conv1", "bn1")),
        ("layer1", ("conv1", "bn1", "layer1")),
        ("layer2", ("conv1", "bn1", "layer1", "layer2")),
    ],
)
def test_finetune(tmp_path, model, stage, still):
    before = {name: value.copy() for name, value in model.params.items()}
    recipe = changed(ema=0.0, lr=0.01)
    made = finetune(model, small.pictures(40, tuple("xyz")), recipe, tmp_path, frozen_to=stage)
    assert made.labels == ("x", "y", "z")
    assert made.params["fc.weight"].shape[0] == 3
    for name, value in before.items():
        assert model.params[name].tobytes() == value.tobytes(), name
        if not name.startswith("fc."):
            assert (made.params[name].tobytes() == value.tobytes()) == (
                name.partition(".")[0] in still
            ), name
    assert log_of(tmp_path)[-1]["loss"] < log_of(tmp_path)[0]["loss"]


@pytest.mark.parametrize("preprocess", [Preprocess(10, 8, "torch7"), Preprocess(8, 8, "keras")])
@pytest.mark.parametrize("crop", ["none", "resized", "pad"])
def test_finetune_a_model_of_another_system(tmp_path, model, preprocess, crop):
    """The images have two sizes, are resized, and some of them serve for validation."""
    others = replace(model, preprocess=preprocess)
    recipe = changed(epochs=2, crop=crop, sides=(6, 8))
    wide = np.random.default_rng(0).integers(0, 256, (20, 11, 16, 3), dtype=np.uint8)
    pictures = Dataset(
        tuple("xyz"), np.arange(20) % 3, [f"{i}.png" for i in range(20)], lambda i: wide[i]
    )
    made = finetune(others, pictures, recipe, tmp_path, validation=pictures)
    assert made.preprocess == load(tmp_path / "model.h5").preprocess == preprocess
    assert made.predict(wide[0])[0][0].label in "xyz"


@pytest.mark.parametrize(
    ("said", "kept"), [({}, "CC BY-NC 4.0"), ({"licence": "CC0-1.0"}, "CC0-1.0")]
)
def test_finetune_hands_down_origin_and_licence(tmp_path, model, said, kept):
    known = replace(
        model,
        provenance={
            "source": "theirs.pth",
            "sha256": "12ab",
            "licence": "CC BY-NC 4.0",
            "page": "",
        },
    )
    recipe = changed(epochs=1)
    found = finetune(known, small.pictures(), recipe, tmp_path, provenance=said).provenance
    assert found["licence"] == kept
    assert found["initial weights"] == "theirs.pth, 12ab"
    assert found["source"].startswith("trained by tinyresnext")


def test_finetune_sees_the_middle_of_pictures_that_have_the_size_of_the_crop():
    """The model enlarges them and cuts the middle out, and so does training."""
    enlarging, pictures = replace(small.PREPROCESS, resize=10), small.pictures(3)
    recipe = changed(crop="none", flip=False)
    for preprocess, resize in ((enlarging, 10), (small.PREPROCESS, None)):
        augment = augmentation.augmented(recipe.augmentation, preprocess, pictures, 8)
        assert augment.resize == resize
        with Loader(pictures, augment, batch=3, shuffle=False) as loader:
            ((x, _),) = loader.epoch(0)
        assert (x == np.stack([prepare(pictures.picture(i), preprocess) for i in range(3)])).all()


@pytest.mark.parametrize(
    ("side", "padding", "scale", "padded"),
    [
        (32, 0, None, 4),
        (64, 0, None, 8),
        (64, 3, None, 3),
        (65, 3, (0.08, 1.0), 0),
        (4, 0, None, 0),
    ],
)
def test_the_usual_crop_is_that_of_the_networks_size(side, padding, scale, padded):
    said = changed(crop="usual", padding=padding).augmentation
    images = small.pictures(1)
    augment = augmentation.augmented(said, Preprocess(side, side), images, side)
    assert (augment.scale, augment.padding) == (scale, padded)
    if side == 64 and not padding:  # smaller images have the same part of their side
        augment = augmentation.augmented(said, Preprocess(side, side), images, 32)
        assert augment.padding == 4


def test_finetune_refuses_a_stage_that_is_not_there(tmp_path, model):
    with pytest.raises(UsageError, match="stem, layer1, layer2"):
        finetune(model, small.pictures(), small.RECIPE, tmp_path / "run", frozen_to="layer7")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"recipe": changed(batch=71)}, "70 images and a mini-batch 71"),
        ({"recipe": changed(padding=9)}, "padding is 9"),
        ({"recipe": changed(cutout=9)}, "cutout is 9"),
        (
            {
                "recipe": changed(crop="usual", padding=8, fill="mirror"),
                "preprocess": replace(small.PREPROCESS, resize=96, crop=96),
            },
            "padding and fill would change nothing here: images of 96 pixels are not padded",
        ),
        ({"dataset": small.pictures(20, tuple("abc"))}, "3 classes and the network 4"),
        (
            {"validation": small.pictures(20, tuple("abxc"))},
            "'x', and the data set to train on has",
        ),
        (
            {"preprocess": replace(small.PREPROCESS, mean=(0.5,), std=(0.5,))},
            "1 channels and the network takes 3",
        ),
        ({"device": "reference", "threads": 2}, "threads is 2"),
        ({"log_every": -1}, "log_every is -1"),
        ({"preprocess": 224}, "preprocess is of type int, expected a Preprocess"),
        ({"log_every": "a"}, "log_every is 'a'"),
        ({"recipe": "fast-cifar"}, "a Recipe was expected, found str; tinyresnext.recipe"),
        ({"dataset": "images.zip"}, "'images.zip' is the name of a data set; open it"),
        ({"validation": "images.zip"}, "'images.zip' is the name of a data set; open it"),
        ({"dataset": [1]}, "the data set is a list, expected a Dataset"),
        (
            {"dataset": small.pictures().pixels, "recipe": small.pictures().labels},
            r"from_arrays\(x, y\) makes one of arrays",
        ),
        ({"dataset": None}, "the data set is a NoneType, expected a Dataset"),
        ({"out": None}, "the folder of the run is None, expected a path"),
        ({"teacher": 3}, "the teachers are int: give models"),
        ({"teacher": "large.h5"}, "the teachers are str: give models"),
    ],
)
def test_what_does_not_fit_together(tmp_path, arguments, text):
    given = {
        "spec": small.SPEC,
        "dataset": small.pictures(),
        "recipe": small.RECIPE,
        "out": tmp_path / "run",
    } | OPTIONS
    with pytest.raises(UsageError, match=text):
        train(**given | arguments)
    assert not (tmp_path / "run").exists()


FOUR = Spec((1, 1, 1, 1), 2, 8, 4, stem="cifar", expansion=1)


@pytest.mark.parametrize(
    ("spec", "batch", "crop", "sides", "layer"),
    [
        (FOUR, 1, 8, (), "layer4.0.bn2"),  # bn1 stands before the stride
        (FOUR, 1, 2, (), "layer2.0.bn2"),
        (replace(FOUR, stem="imagenet"), 1, 32, (), "layer4.0.bn2"),
        (replace(FOUR, stem="imagenet"), 1, 2, (), "bn1"),
        (replace(FOUR, stem="pooled"), 1, 16, (), "layer4.0.bn2"),
        (FOUR, 1, 16, (8, 16), "layer4.0.bn2"),
        (FOUR, 1, 16, (16, 8), "layer4.0.bn2"),
        (FOUR, 1, 16, (), None),
        (FOUR, 2, 8, (), None),
    ],
)
def test_a_batch_norm_needs_more_than_one_value(spec, batch, crop, sides, layer, tmp_path):
    recipe = changed(epochs=2, batch=batch, sides=sides, padding=0, crop="pad", mixup=0.0)
    preprocess = replace(small.PREPROCESS, resize=crop, crop=crop)
    data = small.pictures(4)

    def run():
        return train(
            spec, data, recipe, tmp_path / "run", preprocess=preprocess, device="reference"
        )

    if layer is None:
        run()
    else:
        words = rf"batch norm {layer} gets a single value.*--batch, at least 2.*larger images"
        with pytest.raises(UsageError, match=words):
            run()
        assert not (tmp_path / "run").exists()


def test_frozen_batch_norms_do_not_need_more_than_one_value(tmp_path):
    preprocess = replace(small.PREPROCESS, resize=8, crop=8)
    model = Model(
        FOUR, cases.weights(FOUR, counters=False), preprocess, tuple("abcd"), {}, reference
    )
    recipe = changed(epochs=1, batch=1, padding=0)
    data = small.pictures(4)
    for frozen in (None, "layer3"):
        with pytest.raises(UsageError, match="single value"):
            finetune(model, data, recipe, tmp_path / "no", frozen_to=frozen)
    finetune(model, data, recipe, tmp_path / "yes", frozen_to="layer4")


def test_one_class_is_nothing_to_learn(tmp_path, model):
    data = small.pictures(20, classes=("cat",))
    for spec in (replace(small.SPEC, classes=1), small.SPEC):
        with pytest.raises(UsageError, match="1 class"):
            train(spec, data, small.RECIPE, tmp_path / "run", **OPTIONS)
    with pytest.raises(UsageError, match=r"1 class to train for \('cat'\), and .*image,label"):
        finetune(model, data, small.RECIPE, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    head = {"fc.weight": model.params["fc.weight"][:1], "fc.bias": np.zeros(1, np.float32)}
    spec, params = replace(model.spec, classes=1), {**model.params, **head}
    one = replace(model, spec=spec, params=params, labels=("cat",))
    recipe = changed(epochs=1, mixup=0.0)
    assert finetune(one, small.pictures(20), recipe, tmp_path / "two").spec.classes == 4


def test_other_pictures_are_not_resumed(tmp_path):
    train(small.SPEC, small.pictures(), small.RECIPE, tmp_path, **OPTIONS)
    with pytest.raises(UsageError, match="images '70 in 4 classes"):
        train(small.SPEC, small.pictures(71), small.RECIPE, tmp_path, resume=True, **OPTIONS)
    with pytest.raises(UsageError, match="validation 'none', and not '20 in 4 classes"):
        train(
            small.SPEC,
            small.pictures(),
            small.RECIPE,
            tmp_path,
            resume=True,
            validation=small.pictures(20),
            **OPTIONS,
        )
    with pytest.raises(UsageError, match="--resume goes on"):
        train(small.SPEC, small.pictures(), small.RECIPE, tmp_path, **OPTIONS)


def test_another_number_of_threads_is_told(tmp_path, interrupted_after, monkeypatch, capsys):
    options = {"preprocess": small.PREPROCESS}
    interrupted_after(2)
    with pytest.raises(KeyboardInterrupt):
        train(small.SPEC, small.pictures(), small.RECIPE, tmp_path, threads=1, **options)
    monkeypatch.undo()
    assert "threads" not in capsys.readouterr().err
    train(small.SPEC, small.pictures(), small.RECIPE, tmp_path, threads=2, resume=True, **options)
    assert (
        "used the processor (1 thread) until now and continues on the processor (2 threads): "
        "some bits may differ" in capsys.readouterr().err
    )


def test_broken_pictures_are_told_of_once_and_not_counted(tmp_path):
    told, good = [], small.pictures(20, seed=1)

    def read(number):
        if number == 3:
            raise ImageError("003.png is broken")
        return good.picture(number)

    late = replace(good, read=read, pixels=None, skips=True, warn=told.append)
    made = train(small.SPEC, small.pictures(), small.RECIPE, tmp_path, validation=late, **OPTIONS)
    assert told == ["skipped: 003.png is broken"]
    assert "of 19 images" in made.provenance["accuracy"]


@pytest.mark.parametrize("where", ["dataset", "validation"])
@pytest.mark.parametrize(
    "error", [ImageError, FormatError, MachineError, MemoryError, OutOfMemoryError]
)
def test_an_image_that_cannot_be_read_costs_no_step(tmp_path, capsys, where, error):
    given = {"dataset": small.pictures(), "validation": small.pictures(20, seed=1)}
    with Loader(given["dataset"], augmentation.unchanged(small.PREPROCESS), 16) as loader:
        third = loader.order(0)[40]
    number, broken = third if where == "dataset" else 5, []
    pixels = given[where].pixels

    def read(i):
        if broken and i == number:
            raise error("the image is broken")
        return pixels[i]

    given[where] = replace(given[where], pixels=None, read=read)
    options = OPTIONS | given | {"spec": small.SPEC, "recipe": changed(seed=0)}
    train(out=tmp_path / "whole", **options)
    broken.append(True)
    for resume in (False, True):
        with pytest.raises(error, match="the image is broken"):
            train(out=tmp_path / "cut", resume=resume, **options)
        state = states.read(tmp_path / "cut" / "state.npz")
        assert (state.epoch, state.step) == (0, 2 if where == "dataset" else 4)
        said = f"the run ends after step {state.step} of 4 in epoch 1 of 3; the state is in"
        assert said in capsys.readouterr().err
    broken.clear()
    train(out=tmp_path / "cut", resume=True, **options)
    same(tmp_path / "whole", tmp_path / "cut")


def test_a_best_model_that_was_lost_is_said_and_the_next_one_is_kept(
    tmp_path, interrupted_after, monkeypatch, capsys
):
    options = OPTIONS | {"validation": small.pictures(20, seed=1)}
    recipe = changed(epochs=2, lr=1e-6)
    interrupted_after(6)
    with pytest.raises(KeyboardInterrupt):
        train(small.SPEC, small.pictures(), recipe, tmp_path, **options)
    monkeypatch.undo()
    (tmp_path / "best.h5").unlink()
    train(small.SPEC, small.pictures(), recipe, tmp_path, resume=True, **options)
    assert "best.h5 is not there, so the next validation counts as the best so far" in (
        capsys.readouterr().err
    )
    assert (tmp_path / "best.h5").exists()


def test_a_step_that_an_epoch_does_not_have(tmp_path, interrupted_after, monkeypatch):
    from tinyresnext.training.record import state as training_state

    interrupted_after(2)
    with pytest.raises(KeyboardInterrupt):
        train(small.SPEC, small.pictures(), small.RECIPE, tmp_path, **OPTIONS)
    monkeypatch.undo()
    state = training_state.read(tmp_path / "state.npz")
    training_state.write(tmp_path / "state.npz", replace(state, step=5))
    with pytest.raises(FormatError, match="step 5"):
        train(small.SPEC, small.pictures(), small.RECIPE, tmp_path, resume=True, **OPTIONS)


def test_progress_moves_at_terminals_only(tmp_path, capsys, monkeypatch):
    train(small.SPEC, small.pictures(), small.RECIPE, tmp_path / "a", **OPTIONS)
    out, err = capsys.readouterr()
    assert out == ""
    few = "warning: only 12 steps, in which a network hardly learns: --epochs 100 gives 400\n"
    form = r"epoch {}/3  \d+ images/s  loss \d\.\d{{4}}  accuracy \d+\.\d%  \d:\d\d\n"
    assert re.fullmatch(few + "".join(form.format(number) for number in (1, 2, 3)), err)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr(training_log, "EVERY", 0.0)
    train(
        small.SPEC,
        small.pictures(),
        small.RECIPE,
        tmp_path / "b",
        validation=small.pictures(20),
        **OPTIONS,
    )
    out, err = capsys.readouterr()
    assert out == ""
    assert "epoch 2/3  3/4  " in err
    assert err.count("\n") == 4  # the warning, and one line for each epoch stay
    assert "top-1" in err
    assert " left" in err


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("None", "terminal") else pytest.param(name, marks=pytest.mark.slow)
        for name in odd_streams.STREAMS
    ],
)
def test_training_needs_no_console(name, tmp_path, monkeypatch):
    data, stream = small.pictures(), odd_streams.STREAMS[name]()
    warned = replace(
        data, read=lambda i: data.warn(f"image {i} \u732b") or data.pixels[i], pixels=None
    )
    recipe, options = changed(epochs=1), OPTIONS | {"validation": small.pictures(20)}
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        patch.setattr(sys, "stdout", None)
        model = train(small.SPEC, warned, recipe, tmp_path / "a", **options)
        finetune(model, data, recipe, tmp_path / "b", validation=small.pictures(20))
        assert evaluate(model, warned).pictures == len(data)
    wanted = train(small.SPEC, data, recipe, tmp_path / "c", **options)
    for parameter, value in wanted.params.items():
        np.testing.assert_array_equal(model.params[parameter], value)
    if isinstance(stream, odd_streams.TextOnly) and name != "failing":
        assert "warning: image 3" in stream.text
        assert "epoch 1/1" in stream.text
        assert ("\r" in stream.text) == (name == "terminal")


def test_smaller_pictures_are_padded_and_wiped_out_by_the_same_part():
    recipe, preprocess = changed(padding=4, cutout=8), Preprocess(32, 32)
    found = [
        augmentation.augmented(recipe.augmentation, preprocess, small.pictures(), side)
        for side in (32, 24, 16, 20)
    ]
    assert [augment.padding for augment in found] == [4, 3, 2, 2]
    assert [augment.cutout for augment in found] == [8, 6, 4, 5]


@pytest.mark.slow
def test_smaller_pictures_first(tmp_path, interrupted_after, monkeypatch):
    sides, real = [], training_run.Run.step
    recipe = changed(sides=(4, 6, 8), epochs=6)
    assert [recipe.side(epoch, 99) for epoch in range(6)] == [4, 4, 6, 6, 8, 8]
    monkeypatch.setattr(
        training_run.Run,
        "step",
        lambda run, x, labels: (sides.append(x.shape[1:3]), real(run, x, labels)),
    )
    train(small.SPEC, small.pictures(), recipe, tmp_path / "whole", **OPTIONS)
    assert sides == [(side, side) for side in (4, 4, 6, 6, 8, 8) for _ in range(4)]
    interrupted_after(15)  # while they are 6 x 6
    with pytest.raises(KeyboardInterrupt, match="step 3 of 4 in epoch 4"):
        train(small.SPEC, small.pictures(), recipe, tmp_path / "stopped", **OPTIONS)
    monkeypatch.undo()
    train(small.SPEC, small.pictures(), recipe, tmp_path / "stopped", resume=True, **OPTIONS)
    same(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.parametrize(
    ("name", "classes", "expected"),
    [
        ("facebook-cifar", 100, CIFAR_100),
        ("facebook-cifar", 10, CIFAR),
        ("fast-cifar", 100, CIFAR),
    ],
)
def test_the_authors_normalise_cifar_100_by_its_own_numbers(name, classes, expected):
    found = augmentation.usual_preprocess(cifar(29, 8, 64, classes=classes), RECIPES[name])
    assert (found.mean, found.std) == (expected.mean, expected.std)
    large = augmentation.usual_preprocess(Spec((3, 4), 32, 4, classes=classes), RECIPES[name])
    assert large.mean == Preprocess().mean


def test_grey_pictures(tmp_path):
    colour = small.pictures()
    grey = colour.pixels[:, :, :, :1]
    dataset = Dataset(
        colour.classes, colour.labels, colour.names, lambda number: grey[number], pixels=grey
    )
    spec = replace(small.SPEC, channels=1)
    recipe = changed(epochs=1, crop="resized", jitter=0.2)
    assert augmentation.usual_preprocess(spec, recipe).channels == 1
    preprocess = replace(small.PREPROCESS, mean=(0.5,), std=(0.25,))
    assert (
        train(
            spec, dataset, recipe, tmp_path, preprocess=preprocess, device="reference"
        ).spec.channels
        == 1
    )


def test_another_model_does_not_go_on_with_a_run(tmp_path, model):
    recipe = changed(epochs=1)
    finetune(model, small.pictures(), recipe, tmp_path)
    finetune(model, small.pictures(), recipe, tmp_path, resume=True)
    other = replace(model, params={**model.params, "bn1.bias": model.params["bn1.bias"] + 1})
    with pytest.raises(UsageError, match="initial model"):
        finetune(other, small.pictures(), recipe, tmp_path, resume=True)


def test_labels_without_a_class_are_refused_before_it_begins(tmp_path):
    good = small.pictures()
    bad = replace(good, labels=good.labels - 1)
    for images, held in ((bad, good), (good, bad)):
        with pytest.raises(UsageError, match="reach from -1 to 2, expected 0 to 3"):
            train(small.SPEC, images, small.RECIPE, tmp_path / "run", validation=held, **OPTIONS)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", [bool, np.int8, np.float32])
def test_several_labels_may_be_of_any_type(kind):
    images = small.pictures()
    several = replace(images, labels=np.eye(4)[images.labels].astype(kind))
    check_kinds(several, small.RECIPE, several)
    check_labels("data set", several)


def test_finetune_refuses_the_name_of_a_model(tmp_path):
    with pytest.raises(UsageError, match=r"a model was expected, found str; tinyresnext\.load"):
        finetune("model.h5", small.pictures(), small.RECIPE, tmp_path / "run")


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ("abcd", "the model has these classes already, so its classifier is trained further"),
        ("abdc", "the model has other classes or another head, so its classifier begins anew"),
    ],
)
def test_finetune_keeps_a_classifier_for_the_same_classes(tmp_path, model, capsys, classes, said):
    recipe = changed(lr=0.0, warmup=0.0, epochs=1, weight_decay=0.0)
    made = finetune(model, small.pictures(classes=tuple(classes)), recipe, tmp_path)
    kept = all(np.allclose(made.params[n], model.params[n]) for n in ("fc.weight", "fc.bias"))
    assert kept == (classes == "abcd")
    assert said in capsys.readouterr().err
    finetune(model, small.pictures(classes=tuple(classes)), recipe, tmp_path, resume=True)
    assert said not in capsys.readouterr().err


@pytest.mark.parametrize("label", [-1, 4])
def test_labels_that_name_no_class(tmp_path, label):
    images = small.pictures()
    labels = images.labels.copy()
    labels[3] = label
    with pytest.raises(UsageError, match="expected 0 to 3"):
        train(small.SPEC, replace(images, labels=labels), small.RECIPE, tmp_path)
    several = np.eye(4, dtype=np.int64)[images.labels]
    several[3, 1] = label
    spec = replace(small.SPEC, head="sigmoid")
    with pytest.raises(UsageError, match="expected 0 to 1"):
        train(spec, replace(images, labels=several), small.RECIPE, tmp_path)


def test_grey_images_may_have_no_axis_of_channels(tmp_path):
    """`read` returns what `decode` takes: a scan or a digit is often [h, w]."""
    colours = small.pictures(20)
    grey = [image[:, :, 0] for image in colours.pixels]
    for name, images in (("a", grey), ("b", [image[:, :, None] for image in grey])):
        given = replace(colours, pixels=None, read=images.__getitem__)
        train(small.SPEC, given, changed(epochs=1), tmp_path / name, validation=given, **OPTIONS)
    same(tmp_path / "a", tmp_path / "b")
