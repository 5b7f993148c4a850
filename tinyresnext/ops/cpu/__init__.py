"""The fast backend: Numba on the processor's cores. The ops and what they mean: `tinyresnext.ops.shapes`.

Kernels are compiled when they are first called. All memory is float32 and C-contiguous (`upload` makes it so), and all
results are the same for any number of threads.
"""

from .conv import Packed, conv2d, pack
from .head import linear, softmax
from .memory import download, empty, upload
from .norm import add, batch_norm, relu
from .pool import avg_pool2d, max_pool2d, mean_pool

__all__ = [
    "Packed",
    "add",
    "avg_pool2d",
    "batch_norm",
    "conv2d",
    "download",
    "empty",
    "linear",
    "max_pool2d",
    "mean_pool",
    "pack",
    "relu",
    "softmax",
    "upload",
]
