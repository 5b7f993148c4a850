"""Muon: the momentum, the nearly orthogonal matrix of each group, and the update.

The reference's Newton-Schulz steps multiply a matrix ``X`` by a polynomial of its *gram matrix*
``G = X @ X.T``, three times. Here ``X`` is multiplied once, by the product of all three, which
takes fewer operations where ``X`` is at least half as long again as it is high. Polynomials of
``G`` commute, so after a step with ``P = a + b G + c G @ G`` the gram matrix is ``G @ P @ P``. Both
sides of ``G`` are the shorter side of ``X``, and so are those of all products but the first and the
last. Rounding errors of the first ``G`` grow by ``a**2`` in a step, to some ten-thousandths at
most; PyTorch computes all of this in bfloat16.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...reference.update import LEAST_NORM, MUON_MOMENTUM, NEWTON_SCHULZ, NEWTON_SCHULZ_STEPS
from ..runtime.crew import Step
from ..runtime.kernel import part
from ..runtime.memory import Array, changed, empty, flat
from ..runtime.tasks import finished, in_tasks, next_task
from .products import Matrices, empty_matrices, product

MOMENTUM = np.float32(MUON_MOMENTUM)
LINE = 16  # values of a cache line: so many columns are transposed together


class Rows(NamedTuple):
    """The numbers of a pass over matrices ``[n, rows, columns]``."""

    rows: int
    columns: int
    deep: int  # rows from one of `Matrices` to the next
    turned_deep: int  # and of those that are transposed
    tasks: int


# --- kernels --------------------------------------------------------------------------------------


@in_tasks(Rows)
def _look_ahead(gradient, velocity, out, g, counters):
    """Compute the velocity, and the gradient with Nesterov's momentum; a task is a row."""
    task = next_task(counters)
    while task < g.tasks:
        n, row = divmod(task, g.rows)
        at, place = task * g.columns, (n * g.deep + row) * g.columns
        for k in range(g.columns):
            v = velocity[at + k] * MOMENTUM + gradient[at + k]
            velocity[at + k] = v
            out[place + k] = v * MOMENTUM + gradient[at + k]
        task = next_task(counters)
    finished(counters)


@in_tasks(Rows)
def _transpose(x, out, g, counters):
    """Transpose matrices; a task is a cache line of columns of one."""
    blocks = (g.columns + LINE - 1) // LINE
    task = next_task(counters)
    while task < g.tasks:
        n, block = divmod(task, blocks)
        first, last = block * LINE, min((block + 1) * LINE, g.columns)
        for row in range(g.rows):
            at, place = (n * g.deep + row) * g.columns, n * g.turned_deep * g.rows + row
            for column in range(first, last):
                out[place + column * g.rows] = x[at + column]
        task = next_task(counters)
    finished(counters)


# Sums are computed in vectors of partial sums only if they may be added in that order.
@part(fastmath={"contract", "reassoc"})
def _squares(x):
    """Add up the squares."""
    total = np.float32(0)
    for i in range(len(x)):
        total += x[i] * x[i]
    return total


@in_tasks(Rows)
def _sum_squares(weight, out, g, counters):
    """Add up the squares of each row."""
    task = next_task(counters)
    while task < g.tasks:
        out[task] = _squares(weight[task * g.columns : (task + 1) * g.columns])
        task = next_task(counters)
    finished(counters)


@in_tasks(Rows)
def _move(out, direction, rates, sums, g, counters):
    """Subtract ``rates[group] * direction``, and add up the squares of each new row."""
    task = next_task(counters)
    while task < g.tasks:
        n, row = divmod(task, g.rows)
        at, place = task * g.columns, (n * g.deep + row) * g.columns
        for k in range(g.columns):
            out[at + k] -= direction[place + k] * rates[n]
        sums[task] = _squares(out[at : at + g.columns])
        task = next_task(counters)
    finished(counters)


@in_tasks(Rows)
def _scale(out, scales, g, counters):
    """Multiply each group's rows by its scale."""
    task = next_task(counters)
    while task < g.tasks:
        for k in range(task * g.columns, (task + 1) * g.columns):
            out[k] *= scales[task // g.rows]
        task = next_task(counters)
    finished(counters)


# --- launchers ------------------------------------------------------------------------------------


def muon_step(weight: Array, gradient: Array, velocity: Array, *, groups: int, lr: float) -> None:
    """Make one step of Muon, with the products of small matrices that the module explains."""
    w, v = changed("muon_step", "weight", weight), changed("muon_step", "velocity", velocity)
    slope = flat("muon_step", "gradient", gradient)
    rows = len(weight) // groups
    ahead = empty_matrices(groups, rows, len(w) // len(weight))
    sums = empty((len(weight),))
    g = Rows(rows, ahead.columns, ahead.deep, 0, tasks=len(weight))
    Step(_sum_squares, g, weight=w, out=sums)()
    Step(_look_ahead, g, gradient=slope, velocity=v, out=ahead.array)()
    norms = _norms(sums, groups)
    direction = orthogonal(ahead)
    rates = np.float32(lr) / np.sqrt(np.float32(rows)) * norms
    Step(_move, g, out=w, direction=direction.array, rates=rates, sums=sums)()
    scales = norms / (_norms(sums, groups) + LEAST_NORM)
    Step(_scale, g, out=w, scales=scales)()


def orthogonal(x: Matrices) -> Matrices:
    """Return matrices with the same singular vectors and singular values near 1.

    The reference has the same function of arrays.
    """
    turned = _transposed(x)
    left, right = (turned, x) if x.rows <= x.columns else (x, turned)
    gram = product(left, left)
    norm = np.sqrt(np.trace(gram.values, axis1=1, axis2=2))[:, None, None] + LEAST_NORM
    gram.values[...] /= norm * norm
    factor = gram
    for step in range(NEWTON_SCHULZ_STEPS):
        polynomial = _polynomial(gram)
        factor = polynomial if step == 0 else product(polynomial, factor)
        if step < NEWTON_SCHULZ_STEPS - 1:
            gram = product(gram, product(polynomial, polynomial))
    factor.values[...] /= norm
    return product(factor, right) if x.rows <= x.columns else product(right, factor)


def _polynomial(gram: Matrices) -> Matrices:
    """Return ``a + b G + c G @ G`` of a gram matrix, which is its own transpose."""
    a, b, c = map(np.float32, NEWTON_SCHULZ)
    made = product(gram, gram)
    made.values[...] *= c
    made.values[...] += b * gram.values
    diagonal = np.arange(gram.rows)
    made.values[:, diagonal, diagonal] += a
    return made


def _transposed(x: Matrices) -> Matrices:
    """Transpose matrices."""
    out = empty_matrices(x.n, x.columns, x.rows)
    g = Rows(x.rows, x.columns, x.deep, out.deep, tasks=x.n * -(-x.columns // LINE))
    Step(_transpose, g, x=x.array, out=out.array)()
    return out


def _norms(sums: Array, groups: int) -> Array:
    """Return the norm of each group, from the sums of squares of all rows."""
    return np.sqrt(sums.reshape(groups, -1).sum(1, dtype=np.float64)).astype(np.float32)
