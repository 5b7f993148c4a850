"""Batch normalisation in training, forward and backward, with the addition and the ReLU behind it.

Bound by memory: what counts is how often the values are read and written. Forward they are read
twice (for the statistics, then for the result). Backward, a first pass takes the two sums over each
channel that the gradient needs, and a second one writes it (`moments`). In a step of training, both
passes forward and the first one backward take turns with the convolutions beside them, to find
their values in the caches (`runtime.crew.chains`). Whether a ReLU let a value pass is computed
again from ``x``, as the forward pass did it, so its result need not be read; behind an addition it
is read, and the first pass leaves the gradient of the residual.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from .. import shapes
from ..together import Reduce, means_of_all, moments_of_all
from .moments import Sums, bind_moments, cut, gradient_sums, pace_of
from .runtime.crew import Chain, Early, Step
from .runtime.memory import Array, accumulate, empty, empty_like, flat, gradient_room, result
from .runtime.simd import aligned, copy, stored, value
from .runtime.tasks import finished, in_tasks, next_task


class Normalising(NamedTuple):
    """The numbers of the forward pass over all positions: ``[positions, channels]``."""

    positions: int
    channels: int
    add: int  # 1 where a residual is added
    relu: int
    length: int  # positions of a task
    tasks: int


# --- kernels --------------------------------------------------------------------------------------
# Indices are unsigned, and no value is read under a condition: see `moments`.


@in_tasks(Normalising)
def _normalise(x, norm, residual, out, g, counters):
    """Compute ``(x - mean) * factor + shift`` and its epilogue; ``norm`` holds the three."""
    c = np.uintp(g.channels)
    task = next_task(counters)
    while task < g.tasks:
        for position in range(
            np.uintp(task * g.length), np.uintp(min((task + 1) * g.length, g.positions))
        ):
            p = np.uintp(position) * c
            if g.add:
                for k in range(c):
                    v = (value(x[p + k]) - norm[k]) * norm[c + k] + norm[c + c + k]
                    v += value(residual[p + k])
                    out[p + k] = stored(np.float32(0) if g.relu and v < 0 else v, out)
            else:
                for k in range(c):
                    v = (value(x[p + k]) - norm[k]) * norm[c + k] + norm[c + c + k]
                    out[p + k] = stored(np.float32(0) if g.relu and v < 0 else v, out)
        task = next_task(counters)
    finished(counters)


@in_tasks(Sums)
def spread(x, norm, dy, out, g, counters):
    """Compute ``dx = factor * (dy - a - b * (x - mean))``.

    ``norm`` is ``[mean, factor, shift, a, b]``; ``g.mask_by_x`` is that of `moments`. A position's
    values are computed in a line of their own: where ``dx`` lies over ``dy``, loops would otherwise
    not become vectors.
    """
    c, line = np.uintp(g.channels), aligned(g.channels)
    task = next_task(counters)
    while task < g.tasks:
        for position in range(
            np.uintp(task * g.length), np.uintp(min((task + 1) * g.length, g.positions))
        ):
            p = np.uintp(position) * c
            if g.mask_by_x:
                for k in range(c):
                    centred, d = value(x[p + k]) - norm[k], value(dy[p + k])
                    d = d if centred * norm[c + k] + norm[c + c + k] > 0 else np.float32(0)
                    line[k] = norm[c + k] * (
                        d - norm[c + c + c + k] - centred * norm[c + c + c + c + k]
                    )
            else:
                for k in range(c):
                    centred, d = value(x[p + k]) - norm[k], value(dy[p + k])
                    line[k] = norm[c + k] * (
                        d - norm[c + c + c + k] - centred * norm[c + c + c + c + k]
                    )
            copy(line, 0, out, p, c)
        task = next_task(counters)
    finished(counters)


# --- launchers and public op ----------------------------------------------------------------------


def scaled(mean: Array, var: Array, scale: Array, shift: Array, eps: float) -> Array:
    """Return what the kernels multiply by and add: ``[mean, factor, shift]``.

    The variance is rounded first, as the backward pass is given it: then both see the same ReLU.
    """
    kept = var.astype(np.float32).astype(np.float64)
    return np.concatenate([mean, scale / np.sqrt(kept + eps), shift]).astype(np.float32)


def batch_norm_train(
    x: Array,
    scale: Array,
    shift: Array,
    residual: Array | None = None,
    *,
    eps: float = 1e-5,
    relu: bool = False,
    statistics: Array | None = None,
    reduce: Reduce | None = None,
    out: Array | None = None,
) -> Array:
    """Make two passes: one for the statistics, one for the result.

    Arguments and result are those of `tinyresnext.ops.shapes.batch_norm_train`.
    """
    y = result(
        "batch_norm_train",
        shapes.batch_norm_train(x, scale, shift, residual, statistics=statistics, out=out),
        out,
    )
    bind_batch_norm_train(
        x, scale, shift, residual, eps=eps, relu=relu, statistics=statistics, reduce=reduce, out=y
    )()
    return y


def bind_batch_norm_train(
    x: Array,
    scale: Array,
    shift: Array,
    residual: Array | None = None,
    *,
    eps: float = 1e-5,
    relu: bool = False,
    statistics: Array | None = None,
    reduce: Reduce | None = None,
    out: Array,
) -> Chain:
    """Prepare both passes; between them NumPy computes a few thousand numbers."""
    shape = shapes.batch_norm_train(
        x, scale, shift, residual, eps=eps, relu=relu, statistics=statistics, out=out
    )
    y = result("batch_norm_train", shape, out, halves=True)
    source, norm = flat("batch_norm_train", "x", x, out), empty((3 * shape[-1],))
    other = source if residual is None else flat("batch_norm_train", "residual", residual, out)
    for name, a in (("scale", scale), ("shift", shift)):
        flat("batch_norm_train", name, a)
    tasks = cut(x.size, shape[-1])
    g = Normalising(
        positions=tasks.positions,
        channels=tasks.channels,
        add=int(residual is not None),
        relu=int(relu),
        length=tasks.length,
        tasks=tasks.tasks,
    )
    first, moments = bind_moments(source.reshape(x.shape))
    arrays = {"x": source, "norm": norm, "residual": other, "out": y.reshape(-1)}
    second = Step(_normalise, g, pace_of(x, g.length), **arrays)

    def between() -> None:
        mean, var = moments_of_all(*moments(), g.positions, reduce)
        if statistics is not None:
            statistics[:] = mean, var
        norm[:] = scaled(mean, var, scale, shift, eps)

    return Chain([*first, between, second])


def batch_norm_train_backward(
    dy: Array,
    y: Array,
    x: Array,
    scale: Array,
    shift: Array,
    residual: Array | None = None,
    *,
    eps: float = 1e-5,
    relu: bool = False,
    statistics: Array | None = None,
    reduce: Reduce | None = None,
) -> tuple[Array | None, ...]:
    """Compute all gradients."""
    out = empty_like(x, scale, shift, residual)
    bind_batch_norm_train_backward(
        dy,
        y,
        x,
        scale,
        shift,
        residual,
        eps=eps,
        relu=relu,
        statistics=statistics,
        reduce=reduce,
        out=out,
        more=(False,) * 4,
    )()
    return out


def bind_batch_norm_train_backward(
    dy: Array,
    y: Array,
    x: Array,
    scale: Array,
    shift: Array,
    residual: Array | None = None,
    *,
    eps: float = 1e-5,
    relu: bool = False,
    statistics: Array | None = None,
    reduce: Reduce | None = None,
    out: Sequence[Array | None],
    more: Sequence[bool],
) -> Chain:
    """Prepare both passes.

    The gradient of the residual, or that of ``x`` where there is no residual, may lie over ``dy``.
    """
    op, c = "batch_norm_train_backward", x.shape[-1]
    source, given = flat(op, "x", x, x), flat(op, "dy", dy, dy)
    g = cut(x.size, c, mask_by_x=relu and residual is None, mask_by_y=relu and residual is not None)
    before = given  # the gradient before the ReLU; the first pass may write it
    if g.mask_by_y:
        place = None if more[3] else out[3]
        before = empty((x.size,), given.dtype) if place is None else place.reshape(-1)
    dx = gradient_room(x, out[0] if not more[0] else None)
    norm, source = empty((5 * c,)), source.reshape(x.shape)
    sums = gradient_sums(source, norm, y.reshape(-1), before, g)
    arrays = {"x": source.reshape(-1), "norm": norm, "dy": before, "out": dx}
    second = Step(spread, g, pace_of(x, g.length), **arrays)
    variance = np.empty(c)

    def take(mean: Array, var: Array) -> None:
        norm[: 3 * c], variance[:] = scaled(mean, var, scale, shift, eps), var

    def between() -> None:
        dshift, centred = sums.total()
        rstd = 1 / np.sqrt(variance + eps)
        for place, add, gradient in zip(out[1:3], more[1:3], (centred * rstd, dshift), strict=True):
            accumulate(place, gradient, add)
        means = means_of_all(dshift, centred * rstd**2, g.positions, reduce)
        norm[3 * c : 4 * c], norm[4 * c :] = means

    elsewhere = [
        (place, add, made.reshape(x.shape))
        for place, add, made in zip(out[::3], more[::3], (dx, before), strict=False)
        if place is not None and (add or not _overlap(place, made))
    ]

    def after() -> None:
        for place, add, made in elsewhere:
            accumulate(place, made, add)

    calls: list[Callable[[], None]]
    if statistics is None:
        first, moments = bind_moments(source)
        calls = [*first, lambda: take(*moments_of_all(*moments(), g.positions, reduce))]
    else:
        calls = [Early(lambda: take(*statistics.astype(np.float64)))]
    if before is not given and not _overlap(before, given):
        calls.append(lambda: np.copyto(before, given))
    calls += [sums.step, between]
    if out[0] is not None:
        calls.append(second)
    return Chain([*calls, after] if elsewhere else calls)


def _overlap(a: Array, b: Array) -> bool:
    """Return whether two contiguous arrays share memory."""
    return np.may_share_memory(a, b)
