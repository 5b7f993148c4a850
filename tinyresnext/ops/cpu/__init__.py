"""The fast backend: Numba on the processor's cores. The ops and what they mean: `tinyresnext.ops.shapes`.

Kernels are compiled when they are first called, and kept on disk (`kernel`, `cache`). Calls from
several threads at once are safe (`launch`). All memory is float32 and C-contiguous (`upload` makes
it so). All results are the same for any number of threads, but for gradients of weights, whose
partial sums are cut by it; for one number they are the same every time.
"""

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any

from numba import get_num_threads

from ..contract import Peak
from .conv.forward import Packed, bind_conv2d, conv2d, pack
from .head import bind_linear, linear, softmax
from .norm import add, batch_norm, relu
from .pool import (
    avg_pool2d,
    bind_avg_pool2d,
    bind_max_pool2d,
    bind_mean_pool,
    max_pool2d,
    mean_pool,
)
from .runtime.cache import clear as clear_kernels
from .runtime.cache import kept as kernels_kept
from .runtime.cache import problem as kernels_problem
from .runtime.crew import chain
from .runtime.kernel import when_compiling
from .runtime.launch import on_threads, thread_count
from .runtime.memory import download, empty, upload, view

__all__ = [
    "Packed",
    "add",
    "add_backward",
    "at_once",
    "avg_pool2d",
    "avg_pool2d_backward",
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_train",
    "batch_norm_train_backward",
    "bind",
    "chain",
    "clear_kernels",
    "conv2d",
    "conv2d_backward",
    "download",
    "empty",
    "kernels_kept",
    "kernels_problem",
    "linear",
    "linear_backward",
    "max_pool2d",
    "max_pool2d_backward",
    "mean_pool",
    "mean_pool_backward",
    "on_threads",
    "pack",
    "peak",
    "relu",
    "relu_backward",
    "softmax",
    "softmax_backward",
    "softmax_cross_entropy",
    "softmax_cross_entropy_backward",
    "thread_count",
    "upload",
    "view",
    "when_compiling",
]


# checked and cut into tasks once; the other ops are too quick in Python for that to matter
BOUND = {
    "avg_pool2d": bind_avg_pool2d,
    "conv2d": bind_conv2d,
    "linear": bind_linear,
    "max_pool2d": bind_max_pool2d,
    "mean_pool": bind_mean_pool,
}
# the modules of what inference does not need: they are imported when they are first asked for
IN_TRAINING = {
    "conv.backward": ("conv2d_backward", "bind_conv2d_backward"),
    "norm_train": (
        "batch_norm_train",
        "bind_batch_norm_train",
        "batch_norm_train_backward",
        "bind_batch_norm_train_backward",
    ),
    "update": ("average_step", "muon_step", "sgd_step", "statistics_step"),
    "backward": (
        "add_backward",
        "avg_pool2d_backward",
        "batch_norm_backward",
        "bind_avg_pool2d_backward",
        "bind_max_pool2d_backward",
        "bind_mean_pool_backward",
        "bound",
        "linear_backward",
        "max_pool2d_backward",
        "mean_pool_backward",
        "relu_backward",
        "softmax_backward",
        "softmax_cross_entropy",
        "softmax_cross_entropy_backward",
    ),
}


def __getattr__(name: str) -> Any:
    """What a module of `IN_TRAINING` has."""
    for module, names in IN_TRAINING.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def bind(op: str, *args: Any, **attrs: Any) -> Callable[[], Any]:
    """`crew.Step`s of what a plan for inference is made of, which `chain` can put together; the others as they come."""
    if op in BOUND:
        return BOUND[op](*args, **attrs)
    if any(f"bind_{op}" in names for names in IN_TRAINING.values()):
        return __getattr__(f"bind_{op}")(*args, **attrs)
    call = globals()[op] if op in globals() else __getattr__(op)
    return (
        __getattr__("bound")(call, *args, **attrs)
        if op.endswith("_backward")
        else partial(call, *args, **attrs)
    )


def peak(threads: Sequence[int]) -> list[Peak]:
    """Measure multiply-adds in registers and memory traffic, for each number of threads."""
    from .runtime.peak import measure

    return measure(threads)


def at_once(n: int) -> int:
    """One picture gives up to four threads enough to do in every layer, and is what fits their caches."""
    wanted = max(1, get_num_threads() // 4)
    return next(some for some in range(min(max(1, n), wanted), 0, -1) if n % some == 0)
