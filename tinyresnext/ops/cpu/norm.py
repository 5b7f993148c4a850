"""Batch normalisation with known statistics, and its gradients.

Bound by memory, not by arithmetic: it reads every value once, writes it once, and may write in
place. A plan folds it into the convolution before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numba import prange

from .. import shapes
from .moments import cut, gradient_sums
from .norm_train import scaled, spread
from .runtime.crew import Step
from .runtime.kernel import kernel
from .runtime.launch import launch
from .runtime.memory import Array, accumulate, empty, empty_like, flat, gradient_room, result
from .runtime.simd import stored, value

# --- kernel ---------------------------------------------------------------------------------------


@kernel(parallel=True)
def _batch_norm(x, mean, factor, shift, out):
    """Normalise one position after the other, the channels of each in a row."""
    channels = len(mean)
    for position in prange(len(x) // channels):
        at = np.int64(position) * channels
        for c in range(channels):
            out[at + c] = stored((value(x[at + c]) - mean[c]) * factor[c] + shift[c], out)


# --- public op ------------------------------------------------------------------------------------


def batch_norm(
    x: Array,
    scale: Array,
    shift: Array,
    mean: Array,
    var: Array,
    *,
    eps: float = 1e-5,
    out: Array | None = None,
) -> Array:
    """Compute a factor for each channel in NumPy, and then one pass over the values.

    Arguments and result are those of `tinyresnext.ops.shapes.batch_norm`.
    """
    y = result("batch_norm", shapes.batch_norm(x, scale, shift, mean, var, eps=eps, out=out), out)
    bind_batch_norm(x, scale, shift, mean, var, eps=eps, out=y)()
    return y


def bind_batch_norm(
    x: Array,
    scale: Array,
    shift: Array,
    mean: Array,
    var: Array,
    *,
    eps: float = 1e-5,
    out: Array,
) -> Callable[[], None]:
    """Prepare a call; the factors are computed anew in each."""
    shape = shapes.batch_norm(x, scale, shift, mean, var, eps=eps, out=out)
    target = result("batch_norm", shape, out, halves=True).reshape(-1)
    scales, variances = flat("batch_norm", "scale", scale), flat("batch_norm", "var", var)
    source, centre = flat("batch_norm", "x", x, out), flat("batch_norm", "mean", mean)
    shifts = flat("batch_norm", "shift", shift)

    def normalise() -> None:
        factor = scales / np.sqrt(variances + np.float32(eps))
        if target.size:
            launch(_batch_norm, source, centre, factor, shifts, target)

    return normalise


def batch_norm_backward(
    dy: Array,
    y: Array,
    x: Array,
    scale: Array,
    shift: Array,
    mean: Array,
    var: Array,
    *,
    eps: float = 1e-5,
) -> tuple[Array | None, ...]:
    """Compute all gradients; the statistics are constants."""
    out = empty_like(x, scale, shift, mean, var)
    bind_batch_norm_backward(
        dy, y, x, scale, shift, mean, var, eps=eps, out=out, more=(False,) * 5
    )()
    return out


def bind_batch_norm_backward(
    dy: Array,
    y: Array,
    x: Array,
    scale: Array,
    shift: Array,
    mean: Array,
    var: Array,
    *,
    eps: float = 1e-5,
    out: Sequence[Array | None],
    more: Sequence[bool],
) -> Callable[[], None]:
    """Prepare the two sums over each channel, and one multiplication a value."""
    op, c = "batch_norm_backward", x.shape[-1]
    source, given = flat(op, "x", x, x), flat(op, "dy", dy, dy)
    dx = gradient_room(x, out[0] if not more[0] else None)
    g, norm = cut(x.size, c), empty((5 * c,))
    sums = gradient_sums(source.reshape(x.shape), norm, given, given, g)
    second = Step(spread, g, x=source, norm=norm, dy=given, out=dx)

    def back() -> None:
        variance = var.astype(np.float64)
        norm[: 3 * c], norm[3 * c :] = scaled(mean, variance, scale, scale, eps), 0
        sums.step()
        dshift, centred = sums.total()
        if out[0] is not None:
            second()
        rstd = 1 / np.sqrt(variance + eps)
        statistics = -dshift * scale * rstd, -centred * scale * rstd**3 / 2
        found = [a.astype(np.float32) for a in (centred * rstd, dshift, *statistics)]
        for place, add, gradient in zip(out[1:], more[1:], found, strict=True):
            accumulate(place, gradient, add)
        if more[0]:
            accumulate(out[0], dx.reshape(x.shape), True)

    return back
