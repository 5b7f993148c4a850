"""What every term of a block does to the logits: to first order, and exactly.

The effect of a term is what the logit loses when the term is left out of the sum of its block. To
first order it is the product of the term with the gradient of the logit, so one backward pass gives
it for all terms of all blocks. Exactly, it needs the rest of the network once more for each term.
The two differ where leaving a term out turns ReLUs on or off, and where it changes the factors of
squeeze and excitation in later blocks.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..network.plan import Plan, Program
from ..network.resnext import Block
from .paths import addends, last_layer
from .recorded import Recorded

__all__ = ["exact", "rest_of_the_network"]

PIECE = 64 * 2**20  # bytes of the terms that are computed at a time


def exact(recorded: Recorded, block: Block) -> np.ndarray:
    """Leave each term of a block out, run the rest of the network, and compare the logits.

    The rest of the network runs for many terms at a time, as one mini-batch.

    Returns
    -------
    [terms, classes] float64
        The logits of the whole block, minus those without the term: of the paths in their order, of
        the shift, and of the shortcut.
    """
    whole = recorded.value(f"{block.name}.add")
    program = rest_of_the_network(recorded, block)
    [logits] = _run(recorded, program, np.maximum(whole[None], 0))
    found = [
        logits - _run(recorded, program, np.maximum(whole - terms, 0))
        for terms in _terms(recorded, block)
    ]
    return np.concatenate(found)


def rest_of_the_network(recorded: Recorded, block: Block) -> Program:
    """Return the fused calls after a block; their input is the block's output."""
    calls = recorded.model.plan(recorded.x[:1].shape).calls
    at = max(i for i, call in enumerate(calls) if call.name.startswith(f"{block.name}."))
    return Program(calls[at].out, calls[at + 1 :])


def _run(recorded: Recorded, program: Program, x: np.ndarray) -> np.ndarray:
    """Return the logits [n, classes] in float64 for outputs [n, h, w, c] of a block."""
    plan = Plan(program, x.shape, recorded.ops, threads=recorded.model.threads)
    return plan(np.ascontiguousarray(x, np.float32)).astype(np.float64)


def _terms(recorded: Recorded, block: Block) -> Iterator[np.ndarray]:
    """Yield the terms of a block in pieces of limited size, each [n, h, w, c_out]."""
    shortcut = recorded.shortcut(block)
    paths, at_a_time = recorded.model.spec.cardinality, max(1, PIECE // shortcut.nbytes)
    for first in range(0, paths, at_a_time):
        yield addends(recorded, block, first, min(first + at_a_time, paths))
    shift = last_layer(recorded, block).shift
    yield np.stack([np.broadcast_to(shift, shortcut.shape), shortcut])
