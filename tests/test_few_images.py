"""Runs on few images: how many steps they make, what is held out, and how classes are balanced."""

from __future__ import annotations

import json
import signal
from dataclasses import replace

import numpy as np
import pytest
import training_cases as small
from PIL import Image
from test_training import OPTIONS, changed, log_of, same

from tinyresnext import load, train
from tinyresnext.data.dataset import Dataset, held_out
from tinyresnext.errors import TrainingError, UsageError
from tinyresnext.images.prepare import normalise
from tinyresnext.inference import evaluate as evaluation
from tinyresnext.network.step import Step
from tinyresnext.ops import reference
from tinyresnext.training import run as training_run
from tinyresnext.training.initial import initialise
from tinyresnext.training.recipes import RECIPES
from tinyresnext.training.recipes.steps import ENOUGH, FEW, enough, few, steps, warnings_for
from tinyresnext.training.record import curve
from tinyresnext.training.setting import frozen_parts
from tinyresnext.training.trial import preview
from tinyresnext.training.weights import size, views

FAST = RECIPES["fast-cifar"]


@pytest.mark.parametrize(
    ("images", "given", "batch", "epochs", "lr"),
    [
        (50_000, {}, 128, 25, 0.2),
        (2048, {}, 128, 25, 0.2),  # 16 steps in each of 25 epochs are just enough
        (2047, {}, 64, 25, 0.1),
        (500, {}, 16, 25, 0.025),
        (60, {}, 16, 134, 0.025),
        (12, {}, 12, 400, 0.2 * 12 / 128),
        (1, {}, 1, 400, 0.2 / 128),
        (60, {"batch": 30}, 30, 200, 0.2 * 30 / 128),
        (60, {"epochs": 25}, 16, 25, 0.025),
        (60, {"epochs": 25, "batch": 60}, 60, 25, 0.2 * 60 / 128),
        (60, {"lr": 0.3}, 16, 134, 0.3),
        (60, {"batch": 256}, 256, 25, 0.2),
        (60, {"parts": 8}, 16, 134, 0.025),
        (300, {"parts": 32}, 64, 100, 0.1),  # a part has two images at least
        (60, {"parts": 32}, 32, 400, 0.05),
        (50_000, {"parts": 100}, 200, 25, 0.2),  # more than the recipe's 128
        (150, {"parts": 100}, 100, 400, 0.2 * 100 / 128),  # there are no more images
        (50_000, {"parts": 1}, 128, 25, 0.2),
        (500, {"parts": 6, "batch": 126}, 126, 134, 0.2 * 126 / 128),
        (50_000, {"batch": 64}, 64, 25, 0.2),  # as with --recipe, since nothing is to be mended
        (2048, {"batch": 16}, 16, 25, 0.2),
        (2047, {"batch": 16}, 16, 25, 0.025),
        (50_000, {"epochs": 1, "batch": 64}, 64, 1, 0.1),  # 390 steps of the recipe's own
    ],
)
def test_enough_steps(images, given, batch, epochs, lr):
    found = enough(FAST, images, given)
    assert (found.batch, found.epochs, found.schedule.lr) == (batch, epochs, pytest.approx(lr))
    assert found == FAST.changed(
        {"batch": batch, "epochs": epochs, "lr": found.schedule.lr} | given
    )
    if not given:
        assert steps(found, images) >= ENOUGH


def test_few_steps_are_told_with_what_would_make_more():
    assert few(FAST.changed({"batch": 60, "epochs": 10}), 250) == (
        "only 40 steps, in which a network hardly learns: --batch 16 gives 150, "
        "--batch 16 --epochs 27 gives 405"
    )
    assert few(FAST.changed({"batch": 16, "epochs": 1}), 20) == (
        "only 1 step, in which a network hardly learns: --epochs 400 gives 400"
    )
    assert few(FAST.changed({"batch": 1, "epochs": FEW - 1}), 1).startswith(f"only {FEW - 1} steps")
    assert few(FAST.changed({"batch": 1, "epochs": FEW}), 1) is None


def test_few_steps_in_parts_are_told_with_batches_of_equal_parts():
    assert few(FAST.changed({"batch": 48, "parts": 3, "epochs": 2}), 96) == (
        "only 4 steps, in which a network hardly learns: --batch 15 gives 12, "
        "--batch 15 --epochs 67 gives 402"
    )


LONG = RECIPES["torchvision-v2"].changed({"batch": 64})
LATE = LONG.changed({"epochs": 40, "ema": 0.99})  # 1,000 images make 600 steps of these


@pytest.mark.parametrize(
    ("recipe", "images", "step"),
    [
        (LONG.changed({"epochs": 5}), 1000, 16),
        (LONG.changed({"epochs": 100}), 10_000, 157),
        (LATE, 1000, 16),  # 40 moves by a hundredth
        (LATE.changed({"ema": 0.0}), 1000, None),
        (LATE.changed({"ema": 0.9}), 1000, None),
        (LATE.changed({"ema_every": 1}), 1000, None),
        (LATE.changed({"ema_every": 1, "ema_warmup": "soft", "ema": 0.9999}), 1000, None),
        (FAST.changed({"epochs": 2, "batch": 10, "ema": 0.9, "ema_every": 50}), 500, 51),
        (RECIPES["muon-cifar"], 50_000, None),
        (RECIPES["torchvision-v2"], 1_281_167, None),
    ],
)
def test_an_average_of_early_weights_is_said(recipe, images, step):
    found = [text for text in warnings_for(small.SPEC, recipe, images) if "averaged" in text]
    assert len(found) == (step is not None)
    if step is not None:
        assert f"those of step {step} of {steps(recipe, images)} or before" in found[0]
        assert "--ema-every 1 --ema-warmup soft" in found[0]


def test_a_run_that_is_all_warm_up_is_said():
    [said] = warnings_for(small.SPEC, LONG.changed({"epochs": 1, "ema": 0.0}), 10_000)
    assert said.startswith("all of this run is warm-up: the learning rate is 0.005 at most")
    assert not warnings_for(small.SPEC, LONG.changed({"epochs": 2, "ema": 0.0}), 10_000)
    asked = LONG.changed({"epochs": 1, "ema": 0.0, "warmup": 1.0})
    assert not warnings_for(small.SPEC, asked, 10_000)


def test_blocks_that_cannot_be_left_out_are_said():
    recipe, one = FAST.changed({"drop_path": 0.1}), replace(small.SPEC, blocks=(1,))
    [said] = warnings_for(one, recipe, 50_000)
    assert said.startswith("drop_path is 0.1 and ")
    assert "has a single block" in said
    assert not warnings_for(small.SPEC, recipe, 50_000)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"muon": 0.02}, "--muon 0.02 leaves alone"),
        ({"layer_decay": 0.75}, "--layer-decay 0.75 leaves alone"),
        (
            {"clip": "adaptive", "clip_at": 0.01, "muon": 0.02},
            "--muon 0.02 and --clip adaptive leave alone",
        ),
        ({"clip": "norm", "clip_at": 1.0}, None),
    ],
)
def test_settings_that_a_classifier_alone_does_not_have_are_said(changes, named):
    recipe = FAST.changed(changes)
    found = warnings_for(small.SPEC, recipe, 50_000, frozen_parts(small.SPEC, "layer2"))
    assert len(found) == (named is not None)
    if named is not None:
        assert found[0].startswith("all layers up to layer2 are frozen")
        assert named in found[0]
    assert not warnings_for(small.SPEC, recipe, 50_000, frozen_parts(small.SPEC, "layer1"))


def test_warnings_are_said_before_it_begins(tmp_path, capsys):
    recipe = changed(epochs=1, ema=0.999, ema_every=10, ema_warmup="none")
    train(small.SPEC, small.pictures(), recipe, tmp_path, **OPTIONS)
    assert "half of the averaged weights that are kept would be those of step 1 of 4" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("memory", [True, False])
def test_held_out(memory):
    counts = np.array([10, 5, 2, 1])
    labels = np.repeat(np.arange(4), counts)
    pixels = np.arange(18, dtype=np.uint8)[:, None, None, None]
    names = [str(i) for i in range(18)]
    data = Dataset(
        tuple("abcd"), labels, names, lambda i: pixels[i], pixels=pixels if memory else None
    )
    training, validation = held_out(data, 0.2, seed=0)
    assert np.bincount(validation.labels, minlength=4).tolist() == [2, 1, 1, 0]
    assert (np.bincount(training.labels) + np.array([2, 1, 1, 0]) == counts).all()
    seen = [
        int(part.picture(i)[0, 0, 0]) for part in (training, validation) for i in range(len(part))
    ]
    assert sorted(seen) == list(range(18))
    assert [str(i) for i in seen] == [*training.names, *validation.names]
    assert [labels[i] for i in seen] == [*training.labels, *validation.labels]
    same, others = held_out(data, 0.2, seed=0)[1], held_out(data, 0.2, seed=1)[1]
    assert same.names == validation.names != others.names
    assert np.bincount(held_out(data, 0.99, seed=0)[0].labels).tolist() == [1, 1, 1, 1]


def test_nothing_can_be_held_out():
    with pytest.raises(UsageError, match="no class has two images"):
        held_out(small.pictures(1, ("a",)), 0.2, seed=0)
    for part in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match=r"expected a number such as 0\.2"):
            held_out(small.pictures(), part, seed=0)


# --- early stopping -------------------------------------------------------------------------------


@pytest.fixture
def scores(monkeypatch):
    """Validations that find these accuracies, one after the other."""

    def go(*values):
        left = list(values)

        def score(*arguments, **options):
            found = evaluation.judged(*arguments, **options)
            right = round(left.pop(0) * found.pictures)
            confusion = np.zeros_like(found.confusion)
            confusion[0, :2] = right, found.pictures - right
            return replace(found, confusion=confusion)

        monkeypatch.setattr(training_run, "judged", score)

    return go


def test_a_run_ends_when_nothing_gets_better(tmp_path, scores):
    recipe, validation = changed(epochs=9, patience=2), small.pictures(20, seed=1)
    scores(0.2, 0.5, 0.5, 0.6, 0.6, 0.4, 0.9)
    train(small.SPEC, small.pictures(), recipe, tmp_path, validation=validation, **OPTIONS)
    assert [line["top1"] for line in log_of(tmp_path)] == [0.2, 0.5, 0.5, 0.6, 0.6, 0.4]
    assert "60.00%" in load(tmp_path / "best.h5", "reference").provenance["accuracy"]
    assert "40.00%" in load(tmp_path / "model.h5", "reference").provenance["accuracy"]
    before = (tmp_path / "model.h5").read_bytes()
    options = OPTIONS | {"validation": validation, "resume": True}
    train(small.SPEC, small.pictures(), recipe, tmp_path, **options)
    assert (tmp_path / "model.h5").read_bytes() == before


@pytest.mark.slow
def test_a_stopped_run_waits_as_long_as_a_whole_one(tmp_path, scores, monkeypatch):
    recipe, validation = changed(epochs=9, patience=2), small.pictures(20, seed=1)
    options, found = OPTIONS | {"validation": validation}, (0.5, 0.4, 0.4)
    scores(*found)
    train(small.SPEC, small.pictures(), recipe, tmp_path / "whole", **options)
    real, left = training_run.Run.step, [10]

    def step(run, x, labels):
        left[0] -= 1
        if left[0] == 0:
            signal.raise_signal(signal.SIGINT)
        real(run, x, labels)

    scores(*found)
    monkeypatch.setattr(training_run.Run, "step", step)
    with pytest.raises(KeyboardInterrupt, match="step 2 of 4 in epoch 3"):
        train(small.SPEC, small.pictures(), recipe, tmp_path / "cut", **options)
    train(small.SPEC, small.pictures(), recipe, tmp_path / "cut", resume=True, **options)
    same(tmp_path / "whole", tmp_path / "cut")


def test_patience_needs_a_validation(tmp_path):
    with pytest.raises(UsageError, match="patience is 2, and there are no validation images"):
        train(small.SPEC, small.pictures(), changed(patience=2), tmp_path / "run", **OPTIONS)
    assert not (tmp_path / "run").exists()


# --- learning a mini-batch by heart ---------------------------------------------------------------


def test_a_mini_batch_is_learnt_by_heart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = train(small.SPEC, small.pictures(), changed(mixup=0.0), "", overfit=True, **OPTIONS)
    assert model.provenance["learnt by heart"].startswith("a mini-batch of 16 images in ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("lr", "text"),
    [
        pytest.param(
            1e-9,
            r"not learnt by heart: after 300 steps, \d+ of them are right.*than 1e-09",
            marks=pytest.mark.slow,
        ),
        (1e3, r"not finite in step \d+ on the same mini-batch; give a smaller --lr than 1000"),
    ],
)
def test_what_is_not_learnt_by_heart(lr, text):
    with pytest.raises(TrainingError, match=text):
        train(small.SPEC, small.pictures(), changed(lr=lr), "", overfit=True, **OPTIONS)


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"overfit": True, "dry_run": "sheet.png"}, "two checks; give one"),
        ({"overfit": True, "resume": True}, "begins with new weights: leave out --resume"),
        ({"dry_run": "sheet.png", "resume": True}, "begins with new weights: leave out --resume"),
    ],
)
def test_a_trial_is_made_alone(tmp_path, monkeypatch, more, text):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=text):
        train(small.SPEC, small.pictures(), changed(mixup=0.0), "", **more, **OPTIONS)
    assert not list(tmp_path.iterdir())


def test_the_images_that_are_learnt_by_heart_are_those_of_the_first_step(tmp_path, monkeypatch):
    labels = np.array([0] * 60 + [1, 1, 2, 3])
    data = replace(small.pictures(64), labels=labels)
    recipe, found = changed(balance="sampling", repeats=2), []

    def step(run, x, images):
        found.append(images)
        raise ZeroDivisionError

    monkeypatch.setattr(training_run.Run, "step", step)
    for overfit in (True, False):
        with pytest.raises(ZeroDivisionError):
            train(small.SPEC, data, recipe, tmp_path / "run", overfit=overfit, **OPTIONS)
    assert found[0].tolist() == found[1].tolist()
    assert len(set(labels[found[0]].tolist())) > 1


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (replace(small.pictures(70), labels=np.full(70, 2)), "(c)"),
        (replace(small.pictures(70), labels=np.tile([0, 1, 0, 1], (70, 1))), "(b, d)"),
    ],
    ids=["a class", "labels"],
)
def test_a_mini_batch_with_one_label_is_said(monkeypatch, capsys, data, named):
    spec = replace(small.SPEC, head="softmax" if data.labels.ndim == 1 else "sigmoid")
    train(spec, data, changed(), "", overfit=True, **OPTIONS)
    assert f"all images of the mini-batch have the same label {named}" in capsys.readouterr().err


def test_lamb_learns_by_heart_with_the_rates_of_lamb(monkeypatch):
    """Without a decay it would be Adam, at a rate that is meant for parts of a weight's norm."""
    decays, real = set(), reference.lamb_step

    def noted(*arguments, decay, **more):
        decays.add(decay)
        real(*arguments, decay=decay, **more)

    monkeypatch.setattr(reference, "lamb_step", noted)
    recipe = RECIPES["timm-a2"].changed({"batch": 16})
    model = train(small.SPEC, small.pictures(), recipe, "", overfit=True, **OPTIONS)
    assert model.provenance["learnt by heart"].startswith("a mini-batch of 16 images in ")
    assert recipe.optimiser.weight_decay in decays


# --- what a run would do --------------------------------------------------------------------------


def test_a_dry_run_shows_the_first_step(tmp_path, monkeypatch):
    """Its images are those of the first step, and nothing but the picture is written."""
    monkeypatch.chdir(tmp_path)
    seen, drawn = [], preview._drawn

    def note(trial, sample):
        seen.append((sample.x, sample.rows))
        return drawn(trial, sample)

    monkeypatch.setattr(preview, "_drawn", note)
    recipe = changed(policy="ta_wide", erase=0.5, cutmix=1.0, repeats=2)
    dataset = small.pictures()
    model = train(small.SPEC, dataset, recipe, "", dry_run="sheet.png", **OPTIONS)
    said = model.provenance["dry run"].splitlines()
    assert "70 images" in said[0]
    assert said[1].startswith("3 epochs of 4 steps: 12 steps, mini-batches of 16, images of 8 x 8")
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
    with Image.open("sheet.png") as sheet:
        assert sheet.height > 2 * preview.TILE
    steps = []
    monkeypatch.setattr(
        Step, "__call__", lambda self, x, rows, *_: steps.append((x, rows)) or 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        train(small.SPEC, dataset, recipe, "run", **OPTIONS)
    assert all((one == other).all() for one, other in zip(seen[0], steps[0], strict=True))


@pytest.mark.parametrize("mixing", [{"mixup": 0.0}, {"cutmix": 1.0}], ids=["plain", "mixed"])
def test_a_dry_run_of_a_large_mini_batch_makes_a_few_of_its_images(tmp_path, monkeypatch, mixing):
    """They are the first ones of the first step; time and memory are those of the whole step."""
    monkeypatch.setattr(preview, "PIXELS", 5 * 8 * 8)
    monkeypatch.setattr(preview, "SHOWN", 6)
    seen, tried, drawn, step = [], [], preview._drawn, Step.__call__

    def note(trial, sample):
        seen.append((sample.x, sample.rows))
        return drawn(trial, sample)

    monkeypatch.setattr(preview, "_drawn", note)
    recipe, dataset = changed(policy="ta_wide", parts=2, **mixing), small.pictures()

    def counted(self, x, rows, *more):
        tried.append(x.shape[0])
        return step(self, x, rows, *more)

    monkeypatch.setattr(Step, "__call__", counted)
    model = train(small.SPEC, dataset, recipe, "", dry_run=tmp_path / "sheet.png", **OPTIONS)
    assert set(tried) == {5}
    said = model.provenance["dry run"].splitlines()
    assert said[1].startswith("3 epochs of 4 steps: 12 steps, mini-batches of 16 in 2 parts")
    assert "; with --parts 4, " in said[2]
    assert "measured with 5 of its images" in said[3]
    sizes = [
        Step(model.params, small.SPEC, (n, 8, 8, 3), reference, threads=1).bytes / n for n in (5, 8)
    ]
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-3)  # so memory grows with the images
    monkeypatch.setattr(
        Step, "__call__", lambda self, x, rows, *_: seen.append((x[:6], rows[:6])) or 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        train(small.SPEC, dataset, recipe, tmp_path / "run", **OPTIONS)
    assert all((one == other).all() for one, other in zip(*seen, strict=True))


@pytest.mark.parametrize("muon", [0.0, 0.1])
def test_a_dry_run_of_a_single_step_measures_no_step_after_it(tmp_path, muon):
    recipe = changed(epochs=1, batch=64, warmup=0.2, muon=muon)
    path = tmp_path / "sheet.png"
    model = train(small.SPEC, small.pictures(), recipe, "", dry_run=path, **OPTIONS)
    assert "1 epochs of 1 steps: 1 steps, " in model.provenance["dry run"]


def test_a_dry_run_returns_the_network_before_training(tmp_path):
    recipe = changed(whiten=False)
    model = train(
        small.SPEC, small.pictures(), recipe, "", dry_run=tmp_path / "sheet.png", **OPTIONS
    )
    first = views(np.zeros(size(small.SPEC), np.float32), small.SPEC)
    initialise(first, recipe.start, recipe.seed)
    for name, value in first.items():
        assert np.array_equal(model.params[name], value), name


def test_a_dry_run_that_diverges_names_no_state(tmp_path, monkeypatch):
    call, losses = Step.__call__, iter([1.0, np.nan])
    monkeypatch.setattr(Step, "__call__", lambda *given: (next(losses), call(*given)[1]))
    sheet = tmp_path / "sheet.png"
    with pytest.raises(TrainingError) as raised:
        train(small.SPEC, small.pictures(), changed(lr=0.5), "", dry_run=sheet, **OPTIONS)
    said = str(raised.value)
    assert said.startswith("the loss is not finite in step 2 on the first images of the run")
    assert (
        "(the first value that is not finite is that of loss); give a smaller --lr than 0.5" in said
    )
    assert "state" not in said
    assert not list(tmp_path.iterdir())


def test_the_memory_that_parts_would_take_is_what_they_take(tmp_path, monkeypatch):
    monkeypatch.setattr(preview, "PIXELS", 5 * 8 * 8)
    monkeypatch.setattr(preview, "size", lambda spec: 1 << 28)  # so an array has 1,024 MiB
    said = []
    for parts in (1, 2, 4):
        model = train(
            small.SPEC, small.pictures(), changed(parts=parts, ema=0.0), "",
            dry_run=tmp_path / "sheet.png", **OPTIONS,
        )  # fmt: skip
        said.append(model.provenance["dry run"].splitlines()[2])
    assert said[2].startswith("4,097 MiB ")  # weights, gradients, momentum, their mean; and values
    assert all(line.endswith("with --parts 4, 4,097 MiB") for line in said[:2])


def test_a_sheet_shows_images_as_they_were():
    pixels = np.arange(0, 192, dtype=np.uint8).reshape(1, 8, 8, 3)
    x = normalise(pixels, small.PREPROCESS)
    assert (preview._pixels(x, small.PREPROCESS) == pixels).all()
    assert preview._targets(np.array([0.25, 0.0, 0.75]), ("a", "b", "c")) == ["c 0.75", "a 0.25"]
    assert preview._targets(np.array([0.25]), ("no", "yes")) == ["no 0.75", "yes 0.25"]


# --- the curve ------------------------------------------------------------------------------------


def test_the_curve_shows_what_the_log_says(tmp_path):
    """Every epoch is a point of its colour, at its height."""
    log = tmp_path / "log.jsonl"
    values = [{"epoch": i + 1, "loss": 2.0 - i / 2, "accuracy": i / 4} for i in range(4)]
    log.write_text("".join(json.dumps(line) + "\n" for line in values))
    curve.write(tmp_path / "curve.png", log)
    pixels = np.asarray(Image.open(tmp_path / "curve.png"))
    blue = (pixels == curve.TRAINING).all(2)
    red = (pixels == curve.VALIDATION).all(2)
    assert not red.any()  # there is no validation
    for panel, (top, wanted) in enumerate(((2.1, [2, 1.5, 1, 0.5]), (1.0, [0, 0.25, 0.5, 0.75]))):
        upper = curve.TOP + panel * (curve.HIGH + curve.GAP)
        for i, value in enumerate(wanted):
            x = curve.LEFT + min(max(round(curve.WIDE * i / 3), 2), curve.WIDE - 2)
            found = np.flatnonzero(blue[upper : upper + curve.HIGH + 2, x])
            assert abs(found.mean() - curve.HIGH * (1 - value / top)) < 3


def test_odd_lines_of_a_log_are_left_out(tmp_path):
    lines = [
        "{",
        "[" * 100_000,
        "[]",
        '{"epoch": "1", "loss": 1}',
        '{"epoch": 1, "step": 1, "loss": 1}',
        '{"epoch": 1, "loss": NaN, "top1": "x"}',
        f'{{"epoch": 1, "loss": 1{"0" * 400}}}',
        f'{{"epoch": 1{"0" * 400}, "loss": 1}}',
        '{"epoch": 2, "loss": 1e999, "accuracy": null, "validation_loss": 0.5}',
    ]
    found = curve.points(lines)
    assert {name: some for name, some in found.items() if some} == {"validation_loss": [(2, 0.5)]}
    assert curve.draw(found).size == (728, 626)  # a single epoch is a dot
    (tmp_path / "log.jsonl").write_bytes(b"\xff\n")
    curve.write(tmp_path / "curve.png", tmp_path / "log.jsonl")
    assert not (tmp_path / "curve.png").exists()
