"""Two bfloat16 in a lane, multiplied by one instruction: ``vdpbf16ps`` of AVX512-BF16.

The instruction multiplies both pairs of a lane and adds the products to one sum of float32. The
layout is that of the rung that takes words apart; now nothing is taken apart. Expect up to twice
the speed of float32.

Where the processor has no such instruction, words are taken apart. Then only the result is checked,
and nothing is timed.
"""

from __future__ import annotations

import lanes as v
from bits_2_bfloat16_apart import pack, prepare, rounded

from tinyresnext.ops.cpu.runtime.simd.bfloat16 import dot, multiplies

__all__ = ["conv2d", "missing", "pack", "prepare", "rounded"]

multiply = v.product(v.rows_of(others=3), dot, v.rectified, whole=False)


def missing() -> str:
    """Return what the processor lacks, or nothing."""
    return "" if multiplies() else "this processor has no AVX512-BF16"


conv2d = v.convolution(multiply)
