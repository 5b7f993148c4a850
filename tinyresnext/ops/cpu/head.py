"""The classifier: one matrix product a picture, and the softmax over it.

With one picture every weight is used once, so `linear` runs as fast as the weights arrive from
memory. It needs no blocking and no packing; each logit is one long dot product.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from .. import shapes
from .runtime.crew import Step, Work, compiled, take
from .runtime.kernel import kernel
from .runtime.memory import Array, flat, result

CLASSES = 32  # of a task: a quarter of a megabyte of ResNeXt's weights

# --- kernels --------------------------------------------------------------------------------------


@kernel(
    fastmath={"contract", "reassoc"}
)  # a dot product is vectors of partial sums only if it may be added in that order
def _dot(x, y):
    """The sum of the products."""
    total = np.float32(0)
    for i in range(len(x)):
        total += x[i] * y[i]
    return total


def _classes(x, weight, bias, residual, out, g, counters):
    """A thread's share: ``length`` classes a task. The weights of one meet all pictures while they are in the cache."""
    task = take(counters, 0)
    while task < g.tasks:
        for o in range(task * g.length, min((task + 1) * g.length, g.c_out)):
            filters = weight[o * g.c_in : (o + 1) * g.c_in]
            for n in range(g.n):
                out[n * g.c_out + o] = _dot(x[n * g.c_in : (n + 1) * g.c_in], filters) + bias[o]
        task = take(counters, 0)
    take(counters, 1)


@functools.cache
def _kernel() -> Any:
    """Compiled when it is first needed."""
    return compiled(_classes)


@kernel()
def _distribution(x, out):
    """The softmax of one row. The largest logit is taken off first, so that ``exp`` cannot overflow."""
    largest = x[0]
    for i in range(len(x)):
        largest = max(largest, x[i])
    total = np.float32(0)
    for i in range(len(x)):
        out[i] = np.exp(x[i] - largest)
        total += out[i]
    for i in range(len(x)):
        out[i] /= total


@kernel()
def _softmax(x, out):
    """Row after row: too little work to share."""
    for n in range(x.shape[0]):
        _distribution(x[n], out[n])


# --- public ops -----------------------------------------------------------------------------------


def linear(x: Array, weight: Array, bias: Array, *, out: Array | None = None) -> Array:
    """One dot product for each picture and class."""
    y = result("linear", shapes.linear(x, weight, bias, out=out), out)
    bind_linear(x, weight, bias, out=y)()
    return y


def bind_linear(x: Array, weight: Array, bias: Array, *, out: Array) -> Step:
    """All of a call that can be done beforehand."""
    n, c_out = shapes.linear(x, weight, bias, out=out)
    source, filters = flat("linear", "x", x), flat("linear", "weight", weight)
    shift, target = flat("linear", "bias", bias), result("linear", (n, c_out), out).reshape(-1)
    g = Work.of((n, 1, 1, x.shape[1]), (n, 1, 1, c_out))._replace(
        length=CLASSES, tasks=-(-c_out // CLASSES)
    )
    return Step(_kernel(), source, filters, shift, source, target, g)


def softmax(x: Array, *, out: Array | None = None) -> Array:
    """Three passes over each row: the largest, the exponentials with their sum, the division."""
    y = result("softmax", shapes.softmax(x, out=out), out)
    _softmax(flat("softmax", "x", x).reshape(x.shape), y)
    return y
