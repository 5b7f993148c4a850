"""The fast backend: Numba on the processor's cores. The ops and what they mean: `tinyresnext.ops.shapes`.

Kernels are compiled when they are first called, and kept on disk (`kernel`, `cache`). Calls from several threads at once
are safe (`launch`). All memory is float32 and C-contiguous (`upload` makes it so), and all results are the same for any
number of threads.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from numba import get_num_threads

from .conv import Packed, bind_conv2d, conv2d, pack
from .head import linear, softmax
from .kernel import when_compiling
from .launch import on_threads, thread_count
from .memory import download, empty, upload
from .norm import add, batch_norm, relu
from .pool import avg_pool2d, max_pool2d, mean_pool

__all__ = [
    "Packed",
    "add",
    "at_once",
    "avg_pool2d",
    "batch_norm",
    "bind",
    "conv2d",
    "download",
    "empty",
    "linear",
    "max_pool2d",
    "mean_pool",
    "on_threads",
    "pack",
    "relu",
    "softmax",
    "thread_count",
    "upload",
    "when_compiling",
]


def bind(op: str, *args: Any, **attrs: Any) -> Callable[[], Any]:
    """A convolution is checked and cut into tasks once; the other ops are too quick in Python for that to matter."""
    return bind_conv2d(*args, **attrs) if op == "conv2d" else partial(globals()[op], *args, **attrs)


def at_once(n: int) -> int:
    """One picture gives up to four threads enough to do in every layer, and is what fits their caches."""
    wanted = max(1, get_num_threads() // 4)
    return next(some for some in range(min(max(1, n), wanted), 0, -1) if n % some == 0)
