"""Values of float16, and instructions that multiply whole matrices: the package's kernel for these.

`tinyresnext.ops.cuda.tensor.product` has tensor cores do what the rung before does with float32. An
instruction of a warp (`mma.sync`) is 2,048 multiply-adds instead of 32, with float32 sums. The
image takes half the bytes. So little is left to do for a multiply-add that the kernel may be
several times as fast as multiply-adds of float32, the unit of the ladder, can be. Image and weights
are rounded to float16 first, by launches that are not counted; the weights at once, as a plan does.
"""

from __future__ import annotations

import numpy as np

from tinyresnext.ops.cuda.conv.pack import Source
from tinyresnext.ops.cuda.conv.windows import Windows
from tinyresnext.ops.cuda.elementwise import copied
from tinyresnext.ops.cuda.runtime.arrays import DeviceArray, empty
from tinyresnext.ops.cuda.runtime.call import Call
from tinyresnext.ops.cuda.runtime.machine import Launch
from tinyresnext.ops.cuda.tensor.pairs import pairs
from tinyresnext.ops.cuda.tensor.product import product


def launches(
    x: DeviceArray, weight: DeviceArray, bias: DeviceArray, out: DeviceArray
) -> list[Launch]:
    """Return the launches of a 1x1 convolution; the last one computes."""
    (m, k), n = x.shape, bias.size
    win = Windows(m, 1, 1, k, 1, 1, n, 1, 1, 1, 1, 0, 0, 1)
    narrow = empty(x.machine, x.shape, np.float16)
    # The ladder's weights are [channel, filter], where those of a network are [filter, channel].
    source = Source(((0,),), taps=1, channels=k, s_group=k * n, s_filter=1, s_channel=n)
    [packed], packing = pairs(weight, source, win, empty, np.float16)
    Call(x.machine, packing)()
    return [copied(x, narrow), *product(narrow, packed, bias, None, out, win, relu=True)]
