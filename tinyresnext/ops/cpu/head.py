"""The classifier, the softmax and the loss, and their gradients.

With one sample every weight of `linear` is used once, so it runs as fast as the weights arrive from
memory. It needs no blocking and no packing; each logit is one long dot product. Its gradients are
those of a 1x1 convolution of images of one pixel.

The loss and the gradients of the softmax have one value for each sample and class: they delegate to
`tinyresnext.ops.reference`, since the arrays are tiny. Inference needs neither these nor the
gradients of convolutions, so the functions here that do import them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from .. import shapes
from .runtime.crew import Step
from .runtime.kernel import kernel, part
from .runtime.memory import HALF, Array, accumulate, empty_like, flat, result
from .runtime.simd import value
from .runtime.tasks import finished, in_tasks, next_task

CLASSES = 32  # of a task: a quarter of a megabyte of ResNeXt's weights


class Classes(NamedTuple):
    """The numbers of the classifier."""

    n: int
    c_in: int
    c_out: int
    length: int  # classes of a task
    tasks: int


# --- kernels --------------------------------------------------------------------------------------


# A dot product is computed in vectors of partial sums only if these may be added in that order.
@part(fastmath={"contract", "reassoc"})
def _dot(x, y):
    """Add up the products."""
    total = np.float32(0)
    for i in range(len(x)):
        total += value(x[i]) * value(y[i])
    return total


@in_tasks(Classes)
def _classes(x, weight, bias, out, g, counters):
    """Compute logits of some classes; a class's weights are applied to all samples while cached."""
    task = next_task(counters)
    while task < g.tasks:
        for o in range(task * g.length, min((task + 1) * g.length, g.c_out)):
            filters = weight[o * g.c_in : (o + 1) * g.c_in]
            for n in range(g.n):
                out[n * g.c_out + o] = _dot(x[n * g.c_in : (n + 1) * g.c_in], filters) + bias[o]
        task = next_task(counters)
    finished(counters)


@part()
def _distribution(x, out):
    """Compute one row. The largest logit is subtracted first, so that ``exp`` cannot overflow."""
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
    """Compute row after row: this is too little work to share."""
    for n in range(x.shape[0]):
        _distribution(x[n], out[n])


# --- public ops -----------------------------------------------------------------------------------


def linear(x: Array, weight: Array, bias: Array, *, out: Array | None = None) -> Array:
    """Compute one dot product for each sample and class; see `tinyresnext.ops.shapes.linear`."""
    y = result("linear", shapes.linear(x, weight, bias, out=out), out)
    bind_linear(x, weight, bias, out=y)()
    return y


def bind_linear(x: Array, weight: Array, bias: Array, *, out: Array) -> Step:
    """Prepare a step."""
    n, c_out = shapes.linear(x, weight, bias, out=out)
    # Both may be bfloat16; the result is float32.
    like = x if getattr(x, "dtype", None) == HALF else None
    source, filters = flat("linear", "x", x, like), flat("linear", "weight", weight, like)
    shift, target = flat("linear", "bias", bias), result("linear", (n, c_out), out).reshape(-1)
    tasks = -(-c_out // CLASSES)
    g = Classes(n=n, c_in=x.shape[1], c_out=c_out, length=CLASSES, tasks=tasks)
    return Step(_classes, g, x=source, weight=filters, bias=shift, out=target)


def linear_backward(
    dy: Array, y: Array, x: Array, weight: Array, bias: Array
) -> tuple[Array | None, ...]:
    """Compute all gradients."""
    out = empty_like(x, weight, bias)
    bind_linear_backward(dy, y, x, weight, bias, out=out, more=(False,) * 3)()
    return out


def bind_linear_backward(
    dy: Array,
    y: Array,
    x: Array,
    weight: Array,
    bias: Array,
    *,
    out: Sequence[Array | None],
    more: Sequence[bool],
) -> Callable[[], None]:
    """Prepare the gradients of a 1x1 convolution."""
    from .conv.backward import bind_conv2d_backward

    dx, dweight, dbias = out
    pixels = (
        None if dx is None else dx[:, None, None],
        None if dweight is None else dweight[:, :, None, None],
        dbias,
    )
    return bind_conv2d_backward(
        dy[:, None, None],
        y[:, None, None],
        x[:, None, None],
        weight[:, :, None, None],
        bias,
        out=pixels,
        more=more,
    )


def softmax(x: Array, *, out: Array | None = None) -> Array:
    """Make three passes over each row: largest value, exponentials and their sum, division.

    Arguments and result are those of `tinyresnext.ops.shapes.softmax`.
    """
    y = result("softmax", shapes.softmax(x, out=out), out)
    bind_softmax(x, out=y)()
    return y


def bind_softmax(x: Array, *, out: Array) -> Callable[[], None]:
    """Prepare a call."""
    target = result("softmax", shapes.softmax(x, out=out), out)
    source = flat("softmax", "x", x).reshape(x.shape)
    return lambda: _softmax(source, target)


def softmax_backward(dy: Array, y: Array, x: Array) -> tuple[Array | None, ...]:
    """Delegate to the reference."""
    out = empty_like(x)
    bind_softmax_backward(dy, y, x, out=out, more=(False,))()
    return out


def bind_softmax_backward(
    dy: Array, y: Array, x: Array, *, out: Sequence[Array | None], more: Sequence[bool]
) -> Callable[[], None]:
    """Prepare a call of the reference."""
    from .. import reference

    return lambda: accumulate(out[0], *reference.softmax_backward(dy, y, x), more[0])


def softmax_cross_entropy(
    x: Array,
    *,
    labels: Array,
    smoothing: float = 0.0,
    weights: Array | None = None,
    out: Array | None = None,
) -> Array:
    """Delegate to the reference; see `tinyresnext.ops.shapes.softmax_cross_entropy`."""
    shape = shapes.softmax_cross_entropy(
        x, labels=labels, smoothing=smoothing, weights=weights, out=out
    )
    y = result("softmax_cross_entropy", shape, out)
    bind_softmax_cross_entropy(x, labels=labels, smoothing=smoothing, weights=weights, out=y)()
    return y


def bind_softmax_cross_entropy(
    x: Array, *, labels: Array, smoothing: float = 0.0, weights: Array | None = None, out: Array
) -> Callable[[], Array]:
    """Prepare a call of the reference."""
    from ..reference import softmax_cross_entropy as op

    return partial(op, x, labels=labels, smoothing=smoothing, weights=weights, out=out)


def softmax_cross_entropy_backward(
    dy: Array,
    y: Array,
    x: Array,
    *,
    labels: Array,
    smoothing: float = 0.0,
    weights: Array | None = None,
) -> tuple[Array | None, ...]:
    """Delegate to the reference."""
    from ..reference import softmax_cross_entropy_backward as op

    return op(dy, y, x, labels=labels, smoothing=smoothing, weights=weights)


def bind_softmax_cross_entropy_backward(
    dy: Array,
    y: Array,
    x: Array,
    *,
    labels: Array,
    smoothing: float = 0.0,
    weights: Array | None = None,
    out: Sequence[Array | None],
    more: Sequence[bool],
) -> Callable[[], None]:
    """Prepare a call of the reference."""
    from ..reference import softmax_cross_entropy_backward as op

    back = partial(op, dy, y, x, labels=labels, smoothing=smoothing, weights=weights)
    return lambda: accumulate(out[0], *back(), more[0])


def binary_cross_entropy(
    x: Array,
    *,
    labels: Array,
    smoothing: float = 0.0,
    weights: Array | None = None,
    out: Array | None = None,
) -> Array:
    """Delegate to the reference; see `tinyresnext.ops.shapes.binary_cross_entropy`."""
    shape = shapes.binary_cross_entropy(
        x, labels=labels, smoothing=smoothing, weights=weights, out=out
    )
    y = result("binary_cross_entropy", shape, out)
    bind_binary_cross_entropy(x, labels=labels, smoothing=smoothing, weights=weights, out=y)()
    return y


def bind_binary_cross_entropy(
    x: Array, *, labels: Array, smoothing: float = 0.0, weights: Array | None = None, out: Array
) -> Callable[[], Array]:
    """Prepare a call of the reference."""
    from ..reference import binary_cross_entropy as op

    return partial(op, x, labels=labels, smoothing=smoothing, weights=weights, out=out)


def binary_cross_entropy_backward(
    dy: Array,
    y: Array,
    x: Array,
    *,
    labels: Array,
    smoothing: float = 0.0,
    weights: Array | None = None,
) -> tuple[Array | None, ...]:
    """Delegate to the reference."""
    from ..reference import binary_cross_entropy_backward as op

    return op(dy, y, x, labels=labels, smoothing=smoothing, weights=weights)


def bind_binary_cross_entropy_backward(
    dy: Array,
    y: Array,
    x: Array,
    *,
    labels: Array,
    smoothing: float = 0.0,
    weights: Array | None = None,
    out: Sequence[Array | None],
    more: Sequence[bool],
) -> Callable[[], None]:
    """Prepare a call of the reference."""
    from ..reference import binary_cross_entropy_backward as op

    back = partial(op, dy, y, x, labels=labels, smoothing=smoothing, weights=weights)
    return lambda: accumulate(out[0], *back(), more[0])
