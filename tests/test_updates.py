"""Every update of every backend against the reference in float64, within derived error bounds.

An update is a formula of a few operations, each of which rounds once, by ``u = 2^-24`` of its
result; so does a number such as a learning rate, which becomes float32. After ``k`` roundings one
after the other, ``|error| <= g_k`` times the sum of the magnitudes that were added (`gamma`). So a
bound takes absolute values in place of the values, and additions in place of subtractions. A sum
of ``n`` squares errs by ``g_n`` at most, in whatever order it is taken, and a root halves that.
What is only read must stay as it is, to the bit.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from op_cases import gamma, generator, ident, normal

from tinyresnext.ops import reference
from tinyresnext.ops.contract import Backend
from tinyresnext.ops.reference.update import (
    LEAST_UNIT,
    MUON_MOMENTUM,
    NEWTON_SCHULZ,
    NEWTON_SCHULZ_STEPS,
    orthogonal,
)

Arrays = dict[str, np.ndarray]
BESIDE = 5  # values beside each array, so that it begins anywhere


class Case(NamedTuple):
    """A call of an update: its word, the shapes of its arrays, its numbers, and what is zero."""

    name: str
    word: str
    shapes: tuple[tuple[int, ...], ...]
    attrs: dict[str, Any]
    zeros: tuple[str, ...] = ()

    def arrays(self) -> Arrays:
        """Return the arrays by name; an average that becomes the values begins as not a number."""
        names = list(inspect.signature(getattr(reference, self.word)).parameters)
        rng, found = generator(self.name), {}
        for name, shape in zip(names, self.shapes, strict=False):
            found[name] = normal(rng, *shape)
            if name in ("squares", "var"):
                found[name] = rng.uniform(0.1, 2, shape).astype(np.float32)
            if name in self.zeros:
                found[name][:1] = 0
        if self.attrs.get("new") == 1:
            found["average"][...] = np.nan
        return found


# Not a multiple of four, or of a warp; the last are several blocks of a GPU, and a norm in parts.
SIZES = ((3,), (5, 7), (4099,))
ADAPTIVE = {"lr": 0.03, "momentum": 0.9, "beta2": 0.99, "eps": 1e-3}
MATRICES = (  # the shape of a weight, and its groups
    ((2, 1, 3, 3), 2),  # one row
    ((4, 3, 3, 3), 2),
    ((6, 4, 2, 2), 1),  # rows are whole sectors
    ((20, 5, 1, 1), 1),  # higher than wide
    ((66, 3, 1, 1), 1),  # two tiles of a product
    ((6, 5, 1, 1), 2),  # groups of a few values, which a GPU fills up for a norm
)


def over_sizes(name: str, word: str, arrays: int, **attrs: Any) -> list[Case]:
    """Return a case for each size, with so many arrays of it."""
    return [Case(f"{name}, {size}", word, (size,) * arrays, attrs) for size in SIZES]


CASES = [
    *over_sizes("sgd", "sgd_step", 3, lr=0.1, momentum=0.9, decay=0.05, nesterov=False),
    *over_sizes("nesterov", "sgd_step", 3, lr=0.1, momentum=0.9, decay=0.05, nesterov=True),
    *over_sizes("sgd, no decay", "sgd_step", 3, lr=0.1, momentum=0.9, decay=0.0, nesterov=True),
    *over_sizes("adamw", "adamw_step", 4, **ADAPTIVE, decay=0.3, step=2),
    *over_sizes("adamw, no decay", "adamw_step", 4, **ADAPTIVE, decay=0.0, step=30),
    *over_sizes("lamb", "lamb_step", 4, **ADAPTIVE, decay=0.3, step=2),
    *over_sizes("lamb, no decay", "lamb_step", 4, **ADAPTIVE, decay=0.0, step=30),
    Case("lamb of zeros", "lamb_step", ((1,),) * 4, {**ADAPTIVE, "decay": 0.3, "step": 2},
         ("weight",)),
    *over_sizes("rmsprop", "rmsprop_step", 4, **ADAPTIVE, decay=0.3),
    *over_sizes("rmsprop, no decay", "rmsprop_step", 4, **ADAPTIVE, decay=0.0),
    *(Case(f"muon, {shape} in {groups}", "muon_step", (shape,) * 3, {"groups": groups, "lr": 0.2})
      for shape, groups in MATRICES),
    *over_sizes("norm that is too large", "clip_norm_step", 1, most=0.7),
    *over_sizes("norm that is not", "clip_norm_step", 1, most=1e3),
    *over_sizes("value", "clip_value_step", 1, most=0.5),
    *(Case(f"a vector of {n}", "clip_units_step", ((n,), (n,)), {"most": 0.3}) for n in (3, 4099)),
    *(Case(f"units, {shape}, {zero} of one is zero", "clip_units_step", (shape,) * 2,
           {"most": 0.9}, (zero,))
      for shape in ((7, 5), (70, 3, 3, 3), (17, 130), (2, 2049))
      for zero in ("weight", "gradient")),
    *over_sizes("average", "average_step", 2, new=0.3),
    *over_sizes("average becomes the values", "average_step", 2, new=1),
    *(Case(f"statistics of {count}, {n}", "statistics_step", ((n,), (n,), (2, n)),
           {"count": count, "new": 0.3}) for count in (1, 9) for n in (3, 300)),
]  # fmt: skip

# --- bounds ---------------------------------------------------------------------------------------
# Each is given the right results, and the absolute values of its arrays.


def sgd(want: Arrays, weight, gradient, velocity, *, lr, momentum, decay, nesterov) -> Arrays:
    """Decay, product and sum are three roundings; the velocity is one more sum.

    What looks ahead has a product, with the momentum's rounding, and a sum more; then come the
    rate, its product, and the difference.
    """
    step = weight * decay + gradient
    moved = velocity * momentum + step
    ahead = step + moved * momentum if nesterov else moved
    return {"velocity": gamma(4) * moved, "weight": gamma(10) * (weight + ahead * lr)}


def moments(gradient, velocity, momentum) -> np.ndarray:
    """Return the magnitudes of a moving average; their bound is that of four roundings.

    These are a difference, the share of what is new, a product and a sum. The average of squares
    has four as well: a square, its share, a product and a sum.
    """
    return velocity + (gradient + velocity) * (1 - momentum)


def root(want: Arrays, *, beta2, eps, step) -> np.ndarray:
    """Return what AdamW and LAMB divide by: six roundings from the moments on.

    The root halves the four of the average of squares, and is one; its share, the quotient and the
    sum with ``eps`` follow. All are positive, so these are six of the result itself.
    """
    return np.sqrt(want["squares"]) / math.sqrt(1 - beta2**step) + eps


def adamw(
    want: Arrays, weight, gradient, velocity, squares, *, lr, momentum, beta2, eps, decay, step
) -> Arrays:
    """Four roundings of the moment and six of the divisor, the quotient, rate, product, difference.

    The weight itself has three: its share, the product and the difference.
    """
    moment = moments(gradient, velocity, momentum)
    change = moment / root(want, beta2=beta2, eps=eps, step=step) * lr / (1 - momentum**step)
    return {
        "velocity": gamma(4) * moment,
        "squares": gamma(4) * want["squares"],
        "weight": gamma(14) * (weight * (1 - lr * decay) + change),
    }


def lamb(
    want: Arrays, weight, gradient, velocity, squares, *, lr, momentum, beta2, eps, decay, step
) -> Arrays:
    """The direction has 14 roundings: as AdamW's, with a product and a sum more.

    The trust is a quotient of two norms, of ``n + 3`` roundings together; that of the direction
    also errs by what the direction does. Trust, rate, two products and the difference follow.
    """
    moment = moments(gradient, velocity, momentum)
    least = root(want, beta2=beta2, eps=eps, step=step)
    direction = moment / least / (1 - momentum**step) + weight * decay
    exact = want["velocity"] / least / (1 - momentum**step)
    trust, more = 1.0, 0.0
    if decay and weight.any():
        exact = exact + want["weight before"] * decay
        own, norm = np.linalg.norm(exact), np.linalg.norm(weight)
        trust = norm / own
        more = gamma(weight.size + 3) + gamma(14) * np.linalg.norm(direction) / own
    change = (gamma(18) * direction + more * np.abs(exact)) * trust * lr
    return {
        "velocity": gamma(4) * moment,
        "squares": gamma(4) * want["squares"],
        "weight": gamma(1) * weight + change,
    }


def rmsprop(
    want: Arrays, weight, gradient, velocity, squares, *, lr, momentum, beta2, eps, decay
) -> Arrays:
    """The gradient has three roundings; its square seven, less the average eight, with share ten.

    The sum is the eleventh, and with ``eps`` there are 13, of magnitudes that are larger than the
    result where terms cancel. Its root and the quotient are two more, of the gradient's magnitude;
    rate, product and the sum with the velocity make eight; and then comes the difference.
    """
    g = weight * decay + gradient
    moved = squares + (np.square(g) + squares) * (1 - beta2)
    under = want["squares"] + eps
    change = g / np.sqrt(under) * lr
    errors = gamma(8) * (velocity * momentum + change) + gamma(13) * (moved + eps) / under * change
    return {
        "squares": gamma(11) * moved,
        "velocity": errors,
        "weight": errors + gamma(1) * (weight + velocity * momentum + change),
    }


def muon(want: Arrays, weight, gradient, velocity, *, groups, lr) -> Arrays:
    """Norms of matrices bound what happens between the gradient and its direction.

    The velocity has three roundings and what looks ahead six. Divided by its norm it errs by twice
    that, relatively, and by the sum of its squares. `newton_schulz` says how far the direction is
    from the right one then. Its rate and norm, two products and the difference follow. At the end
    the weight is multiplied by a quotient of two norms; the second errs by what the weight does.
    """
    moved = velocity * MUON_MOMENTUM + gradient
    ahead = gradient + MUON_MOMENTUM * moved
    bound, length = np.empty_like(weight), weight.size // groups
    flat = {name: a.reshape(groups, len(weight) // groups, -1) for name, a in want.items()}
    for group in range(groups):
        before, v = flat["weight before"][group], flat["velocity"][group]
        exact = flat["gradient"][group] + MUON_MOMENTUM * v
        size, norm = np.linalg.norm(exact), np.linalg.norm(before)
        off = gamma(6) * np.linalg.norm(ahead.reshape(groups, -1)[group]) / size
        off = newton_schulz(exact / size, 2 * off + gamma(length // 2 + 4))
        direction, rate = orthogonal(exact[None])[0], lr / math.sqrt(len(exact)) * norm
        now = before - rate * direction
        errors = rate * (off + gamma(length + 6) * np.abs(direction)) + gamma(1) * np.abs(now)
        relative = np.linalg.norm(errors) / np.linalg.norm(now) + gamma(length + 8)
        errors = errors * norm / np.linalg.norm(now) + relative * np.abs(flat["weight"][group])
        bound.reshape(groups, -1)[group] = errors.reshape(-1)
    return {"velocity": gamma(3) * moved, "weight": bound}


def newton_schulz(x: np.ndarray, off: float) -> float:
    """Return how far from the right one a direction may be, in the norm of all its values.

    A step changes singular values by a polynomial and keeps their vectors, so it multiplies an
    error by its largest slope at most. A product ``a @ b`` with sums of ``k`` adds ``g_k |a| |b|``.
    """
    a, b, c = NEWTON_SCHULZ
    short, long = sorted(x.shape)
    for step in range(NEWTON_SCHULZ_STEPS):
        lengths = np.linspace(0, 1.21 if step else 1, 200)  # no step makes a larger one
        slope = np.abs(a + 3 * b * lengths**2 + 5 * c * lengths**4).max()
        values = np.linalg.svd(x, compute_uv=False)
        norm, gram = np.linalg.norm(values), np.linalg.norm(values**2)
        inner = a * math.sqrt(short) + abs(b) * gram + c * gram**2
        wrong = (abs(b) + 2 * c * values[0] ** 2) * gamma(long) * norm**2 + gamma(short + 3) * inner
        off = slope * off + wrong * values[0] + gamma(short + 1) * inner * norm
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return off


def clip_norm(want: Arrays, gradient, *, most) -> Arrays:
    """Norm, ``eps``, its sum, ``most``, quotient and product; what is small enough stays."""
    clipped = np.linalg.norm(gradient) > most
    return {"gradient": clipped * gamma(gradient.size // 2 + 7) * np.abs(want["gradient"])}


def clip_value(want: Arrays, gradient, *, most) -> Arrays:
    """Nothing is computed."""
    return {}


def clip_units(want: Arrays, gradient, weight, *, most) -> Arrays:
    """As `clip_norm`, with a second norm, or the least that counts, and a product."""
    units = len(weight) if weight.ndim > 1 else 1
    g, w = gradient.reshape(units, -1), weight.reshape(units, -1)
    own, norm = np.linalg.norm(g, axis=1), np.linalg.norm(w, axis=1)
    clipped = own >= np.maximum(norm, LEAST_UNIT) * most
    bound = clipped[:, None] * gamma(g.shape[1] + 8) * np.abs(want["gradient"].reshape(units, -1))
    return {"gradient": bound.reshape(gradient.shape)}


def average(want: Arrays, average, values, *, new) -> Arrays:
    """A difference, a share, a product and a sum; with 1 nothing is computed."""
    return {} if new == 1 else {"average": gamma(4) * (average + (values + average) * new)}


def statistics(want: Arrays, mean, var, statistics, *, count, new) -> Arrays:
    """A share, a product and a sum; of a variance one more of each of the first two."""
    unbiased = statistics[1] * (count / max(count - 1, 1))
    return {
        "mean": gamma(3) * (mean * (1 - new) + statistics[0] * new),
        "var": gamma(5) * (var * (1 - new) + unbiased * new),
    }


BOUNDS: dict[str, Callable[..., Arrays]] = {
    "sgd_step": sgd,
    "adamw_step": adamw,
    "lamb_step": lamb,
    "rmsprop_step": rmsprop,
    "muon_step": muon,
    "clip_norm_step": clip_norm,
    "clip_value_step": clip_value,
    "clip_units_step": clip_units,
    "average_step": average,
    "statistics_step": statistics,
}

# --- tests ----------------------------------------------------------------------------------------


def check(case: Case, found: Arrays) -> None:
    """Assert that the arrays hold after an update what they should."""
    given = case.arrays()
    want = {name: a.astype(np.float64) for name, a in given.items()}
    getattr(reference, case.word)(*want.values(), **case.attrs)
    sizes = {name: np.abs(a.astype(np.float64)) for name, a in given.items()}
    known = want | {f"{name} before": a.astype(np.float64) for name, a in given.items()}
    bounds = BOUNDS[case.word](known, *sizes.values(), **case.attrs)
    for name, exact in want.items():
        assert found[name].dtype == np.float32
        off = np.abs(found[name] - exact)
        assert (off <= bounds.get(name, 0)).all(), f"{name}: {off.max()}"


@pytest.mark.parametrize("case", CASES, ids=ident)
def test_an_update(ops, case: Case):
    arrays = case.arrays()
    getattr(ops, case.word)(*arrays.values(), **case.attrs)
    check(case, arrays)


def test_a_unit_whose_norm_is_not_a_number_keeps_its_gradient(ops):
    gradient, weight = (normal(generator(name), 70, 5) for name in ("gradient", "weight"))
    gradient[40, 2] = weight[50, 3] = np.nan
    before = gradient.copy()
    ops.clip_units_step(gradient, weight, most=1e-3)
    stays = [40, 50]
    assert np.array_equal(gradient[stays].view(np.uint32), before[stays].view(np.uint32))
    assert (np.delete(gradient, stays, 0) != np.delete(before, stays, 0)).all()


def test_every_update_of_the_contract_has_cases():
    words = {name for name in dir(Backend) if name.endswith("_step")}
    assert {case.word for case in CASES} == set(BOUNDS) == words


# What changes nothing where it stands: a norm that is small enough, and a trust of zeros.
IDLE = ("norm that is not", "lamb of zeros")
OTHER = {"nesterov": lambda on: not on, "groups": lambda n: 3 - n, "count": lambda n: n + 1,
         "step": lambda n: n + 1, "decay": lambda n: n + 0.01, "eps": lambda n: 2 * n}  # fmt: skip


@pytest.mark.parametrize(
    "case", [case for case in CASES if not case.name.startswith(IDLE)], ids=ident
)
def test_a_bound_sees_a_number_that_is_wrong_by_a_hundredth(case: Case):
    for name, number in case.attrs.items():
        arrays = {key: a.astype(np.float64) for key, a in case.arrays().items()}
        wrong = case.attrs | {name: OTHER.get(name, lambda n: 1.01 * n)(number)}
        getattr(reference, case.word)(*arrays.values(), **wrong)
        with pytest.raises(AssertionError):
            check(case, {key: a.astype(np.float32) for key, a in arrays.items()})


def in_one(ops, case: Case) -> np.ndarray:
    """Check an update of arrays that are views into one, and return that one.

    As weights in training they begin anywhere; what lies between them has to stay.
    """
    given, places, start = case.arrays(), {}, BESIDE
    for name, a in given.items():
        places[name] = slice(start, start + a.size)
        start += a.size + BESIDE
    flat = np.full(start, np.nan, np.float32)
    for name, a in given.items():
        flat[places[name]] = a.reshape(-1)
    there = ops.upload(flat)
    views = [ops.view(there, a.shape, places[name].start) for name, a in given.items()]
    getattr(ops, case.word)(*views, **case.attrs)
    found = ops.download(there)
    check(case, {name: found[places[name]].reshape(a.shape) for name, a in given.items()})
    for place in places.values():
        flat[place] = found[place]
    assert np.array_equal(found, flat, equal_nan=True)
    return found


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES, ids=ident)
def test_arrays_of_a_gpu_lie_anywhere_in_one(gpu, case: Case):
    """On emulators: `test_cuda_networks`, in two orders of the threads."""
    in_one(gpu, case)
