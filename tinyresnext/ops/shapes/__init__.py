"""What each op is called, what it takes, the shape it returns and which calls it refuses.

A function here has the op's signature, works on anything that has a ``.shape``, computes nothing,
and returns the shape of the result or raises ``ValueError``. Backends call it first, so every one
of them refuses the same calls with the same words; a plan calls it to walk a model without data.
The other functions of a backend are in `tinyresnext.ops.contract`.

Conventions, everywhere:

* Activations are ``[n, h, w, c]``. Convolution weights are ``[c_out, c_in / groups, k_h, k_w]``, as
  checkpoints have them.
* Arrays that carry gradients are positional; constants are keywords.
* ``stride``, ``padding`` and ``size`` are one number for both directions, or a pair ``(vertical,
  horizontal)``.
* ``out`` is where the result goes; without it, the backend makes a new array.
* Every ``op`` has an ``op_backward(dy, y, *args, **attrs)`` that takes the gradient and the value
  of the result and returns a tuple: one gradient for each positional argument, in order (``None``
  for an optional one that was not given). `READ` says which of its arguments' values a gradient
  depends on; of the others only the shape matters.

The modules are `conv`, `norm`, `elementwise`, `pool` and `head`. `integer` has the ops of quantised
networks (`INTEGER`), which every backend has that computes in float32; they have no gradients.
"""

from __future__ import annotations

from ..checks import Pair, Shape, pair
from .conv import conv2d
from .elementwise import add, excite, relu
from .head import binary_cross_entropy, linear, softmax, softmax_cross_entropy
from .integer import conv2d_int8, dequantise, quantise
from .norm import batch_norm, batch_norm_train
from .pool import avg_pool2d, blur_pool, max_pool2d, mean_pool

__all__ = [
    "INTEGER",
    "OPS",
    "READ",
    "Pair",
    "Shape",
    "add",
    "avg_pool2d",
    "batch_norm",
    "batch_norm_train",
    "binary_cross_entropy",
    "blur_pool",
    "conv2d",
    "conv2d_int8",
    "dequantise",
    "excite",
    "linear",
    "max_pool2d",
    "mean_pool",
    "pair",
    "quantise",
    "relu",
    "softmax",
    "softmax_cross_entropy",
]

OPS = (
    "conv2d",
    "batch_norm",
    "batch_norm_train",
    "relu",
    "add",
    "excite",
    "max_pool2d",
    "avg_pool2d",
    "blur_pool",
    "mean_pool",
    "linear",
    "softmax",
    "softmax_cross_entropy",
    "binary_cross_entropy",
)
INTEGER = ("quantise", "dequantise", "conv2d_int8")
# What each gradient is computed from on one of the backends: "dy", "y" and the positional arguments
# by their place. What is not here may lie in memory that has been given to other values.
READ: dict[str, tuple[str | int, ...]] = {
    "conv2d": ("dy", 0, 1),
    "batch_norm": ("dy", 0, 1, 3, 4),
    "batch_norm_train": ("dy", "y", 0, 1, 2),
    "relu": ("dy", 0),
    "add": ("dy",),
    "excite": ("dy", "y", 0, 1),
    "max_pool2d": ("dy", 0),
    "avg_pool2d": ("dy",),
    "blur_pool": ("dy",),
    "mean_pool": ("dy",),
    "linear": ("dy", 0, 1),
    "softmax": ("dy", "y"),
    "softmax_cross_entropy": ("dy", 0),
    "binary_cross_entropy": ("dy", 0),
}
