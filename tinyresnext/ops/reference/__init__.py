"""Every op and its gradient in a few lines of NumPy: the definition of what a backend computes.

It computes in the type of its input: float64 in, float64 out. Shapes, arguments and errors:
`tinyresnext.ops.shapes`. Inside, ``windows`` is always ``[n, h_out, w_out, c, k_h, k_w]``: what
each output position sees of the image. Read `conv` with `windows`, then `norm`, `elementwise`,
`pool` and `head`; `update` has what training does to weights. `memory` and `machine` have the
functions that are not ops, `integer` those of quantised networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from .conv import conv2d, conv2d_backward
from .elementwise import add, add_backward, excite, excite_backward, relu, relu_backward
from .head import (
    binary_cross_entropy,
    binary_cross_entropy_backward,
    linear,
    linear_backward,
    softmax,
    softmax_backward,
    softmax_cross_entropy,
    softmax_cross_entropy_backward,
)
from .integer import conv2d_int8, dequantise, pack_int8, quantise
from .machine import (
    at_once,
    clear_kernels,
    described,
    kernels_kept,
    kernels_problem,
    kind,
    loaders,
    on_threads,
    peak,
    repeated,
    thread_count,
    wait,
    when_compiling,
)
from .memory import download, empty, pack, upload, view
from .norm import batch_norm, batch_norm_backward, batch_norm_train, batch_norm_train_backward
from .pool import (
    avg_pool2d,
    avg_pool2d_backward,
    blur_pool,
    blur_pool_backward,
    max_pool2d,
    max_pool2d_backward,
    mean_pool,
    mean_pool_backward,
)
from .update import (
    adamw_step,
    average_step,
    clip_norm_step,
    clip_units_step,
    clip_value_step,
    lamb_step,
    muon_step,
    orthogonal,
    rmsprop_step,
    sgd_step,
    statistics_step,
)

__all__ = [
    "adamw_step",
    "add",
    "add_backward",
    "at_once",
    "average_step",
    "avg_pool2d",
    "avg_pool2d_backward",
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_train",
    "batch_norm_train_backward",
    "binary_cross_entropy",
    "binary_cross_entropy_backward",
    "bind",
    "blur_pool",
    "blur_pool_backward",
    "chain",
    "clear_kernels",
    "clip_norm_step",
    "clip_units_step",
    "clip_value_step",
    "conv2d",
    "conv2d_backward",
    "conv2d_int8",
    "dequantise",
    "described",
    "download",
    "empty",
    "excite",
    "excite_backward",
    "kernels_kept",
    "kernels_problem",
    "kind",
    "lamb_step",
    "linear",
    "linear_backward",
    "loaders",
    "max_pool2d",
    "max_pool2d_backward",
    "mean_pool",
    "mean_pool_backward",
    "muon_step",
    "on_threads",
    "orthogonal",
    "pack",
    "pack_int8",
    "peak",
    "precision",
    "quantise",
    "relu",
    "relu_backward",
    "repeated",
    "rmsprop_step",
    "sgd_step",
    "softmax",
    "softmax_backward",
    "softmax_cross_entropy",
    "softmax_cross_entropy_backward",
    "statistics_step",
    "thread_count",
    "upload",
    "view",
    "wait",
    "when_compiling",
]

precision = "float32"  # of what is computed here, where the arrays do not say otherwise


def bind(op: str, *args: Any, **attrs: Any) -> Callable[[], Any]:
    """Return the call of the function named ``op`` in this package: nothing is prepared.

    The gradients that an ``op_backward`` returns are copied to ``out`` or added to it.
    """
    call = globals()[op]
    if not op.endswith("_backward"):
        return partial(call, *args, **attrs)
    out, more = attrs.pop("out"), attrs.pop("more")

    def back() -> None:
        for place, add_to_it, gradient in zip(out, more, call(*args, **attrs), strict=False):
            if place is not None:
                np.copyto(place, place + gradient if add_to_it else gradient)

    return back


def chain(calls: Sequence[Callable[[], Any]]) -> Callable[[], None]:
    """Return one call that makes all of these, one after the other."""

    def run_all() -> None:
        for call in calls:
            call()

    return run_all
