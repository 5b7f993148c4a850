"""The fast backend: Numba on the processor's cores. What the ops mean: `tinyresnext.ops.shapes`.

Kernels are compiled when they are first needed, and kept on disk (`runtime.kernel`,
`runtime.cache`). Calls from several threads at once are safe (`launch`). All memory is float32 and
C-contiguous (`upload` makes it so). All results are the same for any number of threads, except
gradients of weights of 1x1 convolutions, if these are not in words of bfloat16, and of narrow
groups. Their partial sums are divided by thread: they are the same every time for one number of
threads.

A module is imported when one of its functions is first used, so that inference does not import what
only training needs. `MODULES` says which module has which function.

Read `conv` first, and `runtime` for how kernels run. `norm`, `elementwise`, `pool` and `head` have
the other ops; `norm_train`, `moments` (sums over positions) and `update` (weights) are for
training. `interlaced` makes a dilated convolution one without dilation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..contract import Peak
from .conv.forward import Packed, pack
from .runtime.cache import clear as clear_kernels
from .runtime.cache import kept as kernels_kept
from .runtime.cache import problem as kernels_problem
from .runtime.compiling.identity import kind
from .runtime.compiling.watch import when_compiling
from .runtime.crew import chain
from .runtime.launch import on_threads, thread_count, threads_now
from .runtime.memory import download, empty, upload, view

if TYPE_CHECKING:  # the type checker holds these to the contract
    from .conv.backward import conv2d_backward
    from .conv.forward import conv2d
    from .elementwise import add, add_backward, relu, relu_backward
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
    from .norm import batch_norm, batch_norm_backward
    from .norm_train import batch_norm_train, batch_norm_train_backward
    from .pool.average import avg_pool2d, avg_pool2d_backward
    from .pool.blur import blur_pool, blur_pool_backward
    from .pool.excite import excite, excite_backward
    from .pool.maximum import max_pool2d, max_pool2d_backward
    from .pool.mean import mean_pool, mean_pool_backward
    from .update.elementwise import (
        adamw_step,
        average_step,
        clip_norm_step,
        clip_units_step,
        clip_value_step,
        lamb_step,
        rmsprop_step,
        sgd_step,
        statistics_step,
    )
    from .update.muon import muon_step

__all__ = [
    "Packed",
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
    "pack",
    "peak",
    "precision",
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

# ResNeXt-50, stage 3, of 8 samples (1.1 weights for each value): 2 together take 0.98 of the time
# of one by one, 4 take 0.96, and 8 the same. Of 16 samples that share a weight, each reads little.
WEIGHTS_TO_VALUES, MOST = 4, 16

MODULES = {
    "conv2d": "conv.forward",
    "conv2d_backward": "conv.backward",
    "conv2d_int8": "conv.integer.forward",
    "pack_int8": "conv.integer.forward",
    "quantise": "conv.integer.rounding",
    "dequantise": "conv.integer.rounding",
    "batch_norm": "norm",
    "batch_norm_backward": "norm",
    "batch_norm_train": "norm_train",
    "batch_norm_train_backward": "norm_train",
    "relu": "elementwise",
    "relu_backward": "elementwise",
    "add": "elementwise",
    "add_backward": "elementwise",
    "excite": "pool.excite",
    "excite_backward": "pool.excite",
    "max_pool2d": "pool.maximum",
    "max_pool2d_backward": "pool.maximum",
    "avg_pool2d": "pool.average",
    "avg_pool2d_backward": "pool.average",
    "blur_pool": "pool.blur",
    "blur_pool_backward": "pool.blur",
    "mean_pool": "pool.mean",
    "mean_pool_backward": "pool.mean",
    "linear": "head",
    "linear_backward": "head",
    "softmax": "head",
    "softmax_backward": "head",
    "softmax_cross_entropy": "head",
    "softmax_cross_entropy_backward": "head",
    "binary_cross_entropy": "head",
    "binary_cross_entropy_backward": "head",
    "sgd_step": "update.elementwise",
    "adamw_step": "update.elementwise",
    "lamb_step": "update.elementwise",
    "rmsprop_step": "update.elementwise",
    "muon_step": "update.muon",
    "average_step": "update.elementwise",
    "clip_norm_step": "update.elementwise",
    "clip_units_step": "update.elementwise",
    "clip_value_step": "update.elementwise",
    "statistics_step": "update.elementwise",
}


def __getattr__(name: str) -> Any:
    """Return a function of `MODULES` from its module."""
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *MODULES})


def bind(op: str, *args: Any, **attrs: Any) -> Callable[[], Any]:
    """Call ``bind_<op>`` of the module that has the op (`MODULES`)."""
    prepare = getattr(import_module(f".{MODULES[op]}", __name__), f"bind_{op}")
    return prepare(*args, **attrs)


def described() -> str:
    """Return what computes."""
    return "the processor"


def peak(threads: Sequence[int]) -> list[Peak]:
    """Measure multiply-adds in registers and memory traffic, for each number of threads."""
    from .runtime.peak import measure

    return measure(threads)


def repeated(call: Callable[[], Any]) -> tuple[Callable[[], Any], int]:
    """Return the call itself: a start takes little."""
    return call, 1


def wait() -> None:
    """Return at once: calls end before they return."""


def loaders(count: int) -> int:
    """Return a quarter: a step takes much longer than preparing its mini-batch."""
    return max(1, count // 4)


def at_once(n: int, weights: int, values: int) -> int:
    """Return how many of ``n`` samples go through some layers together: they divide ``n``.

    Together, ``some`` samples read ``weights / some + values`` numbers each, but their values push
    each other out of the caches. So there are as many as make the weights a quarter of the values,
    and no more than `MOST`. One sample keeps up to four threads busy in every layer.
    """
    enough = min(MOST, WEIGHTS_TO_VALUES * weights // max(1, values))
    wanted = max(1, threads_now() // 4, enough)
    return next(some for some in range(min(max(1, n), wanted), 0, -1) if n % some == 0)
