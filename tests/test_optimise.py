"""The optimiser and what is around it, against PyTorch's own and against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from training_cases import settings

from tinyresnext import RECIPES, Recipe, Spec, parameters, recipe
from tinyresnext.errors import FormatError, UsageError
from tinyresnext.network.spec import cifar
from tinyresnext.ops import cpu, reference
from tinyresnext.training.initial import initialise
from tinyresnext.training.optimisers.sgd import sgd
from tinyresnext.training.optimisers.statistics import update_statistics
from tinyresnext.training.recipes.optimiser import Optimiser
from tinyresnext.training.recipes.parts import Loss, Start
from tinyresnext.training.samples.mixing import mixed
from tinyresnext.training.weights import size, views

SPEC = Spec((1, 1), 4, 8, 5, stem="cifar")
PLAIN = settings(10, 4, 0.1, "step")
BACKENDS = pytest.mark.parametrize("ops", [cpu, reference], ids=["cpu", "reference"])


def rng(seed=0):
    return np.random.default_rng(seed)


def test_views_cover_the_flat_array():
    flat = np.arange(size(SPEC), dtype=np.float32)
    params = views(flat, SPEC)
    assert {name: value.shape for name, value in params.items()} == parameters(SPEC)
    assert np.concatenate([value.ravel() for value in params.values()]).tobytes() == flat.tobytes()
    params["fc.bias"][...] = -1
    assert (flat[-5:] == -1).all()


@pytest.mark.parametrize(("nesterov", "momentum"), [(False, 0.0), (False, 0.9), (True, 0.9)])
@pytest.mark.parametrize("weight_decay", [0.0, 5e-4])
@BACKENDS
def test_sgd_is_pytorchs(ops, nesterov, momentum, weight_decay):
    torch = pytest.importorskip("torch")
    shapes, rates = {"w": (40_007,), "matrix": (3, 5), "vector": (4,)}, [0.1, 0.2, 0.05]
    first = {
        name: rng(1).standard_normal(shape).astype(np.float32) for name, shape in shapes.items()
    }
    ours = {name: value.copy() for name, value in first.items()}
    theirs = {name: torch.tensor(value, requires_grad=True) for name, value in first.items()}
    optimiser = torch.optim.SGD(
        theirs.values(), 0.1, momentum, weight_decay=weight_decay, nesterov=nesterov
    )
    how = Optimiser(momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)
    velocity = {name: np.zeros_like(value) for name, value in first.items()}
    for number, rate in enumerate(rates):
        gradients = {
            name: rng(number + 2).standard_normal(shape).astype(np.float32)
            for name, shape in shapes.items()
        }
        for name, value in theirs.items():
            value.grad = torch.tensor(gradients[name])
        optimiser.param_groups[0]["lr"] = rate
        optimiser.step()
        sgd(ops, ours, gradients, velocity, how, rate)
    for name in shapes:
        found, wanted = ours[name], theirs[name].detach().numpy()
        # At most eight roundings of numbers below 8 in each of three steps, and PyTorch may fuse
        # some of them.
        assert np.abs(found - wanted).max() <= 3 * 8 * 2.0**-24 * 8, name


@BACKENDS
def test_norms_and_biases_may_be_spared(ops):
    params = {
        "conv1.weight": np.ones((2, 1, 1, 1), np.float32),
        "bn1.weight": np.ones(2, np.float32),
    }
    zeros = {name: np.zeros_like(value) for name, value in params.items()}
    how = Optimiser(momentum=0.0, weight_decay=0.5, decay_all=False)
    sgd(ops, params, zeros, {name: value.copy() for name, value in zeros.items()}, how, 1.0)
    assert params["conv1.weight"].ravel().tolist() == [0.5, 0.5]
    assert params["bn1.weight"].tolist() == [1, 1]


def test_running_statistics_are_pytorchs():
    torch = pytest.importorskip("torch")
    norm = torch.nn.BatchNorm2d(6).double()
    params = {"bn.running_mean": np.zeros(6, np.float32), "bn.running_var": np.ones(6, np.float32)}
    for seed in range(3):
        x = rng(seed).standard_normal((2, 3, 2, 6)) * 3 + 1
        norm(torch.tensor(x).permute(0, 3, 1, 2))
        mean, var = x.mean((0, 1, 2)).astype(np.float32), x.var((0, 1, 2)).astype(np.float32)
        update_statistics(cpu, params, {"bn": np.stack([mean, var])}, {"bn": 12})
    for part in ("running_mean", "running_var"):
        assert np.allclose(params[f"bn.{part}"], getattr(norm, part).numpy(), rtol=1e-6, atol=1e-6)


def test_the_variance_of_one_value_is_no_number_divided_by_zero():
    params = {"bn.running_mean": np.zeros(1, np.float32), "bn.running_var": np.ones(1, np.float32)}
    update_statistics(cpu, params, {"bn": np.float32([[1], [0]])}, {"bn": 1})
    assert params["bn.running_var"] == np.float32(0.9)


@BACKENDS
def test_average(ops):
    flat, average = np.full(40_003, 2, np.float32), np.zeros(40_003, np.float32)
    ops.average_step(average, flat, new=0.9)
    assert np.allclose(average, 1.8)
    ops.average_step(average, flat, new=0.01)
    assert np.allclose(average, 1.8 + 0.01 * 0.2)
    average[0] = np.nan
    ops.average_step(average, flat, new=1)  # the values themselves, whatever was there
    assert average.tobytes() == flat.tobytes()


def test_step_schedule_is_the_published_one():
    fb, tv = RECIPES["facebook-cifar"], RECIPES["torchvision-v1"]
    rates = [fb.learning_rate(epoch, 0, 390) for epoch in range(300)]
    # train.lua counts epochs from 1 and multiplies by 0.1 where epoch / 300 exceeds 0.49, and again
    # where it exceeds 0.74.
    wanted = [
        0.1 * 0.1 ** (epoch * 100 > 49 * 300) * 0.1 ** (epoch * 100 > 74 * 300)
        for epoch in range(1, 301)
    ]
    assert np.allclose(rates, wanted, rtol=1e-12)
    assert rates.index(min(rates)) == 222
    rates = [tv.learning_rate(epoch, 7, 10) for epoch in range(100)]
    assert np.allclose(rates, [0.1 * 0.1 ** (epoch // 30) for epoch in range(100)], rtol=1e-12)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_one_cycle(schedule):
    one = recipe("fast-cifar", epochs=10, lr=0.4, warmup=0.2, schedule=schedule)
    rates = np.array(
        [one.learning_rate(epoch, step, 7) for epoch in range(10) for step in range(7)]
    )
    assert np.allclose(rates[:14], 0.4 * np.arange(1, 15) / 14)
    part = np.arange(56) / 56
    assert np.allclose(
        rates[14:], 0.4 * ((1 + np.cos(np.pi * part)) / 2 if schedule == "cosine" else 1 - part)
    )
    assert 0 < rates[-1] < 0.4 / 50


@pytest.mark.parametrize("init", ["torchvision", "facebook", "mmpretrain"])
def test_first_weights(init):
    spec = cifar(29, 8, 16)
    flat = np.full(size(spec), np.nan, np.float32)
    params = views(flat, spec)
    initialise(params, Start(init=init), 5)
    assert np.isfinite(flat).all()
    for name, value in params.items():
        if value.ndim == 4:  # fan out: c_out k_h k_w, with all filters of a grouped convolution
            deviation = math.sqrt(2 / (value.shape[0] * value.shape[2] * value.shape[3]))
            tolerance = 5 / math.sqrt(
                value.size
            )  # five times what a sample of that size varies by, at least
            assert value.std() == pytest.approx(deviation, rel=tolerance), name
            assert abs(value.mean()) < deviation * tolerance, name
        elif ".running_mean" in name or (name.endswith("bias") and name != "fc.bias"):
            assert (value == 0).all()
        elif name not in ("fc.weight", "fc.bias"):
            assert (value == 1).all(), name
    weights, bound = params["fc.weight"], 1 / math.sqrt(1024)
    if init == "mmpretrain":
        assert weights.std() == pytest.approx(0.01, rel=5 / math.sqrt(weights.size))
        assert np.abs(weights).max() > 0.02  # a normal distribution, whose largest value is 0.04
    else:
        assert 0.99 * bound < np.abs(weights).max() <= bound
    assert np.abs(params["fc.bias"]).max() <= bound
    assert bool((params["fc.bias"] == 0).all()) == (init != "torchvision")


def test_first_weights_depend_on_the_seed_alone():
    drawn = []
    for seed in (1, 1, 2):
        flat = np.empty(size(SPEC), np.float32)
        initialise(views(flat, SPEC), Start(), seed)
        drawn.append(flat.tobytes())
    assert drawn[0] == drawn[1] != drawn[2]


def test_zero_gamma_makes_blocks_begin_as_their_shortcuts():
    flat = np.empty(size(SPEC), np.float32)
    params = views(flat, SPEC)
    initialise(params, Start(zero_gamma=True), 0)
    zero = {name for name, value in params.items() if name.endswith("weight") and not value.any()}
    assert zero == {"layer1.0.bn3.weight", "layer2.0.bn3.weight"}


def test_mixup():
    x, labels = rng().random((4, 2, 2, 3)).astype(np.float32), np.array([0, 1, 2, 0])
    blend, targets = mixed(x, np.eye(3, dtype=np.float32)[labels], Loss(mixup=0.4), rng(3))
    kept = float(np.float32(rng(3).beta(0.4, 0.4)))
    assert blend.dtype == targets.dtype == np.float32
    assert np.allclose(blend[1], kept * x[1] + (1 - kept) * x[0])
    assert np.allclose(targets[1], [1 - kept, kept, 0])
    assert np.allclose(targets.sum(1), 1)


def test_cutmix_counts_the_pixels_that_are_there():
    """Each image is one number, so the pixels say whose they are."""
    images = np.arange(1, 5, dtype=np.float32)
    x = np.broadcast_to(images[:, None, None, None], (4, 9, 14, 3))
    eye = np.eye(4, dtype=np.float32)
    shares = set()
    for seed in range(30):
        found, targets = mixed(x, eye, Loss(cutmix=1.0), rng(seed))
        for i in range(4):
            own = (found[i] == images[i]).mean()
            assert np.allclose(targets[i, i], own)
            assert np.allclose(targets[i, i - 1], (found[i] == images[i - 1]).mean())
            assert np.allclose(targets[i].sum(), 1)
        rows, columns = np.nonzero(found[0, :, :, 0] != 1)
        if len(rows):
            height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
            assert len(rows) == height * width  # a rectangle
        shares.add(round(float(own), 3))
    assert len(shares) > 10


def test_of_mixup_and_cutmix_each_comes_in_half_of_the_steps():
    x = np.broadcast_to(np.arange(4, dtype=np.float32)[:, None, None, None], (4, 8, 8, 1))
    both = Loss(mixup=0.8, cutmix=1.0)
    found = [mixed(x, np.eye(4, dtype=np.float32), both, rng(seed))[0] for seed in range(200)]
    cut = sum(float(np.ptp(one % 1)) == 0 for one in found)
    assert 60 < cut < 140  # six standard deviations of 200 tosses of a coin: 42


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_survive_json(name):
    assert Recipe.from_json(recipe(name).to_json()) == RECIPES[name]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"batch": 2.5}, "batch is 2.5"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"lr": "fast"}, "lr is 'fast'"),
        ({"momentum": 1.5}, "momentum is 1.5"),
        ({"momentum": 0.0}, "nesterov"),
        ({"smoothing": True}, "smoothing is True"),
        ({"schedule": "magic"}, "expected one of step, cosine, linear"),
        ({"flip": 1}, "flip is 1"),
        ({"alternate": 1}, "alternate is 1"),
        ({"alternate": True, "flip": False}, "flip is False"),
        ({"milestones": (0.5, 0.25)}, "in order"),
        ({"policy": "magic"}, "there is no policy 'magic'"),
        ({"policy": 3}, "policy is 3"),
        ({"erase": 2}, "erase is 2"),
        ({"repeats": 0}, "repeats is 0"),
        ({"threshold": 0.2}, "entropy softmax"),
        ({"milestones": (150, 225)}, "parts of the run"),
        ({"seed": -1}, "seed is -1"),
        ({"sides": (32, 0)}, "sides are"),
        ({"sides": (16, 24, 32), "epochs": 2}, "sides are 3 and epochs 2"),
    ],
)
def test_recipes_refuse_nonsense(changes, text):
    with pytest.raises(UsageError, match=text):
        recipe("fast-cifar", **changes)


def test_unknown_recipe():
    with pytest.raises(UsageError, match="facebook-cifar"):
        recipe("facebook")
    with pytest.raises(FormatError, match="fields"):
        Recipe.from_json({"epochs": 1})
    with pytest.raises(FormatError, match="lr is 'x'"):
        Recipe.from_json(RECIPES["fast-cifar"].to_json() | {"lr": "x"})
