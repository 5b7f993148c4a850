"""The whole idea in ten asserts and two seconds."""

import numpy as np
import recipe

from tinyresnext import Spec, forward, parameters
from tinyresnext.network.plan import Plan, program
from tinyresnext.network.resnext import blocks, concatenated, summed
from tinyresnext.network.tape import Tape, gradients
from tinyresnext.ops import reference as ops


def test_tiny():
    spec = Spec(blocks=(1, 1), cardinality=4, width=8, classes=5, stem="cifar")
    params = {name: recipe.tensor(name, shape) for name, shape in parameters(spec).items()}
    x = recipe.pictures("tiny", (2, 3, 16, 16))

    # A network is a function of its weights, its spec, an input, and whoever computes.
    logits = forward(params, spec, x, ops)
    assert logits.shape == (2, 5)
    assert spec.depth == 8

    # Cardinality: four paths of eight channels make a grouped convolution of 32, with a quarter of
    # the weights.
    assert next(blocks(spec)).channels == 4 * 8
    assert params["layer1.0.conv2.weight"].shape == (32, 8, 3, 3)

    # Figure 3: paths summed (a), paths concatenated (b) and grouped (c) are one and the same.
    assert np.allclose(forward(params, spec, x, ops, block=concatenated), logits, atol=1e-5)
    assert np.allclose(forward(params, spec, x, ops, block=summed), logits, atol=1e-5)

    # The same walk, recorded: gradients. One step against them lowers the loss.
    tape = Tape(ops)
    loss = tape.softmax_cross_entropy(forward(params, spec, x, tape), labels=np.array([0, 1]))
    [slope] = gradients(tape, np.float32(1), [params["fc.weight"]])
    better = params | {"fc.weight": params["fc.weight"] - 0.01 * slope}
    assert ops.softmax_cross_entropy(forward(better, spec, x, ops), labels=np.array([0, 1])) < loss

    # The same walk, planned: batch norms folded, additions and ReLUs fused, buffers used again.
    plan = Plan(program(params, spec, ops), x.shape, ops)
    assert np.allclose(plan(x), logits, atol=1e-5)
    assert len(plan.calls) < len(tape.calls) / 2
    assert plan.bytes < sum(call.out.nbytes for call in tape.calls) / 4
