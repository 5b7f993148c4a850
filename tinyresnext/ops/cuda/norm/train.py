"""Batch normalisation in training, forward and backward, with the addition and the ReLU behind it.

Bound by memory: forward, the values are read twice (for the statistics, then for the result) and
written once; backward likewise (`sums`).
"""

from __future__ import annotations

from collections.abc import Sequence

from ....errors import DeviceError
from ... import shapes
from ...together import Reduce
from ..runtime.arrays import DeviceArray, check, empty, empty_like, scratch, view
from ..runtime.call import Call
from .constant import normalised, scaled
from .moments import moments
from .sums import BY_X, BY_Y, PASSED, Given, spread, summed
from .tile import EACH, even

# --- public op ------------------------------------------------------------------------------------


def batch_norm_train(
    x: DeviceArray,
    scale: DeviceArray,
    shift: DeviceArray,
    residual: DeviceArray | None = None,
    *,
    eps: float = 1e-5,
    relu: bool = False,
    statistics: DeviceArray | None = None,
    reduce: Reduce | None = None,
    out: DeviceArray | None = None,
) -> DeviceArray:
    """Make two passes: one for the statistics, one for the result."""
    y = empty(check("batch_norm_train", x=x), x.shape) if out is None else out
    bind_batch_norm_train(
        x, scale, shift, residual, eps=eps, relu=relu, statistics=statistics, reduce=reduce, out=y
    )()
    return y


def bind_batch_norm_train(
    x: DeviceArray,
    scale: DeviceArray,
    shift: DeviceArray,
    residual: DeviceArray | None = None,
    *,
    eps: float = 1e-5,
    relu: bool = False,
    statistics: DeviceArray | None = None,
    reduce: Reduce | None = None,
    out: DeviceArray,
) -> Call:
    """Bind three launches."""
    _alone(reduce)
    shapes.batch_norm_train(
        x, scale, shift, residual, eps=eps, relu=relu, statistics=statistics, out=out
    )
    machine = check(
        "batch_norm_train", x=x, scale=scale, shift=shift, residual=residual,
        statistics=statistics, out=out,
    )  # fmt: skip
    norm = scratch(machine, (even(x.shape[-1]), EACH))
    first = moments(x, scale, shift, norm, statistics, eps)
    return Call(machine, [*first, normalised(x, norm, residual, out, relu)], out)


def batch_norm_train_backward(
    dy: DeviceArray,
    y: DeviceArray,
    x: DeviceArray,
    scale: DeviceArray,
    shift: DeviceArray,
    residual: DeviceArray | None = None,
    *,
    eps: float = 1e-5,
    relu: bool = False,
    statistics: DeviceArray | None = None,
    reduce: Reduce | None = None,
) -> tuple[DeviceArray | None, ...]:
    """Compute all gradients."""
    out = empty_like(x, scale, shift, residual)
    bind_batch_norm_train_backward(
        dy, y, x, scale, shift, residual, eps=eps, relu=relu, statistics=statistics,
        reduce=reduce, out=out, more=(False,) * 4,
    )()  # fmt: skip
    return out


def bind_batch_norm_train_backward(
    dy: DeviceArray,
    y: DeviceArray,
    x: DeviceArray,
    scale: DeviceArray,
    shift: DeviceArray,
    residual: DeviceArray | None = None,
    *,
    eps: float = 1e-5,
    relu: bool = False,
    statistics: DeviceArray | None = None,
    reduce: Reduce | None = None,
    out: Sequence[DeviceArray | None],
    more: Sequence[bool],
) -> Call:
    """Bind the launches of all passes.

    The gradient of the residual, or that of ``x`` where there is no residual, may lie over ``dy``.
    """
    _alone(reduce)
    op, (dx, dscale, dshift, *rest) = "batch_norm_train_backward", out
    dr = rest[0] if rest and residual is not None else None
    machine = check(
        op, dy=dy, y=y, x=x, scale=scale, shift=shift, residual=residual, statistics=statistics,
        dx=dx, dscale=dscale, dshift=dshift, dr=dr,
    )  # fmt: skip
    mask = PASSED if not relu else BY_X if residual is None else BY_Y
    c = x.shape[-1]
    norm, means = (scratch(machine, (even(c), EACH)) for _ in range(2))
    if statistics is None:
        statistics = scratch(machine, (2 * c,))
        first = moments(x, scale, shift, norm, statistics, eps)
    else:
        first = [scaled(view(statistics, (c,)), view(statistics, (c,), c), scale, shift, norm, eps)]
    given = Given(x, y, dy, norm, view(statistics, (c,), c), eps, mask)
    return Call(
        machine,
        [
            *first,
            *summed(given, means, (dscale, dshift), more[1:3]),
            *spread(given, means, dx, dr, (more[0], dr is not None and more[3])),
        ],
    )


def _alone(reduce: Reduce | None) -> None:
    """Refuse statistics of several processes: between the launches nothing leaves the GPU."""
    if reduce is not None:
        raise DeviceError(
            "several processes share a mini-batch, and batch norms on a GPU see that of one "
            "process only; compute on the device 'cpu'"
        )
