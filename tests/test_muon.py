"""Muon, against singular values, PyTorch's own, and what it promises of groups and norms."""

from __future__ import annotations

import json
from pathlib import Path

import numba
import numpy as np
import pytest
from optimiser_cases import JORDAN, MUON, STEPS, values
from optimiser_cases import rate as rate_of

from tinyresnext import Spec
from tinyresnext.errors import UsageError
from tinyresnext.ops import cpu, reference
from tinyresnext.ops.cpu.update import products
from tinyresnext.ops.cpu.update.muon import orthogonal as by_kernels
from tinyresnext.ops.reference.update import (
    MUON_MOMENTUM,
    NEWTON_SCHULZ,
    NEWTON_SCHULZ_STEPS,
    orthogonal,
)
from tinyresnext.training.initial import initialise
from tinyresnext.training.optimisers.muon import matrices, muon
from tinyresnext.training.recipes.optimiser import Optimiser
from tinyresnext.training.recipes.parts import Start
from tinyresnext.training.weights import size, views

STORED = json.loads((Path(__file__).parent / "data" / "optimisers.json").read_text())
U = 2.0**-24
SPEC = Spec((1, 1), cardinality=2, width=8, classes=3, stem="cifar", expansion=1)
GROUPED, DENSE = "layer1.0.conv2.weight", "layer1.0.conv3.weight"


def network(seed: int = 0) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """First weights and an empty memory."""
    params, velocity = (views(np.zeros(size(SPEC), np.float32), SPEC) for _ in range(2))
    initialise(params, Start(), seed)
    return params, velocity


def gradients(params: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    trained = [name for name in params if not name.endswith(("running_mean", "running_var"))]
    return {name: rng.standard_normal(params[name].shape).astype(np.float32) for name in trained}


def move(params, velocity, gradients, rate):
    """Make one step of Muon."""
    muon(cpu, params, gradients, velocity, matrices(SPEC), rate)


def by_grams(given: np.ndarray) -> np.ndarray:
    """The kernels' way, with memory around the matrices that must not matter."""
    x = products.empty_matrices(*given.shape)
    x.values[...] = given
    x.array[given.shape[0] * x.deep * x.columns :] = 1e30
    return by_kernels(x).values


SHAPES = [(1, 8, 8), (3, 4, 36), (2, 64, 16), (1, 1, 9), (3, 5, 7), (2, 27, 31), (1, 130, 33)]


@pytest.mark.parametrize("way", [orthogonal, by_grams])
@pytest.mark.parametrize("steep", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_orthogonal_keeps_the_directions_and_evens_the_lengths(shape, steep, way):
    given = np.random.default_rng(1).standard_normal(shape)
    if steep:  # as gradients are: the last singular value is a millionth of the first
        left, lengths, right = np.linalg.svd(given, full_matrices=False)
        given = left * np.logspace(0, -6, lengths.shape[1]) @ right
    given = given.astype(np.float32)
    for matrix, found in zip(given, way(given), strict=True):
        left, lengths, right = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
        lengths /= np.linalg.norm(lengths)
        a, b, c = NEWTON_SCHULZ
        for _ in range(NEWTON_SCHULZ_STEPS):
            lengths = a * lengths + b * lengths**3 + c * lengths**5
        # Some ten products and sums of depth 64 in float32, of numbers near 1. Roundings of the
        # first gram matrix grow with small values in it, a^2 times in a step, and act b times.
        grown = 4 * a**4 * -b if way is by_grams else 0
        assert np.abs(found - (left * lengths) @ right).max() < (10 * 64 + grown) * U


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="there is one thread only")
def test_kernels_give_the_same_bits_on_one_thread_and_on_two():
    given = np.random.default_rng(2).standard_normal((2, 32, 72)).astype(np.float32)
    found = []
    for threads in (1, 2):
        with cpu.on_threads(cpu.thread_count(threads)):
            weight, velocity = given.reshape(64, 8, 3, 3).copy(), np.zeros((64, 8, 3, 3), "f4")
            cpu.muon_step(weight, weight * np.float32(0.1), velocity, groups=2, lr=0.1)
            found.append(weight)
    assert np.array_equal(*found)


def test_every_length_from_a_fiftieth_comes_near_one():
    for least in (0.02, 0.1, 0.3):
        lengths = np.float32(
            [np.sqrt(1 - 9 * least**2), *[least] * 9]
        )  # of a matrix whose norm is 1
        found = orthogonal(np.diag(lengths)[None])[0].diagonal()
        assert 0.68 < found.min() < found.max() < 1.21


@pytest.mark.parametrize("way", [orthogonal, by_grams])
def test_nothing_becomes_nothing(way):
    assert not way(np.zeros((2, 3, 4), np.float32)).any()


def test_the_step_is_pytorchs_but_for_the_norm():
    """PyTorch computes the orthogonal matrix in bfloat16, of 8 bits, and lets the norm grow."""
    torch = pytest.importorskip("torch")
    params, velocity = network()
    before = params[DENSE].copy()
    rows = len(before)
    norm = float(np.linalg.norm(before))
    theirs = torch.nn.Parameter(torch.tensor(before.reshape(rows, -1)))
    optimiser = torch.optim.Muon(
        [theirs],
        lr=1.0,
        weight_decay=0.0,
        momentum=MUON_MOMENTUM,
        nesterov=True,
        ns_coefficients=NEWTON_SCHULZ,
        ns_steps=NEWTON_SCHULZ_STEPS,
    )
    for seed, rate in enumerate((0.05, 0.1)):
        gradient = gradients(params, seed)[DENSE]
        with torch.no_grad():
            theirs *= norm / theirs.norm()
        theirs.grad = torch.tensor(gradient.reshape(rows, -1))
        optimiser.param_groups[0]["lr"] = (
            rate * norm / np.sqrt(rows) / max(1, rows / theirs.shape[1]) ** 0.5
        )
        optimiser.step()
        move(params, velocity, {DENSE: gradient}, rate)
    wanted = theirs.detach().numpy() * (norm / theirs.norm().item())
    moved = np.abs(wanted - before.reshape(rows, -1)).max()
    assert np.abs(params[DENSE].reshape(rows, -1) - wanted).max() < moved * 10 * 2.0**-8


@pytest.mark.parametrize("ops", [cpu, reference], ids=["cpu", "reference"])
@pytest.mark.parametrize("name", MUON)
def test_twenty_steps_are_pytorchs_within_float32(ops, name):
    """PyTorch's own steps, with matrices in float64; ours drift from them by roundings only."""
    assert JORDAN == {
        "momentum": MUON_MOMENTUM,
        "ns_coefficients": NEWTON_SCHULZ,
        "ns_steps": NEWTON_SCHULZ_STEPS,
    }
    shape, groups = MUON[name]
    shapes = {key: one for key, (one, _) in MUON.items()}
    weight, velocity = (
        ops.upload(w.astype(np.float32)) for w in (values(0, shapes)[name], np.zeros(shape))
    )
    for step in range(STEPS):
        gradient = ops.upload(values(step + 1, shapes)[name].astype(np.float32))
        ops.muon_step(weight, gradient, velocity, groups=groups, lr=rate_of(step))
    found = np.ravel(ops.download(weight))
    want = np.array(STORED["muon"][name])
    rows = shape[0] // groups
    norms = np.linalg.norm(want.reshape(groups, -1), axis=1)
    # Of a step: some ten products and sums of the matrix's depth, of numbers near 1; and roundings
    # of the momentum, which lasts for three steps, grow with the slope of three polynomials.
    depth, slope = max(rows, found.size // groups // rows), NEWTON_SCHULZ[0] ** NEWTON_SCHULZ_STEPS
    errors = (10 * depth + 3 * 4 * slope) * U
    moved = sum(rate_of(step) for step in range(STEPS)) * norms.max() / np.sqrt(rows)
    # And the weight itself is rounded four times a step.
    bound = moved * errors + 4 * STEPS * U * np.abs(want).max()
    assert np.abs(found - want).max() <= bound
    assert bound < 1e-3 * np.abs(want).max()


def test_groups_are_matrices_of_their_own():
    params, velocity = network()
    gradient = gradients(params, 2)[GROUPED]
    alone, empty = network()
    move(params, velocity, {GROUPED: gradient}, 0.1)
    half = len(gradient) // 2
    other = gradient.copy()
    other[half:] = gradients(params, 3)[GROUPED][half:]
    move(alone, empty, {GROUPED: other}, 0.1)
    assert np.array_equal(params[GROUPED][:half], alone[GROUPED][:half])
    assert not np.array_equal(params[GROUPED][half:], alone[GROUPED][half:])


def test_only_convolutions_of_blocks_move_and_keep_their_norm():
    params, velocity = network()
    before = {name: value.copy() for name, value in params.items()}
    for seed in range(3):
        move(params, velocity, gradients(params, seed), 0.1)
    for name, value in params.items():
        block = name.startswith("layer") and value.ndim == 4
        assert block == (not np.array_equal(value, before[name])), name
        groups = matrices(SPEC).get(name, 1)
        for new, old in zip(
            value.reshape(groups, -1), before[name].reshape(groups, -1), strict=True
        ):
            # A sum of some hundred squares, a root and a division, three times over.
            assert np.linalg.norm(new) == pytest.approx(
                np.linalg.norm(old), rel=3 * 200 * 2.0**-24
            ), name


def test_what_is_frozen_stays():
    params, velocity = network()
    before = params[DENSE].copy()
    move(params, velocity, {GROUPED: gradients(params, 0)[GROUPED]}, 0.1)
    assert np.array_equal(params[DENSE], before)


@pytest.mark.parametrize("rate", [-0.1, 11, np.nan, True, "0.1"])
def test_rates_that_make_no_sense(rate):
    with pytest.raises(UsageError, match="muon is"):
        Optimiser(muon=rate)
