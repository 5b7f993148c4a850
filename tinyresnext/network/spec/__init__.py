"""Which networks there are: the fields, the named ones, and the blocks and weights that they mean.

Read `fields`, then `variants` and `blocks`.
"""

from .blocks import Block, blocks, check_spec, excitation, parameters, projection
from .fields import BLUR_POOLS, FIRST_PLANES, HEADS, STEMS, Spec
from .variants import VARIANTS, cifar, describe, dilated, other, variant

__all__ = [
    "BLUR_POOLS",
    "FIRST_PLANES",
    "HEADS",
    "STEMS",
    "VARIANTS",
    "Block",
    "Spec",
    "blocks",
    "check_spec",
    "cifar",
    "describe",
    "dilated",
    "excitation",
    "other",
    "parameters",
    "projection",
    "variant",
]
