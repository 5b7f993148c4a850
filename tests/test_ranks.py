"""Several ranks that share each mini-batch, here as threads: what they compute is what one does."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import training_cases as small
from op_cases import generator
from ranks import together
from test_step import FROZEN, NETWORKS, network

import tinyresnext.training.train as training
from tinyresnext import finetune, random_model, train
from tinyresnext.cli.main import main
from tinyresnext.data.loader import Loader
from tinyresnext.errors import (
    DeviceError,
    ImageError,
    TinyResNeXtError,
    TrainingError,
    UsageError,
)
from tinyresnext.images.augmentation.augment import Augment
from tinyresnext.network import buckets
from tinyresnext.network.step import Step
from tinyresnext.ops import cpu, reference
from tinyresnext.ops.cuda.norm import train as cuda_norm
from tinyresnext.system import mpi
from tinyresnext.system.ranks import (
    ALONE,
    all_or_none,
    any_rank,
    by_the_first,
    part_of,
    which_ranks,
)
from tinyresnext.training import run as training_run
from tinyresnext.training.record import state as states

OPTIONS = {"preprocess": small.PREPROCESS, "device": "reference"}
# Rounding, 2**-24, of sums of some hundred terms, in a dozen steps that each take in the error of
# the step before: NumPy and Numba in one process differ by 1e-5. Batch norms of a part of the
# mini-batch change a loss by more than a hundredth. A higher rate lets a ReLU flip, which is more.
RECIPE = small.RECIPE.changed({"lr": 0.02})
SAME_LOSS = 1e-4


# --- a step ---------------------------------------------------------------------------------------


def parts(count, x, labels, weights, params, spec, **options):
    """Return the step of each rank after a call, and its loss."""
    each = len(x) // count

    def work(ranks):
        own = slice(*part_of(ranks, len(x)))
        step = Step(params, spec, (each, *x.shape[1:]), reference, ranks=ranks, **options)
        for _ in range(2):
            loss, _ = step(x[own], labels[own], None if weights is None else weights[own])
        return step, loss, ranks.started

    return together(count, work)


def images(spec, count=4):
    rng = generator("ranks")
    return rng.standard_normal((count, 16, 16, spec.channels)), rng.integers(0, 5, count)


@pytest.mark.parametrize("which", ["cifar", "deep, pooled shortcuts"])
@pytest.mark.parametrize(
    "frozen", [(), pytest.param(FROZEN, marks=pytest.mark.slow)], ids=["all trained", "frozen"]
)
def test_with_shared_norms_the_step_is_that_of_one_process(which, frozen, monkeypatch):
    """In float64, so the bound is rounding; the sums begin while the backward pass goes on."""
    monkeypatch.setattr(buckets, "LEAST", 1000)
    spec = NETWORKS[which]
    params, (x, labels) = network(spec), images(spec)
    weights = np.array([1.0, 0.5, 2.0, 1.5])
    options = {"frozen": frozen, "weighted": True, "smoothing": 0.1}
    whole = Step(params, spec, x.shape, reference, **options)
    loss, _ = whole(x, labels, weights)
    for count in (2, 4):
        found = parts(count, x, labels, weights, params, spec, sync_norm=True, **options)
        assert np.mean([own for _, own, _ in found]) == pytest.approx(loss, rel=1e-12)
        for step, _, started in found:
            assert started == found[0][2]
            assert 4 <= len(started) // 2 < len(whole.gradients)
            assert step.positions == whole.positions
            for name, wanted in whole.gradients.items():
                most = np.abs(wanted).max()
                np.testing.assert_allclose(step.gradients[name], wanted, 1e-8, 1e-10 * most)
            for name, wanted in whole.statistics.items():
                np.testing.assert_allclose(step.statistics[name], wanted, 1e-10, 1e-12)


def test_with_norms_of_their_own_the_gradient_is_the_mean_of_the_parts():
    spec = NETWORKS["cifar"]
    params, (x, labels) = network(spec), images(spec)
    single = [Step(params, spec, (2, *x.shape[1:]), reference) for _ in range(2)]
    losses = [
        step(x[own], labels[own])[0]
        for step, own in zip(single, (slice(2), slice(2, 4)), strict=True)
    ]
    for (step, loss, _), alone in zip(parts(2, x, labels, None, params, spec), losses, strict=True):
        assert loss == alone
        assert step.positions == single[0].positions
        for kind in ("gradients", "statistics"):
            for name, found in getattr(step, kind).items():
                wanted = sum(getattr(one, kind)[name] for one in single) / 2
                np.testing.assert_allclose(found, wanted, 1e-9, 1e-12 * np.abs(wanted).max())


def test_a_bucket_that_goes_too_early_is_noticed(monkeypatch):
    """What is sent is what is there when a sum begins; so this fails if that is not final."""
    monkeypatch.setattr(buckets, "LEAST", 1000)
    real = buckets.Buckets.between

    def early(self, calls):
        self.ends = {max(0, number - 1): bucket for number, bucket in self.ends.items()}
        return real(self, calls)

    spec = NETWORKS["cifar"]
    params, (x, labels) = network(spec), images(spec)
    good = parts(2, x, labels, None, params, spec, sync_norm=True)[0][0].gradients
    monkeypatch.setattr(buckets.Buckets, "between", early)
    bad = parts(2, x, labels, None, params, spec, sync_norm=True)[0][0].gradients
    assert not all(np.allclose(bad[name], value) for name, value in good.items())


@pytest.mark.parametrize("ops", [reference, cpu], ids=["reference", "cpu"])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("given", [False, True], ids=["statistics again", "statistics kept"])
def test_a_batch_norm_of_two_ranks(ops, residual, given):
    """The ranks have different means, so statistics of one of them would be far off."""
    rng = generator("norm of ranks")
    x = rng.standard_normal((4, 5, 5, 3)).astype(np.float32)
    x[2:] = 2 * x[2:] + 3
    dy, other = (rng.standard_normal(x.shape).astype(np.float32) for _ in range(2))
    scale, shift = np.array([[1, 2, 0.5], [0, 0.5, -0.5]], np.float32)

    def compute(reduce, own):
        args = (np.ascontiguousarray(x[own]), scale, shift)
        args += (np.ascontiguousarray(other[own]),) if residual else ()
        attrs = {"relu": True, "reduce": reduce}
        if given:
            attrs["statistics"] = np.empty((2, 3), np.float32)
        y = ops.batch_norm_train(*args, **attrs)
        back = ops.batch_norm_train_backward(np.ascontiguousarray(dy[own]), y, *args, **attrs)
        return y, *(np.array(each) for each in back if each is not None)

    whole = compute(None, slice(4))
    found = together(2, lambda ranks: compute(ranks.sum, slice(*part_of(ranks, 4))))
    y, dx, dscale, dshift, *dr = (list(each) for each in zip(*found, strict=True))
    joined = [np.concatenate(each) for each in (y, dx, *dr)]
    summed = [sum(each) for each in (dscale, dshift)]
    for one, wanted in zip([*joined[:2], *summed, *joined[2:]], whole, strict=True):
        np.testing.assert_allclose(one, wanted, 2e-5, 2e-5)


def test_the_norms_of_a_gpu_refuse_ranks():
    with pytest.raises(DeviceError, match="device 'cpu'"):
        cuda_norm.bind_batch_norm_train(None, None, None, reduce=ALONE.sum, out=None)


# --- mini-batches ---------------------------------------------------------------------------------

ALL = Augment(
    8, scale=(0.2, 1.0), policy="ta_wide", padding=2, flip=True, brightness=0.3, lighting=0.1,
    cutout=3, erase=0.5, erase_with="pixel",
)  # fmt: skip


@pytest.mark.parametrize("augment", [ALL, replace(ALL, scale=None)], ids=["crops", "same size"])
@pytest.mark.parametrize("memory", [True, False], ids=["in memory", "decoded"])
def test_a_part_of_a_mini_batch_is_what_it_is_in_the_whole(augment, memory):
    """Also the draws of the single images, of which there are more or less for each."""
    data, read = small.pictures(40), []

    def decoded(number):
        read.append(number)
        side = 8 if augment.scale is None else 8 + number % 5  # how often a crop is drawn differs
        return np.resize(data.pixels[number], (side, 8, 3))

    chosen = data if memory else replace(data, pixels=None, read=decoded)

    def batches(places=None):
        with Loader(chosen, augment, 8, seed=3, places=places) as loader:
            return list(loader.epoch(2, 1))

    whole = batches()
    read.clear()
    for places in ([0, 1, 2, 3], [3, 4, 5, 6, 7]):
        for (x, labels), (of_all, all_labels) in zip(batches(places), whole, strict=True):
            assert x.tobytes() == of_all[places].tobytes()
            assert labels.tolist() == all_labels[places].tolist()
    if not memory:
        assert len(read) == 4 * 9, "images of other ranks were read"


# --- whole runs -----------------------------------------------------------------------------------


def losses(folder):
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def near(found, wanted):
    """Return whether weights differ by a hundredth at most: a ReLU may have flipped."""
    return np.linalg.norm(found - wanted) <= 0.01 * np.linalg.norm(wanted) + 1e-4


def run(count, out, recipe=RECIPE, images=small.pictures, **more):
    """Train in so many ranks; all but the first would leave what they write in another folder."""

    def work(ranks):
        place = out if ranks.rank == 0 else out.with_name(f"{out.name}-{ranks.rank}")
        return train(small.SPEC, images(), recipe, place, reduce=ranks, **OPTIONS, **more)

    try:
        return together(count, work)
    finally:
        assert not list(out.parent.glob(f"{out.name}-*")), "only the first rank writes"


@pytest.mark.parametrize("mixed", [{"mixup": 0.0}, {"mixup": 0.2, "cutmix": 1.0}])
def test_the_losses_are_those_of_one_process(tmp_path, mixed):
    recipe = RECIPE.changed({**mixed, "cutout": 3})
    alone = train(small.SPEC, small.pictures(), recipe, tmp_path / "one", **OPTIONS)
    models = run(2, tmp_path / "two", recipe, sync_norm=True)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=SAME_LOSS)
    for name, wanted in alone.params.items():
        assert np.array_equal(models[0].params[name], models[1].params[name]), name
        assert near(models[0].params[name], wanted), name


def test_without_shared_norms_the_losses_differ_and_that_is_said(tmp_path, capsys):
    train(small.SPEC, small.pictures(), RECIPE, tmp_path / "one", **OPTIONS)
    models = run(4, tmp_path / "four")
    assert losses(tmp_path / "four") != pytest.approx(losses(tmp_path / "one"), rel=50 * SAME_LOSS)
    said = capsys.readouterr().err
    assert said.count("every mini-batch of 16, 4 images each; each rank has batch norms") == 1
    for model in models[1:]:
        for name, value in models[0].params.items():
            assert np.array_equal(model.params[name], value), name


def stopping_after(monkeypatch, steps):
    """Let one rank ask for a stop after so many steps, as Ctrl-C does."""
    left = {}

    def asked(ranks, _):
        left[ranks.rank] = left.get(ranks.rank, steps) - 1
        return any_rank(ranks, ranks.rank == ranks.count - 1 and left[ranks.rank] == 0)

    monkeypatch.setattr(training, "any_rank", asked)


@pytest.mark.parametrize("then", [1, 4])
def test_another_number_of_ranks_goes_on(tmp_path, monkeypatch, capsys, then):
    train(small.SPEC, small.pictures(), RECIPE, tmp_path / "one", **OPTIONS)
    out, origin = tmp_path / "run", {"command": "tinyresnext train --mpi", "place": "/"}
    with monkeypatch.context() as here:
        stopping_after(here, 6)
        with pytest.raises(KeyboardInterrupt, match="after step 2 of 4 in epoch 2") as stopped:
            run(2, out, sync_norm=True, origin=origin)
    assert "mpiexec -n 2 tinyresnext train --mpi --resume" in str(stopped.value)
    capsys.readouterr()
    run(then, out, resume=True, sync_norm=True)
    now = "plain NumPy" if then == 1 else "plain NumPy in 4 ranks with shared batch norms"
    assert (
        "the run used plain NumPy in 2 ranks with shared batch norms (1 thread) until now and "
        f"continues on {now} (1 thread)" in capsys.readouterr().err
    )
    assert losses(out) == pytest.approx(losses(tmp_path / "one"), rel=SAME_LOSS)


def test_ranks_with_norms_of_their_own_say_what_another_number_changes(
    tmp_path, monkeypatch, capsys
):
    with monkeypatch.context() as here:
        stopping_after(here, 6)
        with pytest.raises(KeyboardInterrupt):
            run(2, tmp_path / "run")
    run(4, tmp_path / "run", resume=True)
    assert "batch norms see 4 images at a time from here on, and saw 8" in capsys.readouterr().err


def test_the_first_rank_validates_and_all_end_at_the_same_epoch(tmp_path):
    recipe = RECIPE.changed({"patience": 1, "epochs": 20, "lr": 1e-6})
    models = run(2, tmp_path / "run", recipe, validation=small.pictures(20, seed=1))
    assert 1 < len(losses(tmp_path / "run")) < 20
    assert models[0].provenance["accuracy"] == models[1].provenance["accuracy"]
    assert (tmp_path / "run" / "best.h5").exists()


def test_finetune_in_ranks(tmp_path):
    model = train(small.SPEC, small.pictures(), RECIPE, tmp_path / "one", **OPTIONS)
    data, recipe = small.pictures(32, ("a", "b")), RECIPE.changed({"epochs": 1})
    alone = finetune(model, data, recipe, tmp_path / "two", frozen_to="layer1")
    found = together(
        2,
        lambda ranks: finetune(
            model, data, recipe, tmp_path / "three", frozen_to="layer1", reduce=ranks,
            sync_norm=True,
        ),
    )  # fmt: skip
    for name, wanted in alone.params.items():
        assert near(found[1].params[name], wanted), name


def test_a_loss_that_is_not_finite_ends_all_ranks_with_one_message(tmp_path, monkeypatch):
    """The images of one rank are infinite; both name the first layer, finite in the other."""
    step = training.Run.step

    def huge(run, x, labels):
        step(run, x + np.float32(np.inf) if run.setting.ranks.rank else x, labels)

    def work(ranks):
        with pytest.raises(TrainingError) as raised:
            train(
                small.SPEC, small.pictures(16), RECIPE, tmp_path / "run", reduce=ranks,
                sync_norm=True, **OPTIONS,
            )  # fmt: skip
        return str(raised.value)

    monkeypatch.setattr(training.Run, "step", huge)
    first, second = together(2, work)
    assert first == second
    assert "the first value that is not finite is that of conv1;" in first


@pytest.mark.parametrize(
    ("count", "recipe", "more", "text"),
    [
        (3, {}, {}, "16 images cannot be shared equally by 3 ranks: give --batch 15 or 18"),
        (4, {"batch": 2}, {}, "cannot be shared equally by 4 ranks: give --batch 4,"),
        (2, {}, {"overfit": True}, "a trial of a run is for one process"),
        (2, {}, {"dry_run": "x.png"}, "a trial of a run is for one process"),
    ],
)
def test_what_ranks_cannot_share(tmp_path, count, recipe, more, text):
    with pytest.raises(UsageError, match=text):
        run(count, tmp_path / "run", RECIPE.changed(recipe), **more)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_taken_is_refused_by_all(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.h5").touch()
    errors = []

    def work(ranks):
        with pytest.raises(UsageError) as raised:
            train(
                small.SPEC, small.pictures(), RECIPE, tmp_path / "run", reduce=ranks,
                **OPTIONS,
            )  # fmt: skip
        errors.append(str(raised.value))

    together(2, work)
    assert len(set(errors)) == 1
    assert "model.h5 exists" in errors[0]


def test_weights_that_differ_end_the_run(tmp_path, monkeypatch):
    real = training.Run._update

    def update(run, *given):
        real(run, *given)
        run.weights.values[-1] += np.float32(1e-6 * run.setting.ranks.rank)

    monkeypatch.setattr(training.Run, "_update", update)
    with pytest.raises(TrainingError, match="do not have the same weights"):
        run(2, tmp_path / "run")


def test_a_rank_that_finds_other_images_is_refused(tmp_path):
    seeds = iter((0, 1))
    with pytest.raises(UsageError, match="rank 1 has other images"):
        run(2, tmp_path / "run", images=lambda: small.pictures(seed=next(seeds)))


@pytest.mark.parametrize("which", [0, 1])
def test_an_image_that_one_rank_cannot_read_ends_all_and_costs_no_step(tmp_path, which):
    data = small.pictures()
    with Loader(data, Augment(8), 16) as loader:
        number = loader.order(0)[32 + 8 * which + 1]  # of this rank's part of the third mini-batch

    def work(ranks):
        def read(i):
            if i == number and ranks.rank == which:
                raise ImageError("the image is broken")
            return data.pixels[i]

        mine = replace(data, pixels=None, read=read)
        with pytest.raises(ImageError) as raised:
            train(small.SPEC, mine, RECIPE, tmp_path / "run", reduce=ranks, **OPTIONS)
        return str(raised.value)

    assert together(2, work) == ["the image is broken"] * 2
    state = states.read(tmp_path / "run" / "state.npz")
    assert (state.epoch, state.step) == (0, 2)


@pytest.mark.parametrize("what", ["state", "log"])
def test_what_the_first_rank_cannot_write_ends_all(tmp_path, monkeypatch, what):
    def full(*_, **__):
        raise UsageError("the disk is full")

    def work(ranks):
        with pytest.raises(UsageError) as raised:
            train(
                small.SPEC, small.pictures(), RECIPE, tmp_path / "run", reduce=ranks, log_every=1,
                **OPTIONS,
            )  # fmt: skip
        return str(raised.value)

    if what == "log":
        monkeypatch.setattr(training_run.Log, "line", full)
    else:
        monkeypatch.setattr(training_run.Log, "sync", full)
    assert together(2, work) == ["the disk is full"] * 2


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("tuned", [False, True], ids=["train", "finetune"])
def test_what_one_rank_refuses_ends_all_before_it_begins(tmp_path, which, tuned):
    model = random_model(small.SPEC, preprocess=small.PREPROCESS, device="reference")

    def work(ranks):
        given = {"reduce": ranks, "log_every": -1 if ranks.rank == which else 0}
        common = small.pictures(), RECIPE, tmp_path / "run"
        call = partial(finetune, model) if tuned else partial(train, small.SPEC, **OPTIONS)
        with pytest.raises(UsageError) as raised:
            call(*common, **given)
        return str(raised.value)

    first, second = together(2, work)
    assert first == second
    assert "log_every is -1" in first
    assert not (tmp_path / "run").exists()


# --- what ranks do together, and the command ------------------------------------------------------


def test_what_the_first_makes_or_raises_all_get():
    def work(ranks):
        made = by_the_first(ranks, lambda: [ranks.rank])
        with pytest.raises(UsageError, match="of the first"):
            by_the_first(ranks, lambda: (_ for _ in ()).throw(UsageError("of the first")))
        asked = any_rank(ranks, ranks.rank == 1), which_ranks(ranks, ranks.rank == 1)
        return made, *asked, any_rank(ranks, False), part_of(ranks, 6)

    assert together(2, work) == [([0], True, [1], False, place) for place in ((0, 3), (3, 6))]


class OpenFile(OSError):
    """An error that pickle cannot send, as urllib's with an answer that is open."""

    def __reduce__(self):
        raise TypeError("cannot pickle an open file")


class OfParts(Exception):
    """An error that pickle sends and does not make again."""

    def __init__(self, code, name):
        super().__init__(f"{name} is {code}")


@pytest.mark.parametrize(
    ("error", "words"),
    [(OpenFile("no file"), "OpenFile: no file"), (OfParts(3, "code"), "OfParts: code is 3")],
)
def test_an_error_that_cannot_be_sent_is_known_by_its_words(error, words):
    """No rank waits for one that has failed to say why."""

    def work(ranks):
        def fails(rank):
            if ranks.rank == rank:
                raise error

        found = []
        for rank in (0, 1):
            with pytest.raises((type(error), TinyResNeXtError)) as raised, all_or_none(ranks):
                fails(rank)
            found.append(raised.value)
        with pytest.raises((type(error), TinyResNeXtError)) as raised:
            by_the_first(ranks, lambda: fails(0))
        return [*found, raised.value]

    first, second = together(2, work)
    assert first[0] is first[2] is second[1] is error
    for other in (first[1], second[0], second[2]):
        assert (type(other), str(other)) == (TinyResNeXtError, words)


@pytest.mark.parametrize(("cores", "sharing", "threads"), [(2, 2, 1), (8, 2, 4), (2, 4, 1)])
def test_ranks_that_share_cores_divide_them(monkeypatch, cores, sharing, threads):
    class Ranks:
        pass

    monkeypatch.setattr(cpu, "thread_count", lambda asked=None: asked or cores)
    Ranks.sharing = sharing
    assert training._threads(cpu, None, Ranks) == threads
    assert training._threads(cpu, 3, Ranks) == 3


def test_mpi_that_is_not_there(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    assert main(["train", "x", "--depth", "11", "--out", str(tmp_path / "run"), "--mpi"]) == 4
    assert "pip install 'tinyresnext[mpi]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("environment", "options", "text"),
    [
        ({"PMI_SIZE": "2"}, [], "2 processes were started together"),
        ({"OMPI_COMM_WORLD_SIZE": "3"}, ["--resume"], "3 processes were started together"),
        ({}, ["--sync-norm"], "give --mpi too"),
    ],
)
def test_what_the_command_refuses(monkeypatch, capsys, tmp_path, environment, options, text):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["train", "x", "--depth", "11", "--out", str(tmp_path / "run"), *options]) == 2
    assert text in capsys.readouterr().err


def test_one_process_imports_no_mpi():
    assert mpi.started_by() == 1
    assert "mpi4py" not in sys.modules
