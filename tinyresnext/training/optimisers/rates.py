"""The learning rates of layers, where those near the image learn less than those behind them."""

from __future__ import annotations

from ...network.resnext import parameters
from ...network.spec import Spec, blocks


def layer_rates(spec: Spec, decay: float) -> dict[str, float]:
    """Return what the learning rate of each parameter is multiplied by, as timm counts layers.

    The classifier has 1, the last block ``decay``, the block before it ``decay`` squared, and so on
    down to the stem. With a decay of 1 there is nothing to multiply by.
    """
    if decay == 1:
        return {}
    order = [block.name for block in blocks(spec)]
    found = {}
    for name in parameters(spec):
        block = ".".join(name.split(".")[:2])
        behind = len(order) - order.index(block) if block in order else len(order) + 1
        found[name] = 1.0 if name.startswith("fc.") else decay**behind
    return found
