"""What the kernels of a GPU move, counted by the emulator: whole sectors, and no bank twice.

``sectors`` over ``ideal_sectors`` may be 1.1, and ``wavefronts`` over ``ideal_wavefronts`` 1.25.
The ideal is what the different bytes that a warp asks for would fill. `EXCEPTIONS` has what
geometry forbids, each with its limits and the reason.
"""

from __future__ import annotations

import numpy as np
import pytest
import test_cuda_conv as convolutions
from op_cases import Conv

from tinyresnext.emulator.ptx import PtxMachine
from tinyresnext.ops.cuda import backend

pytestmark = [pytest.mark.device, pytest.mark.usefixtures("nvvm")]
SECTORS, WAVEFRONTS = 1.1, 1.25
EXCEPTIONS = {
    # It reads a gradient only where the result is positive: parts of sectors.
    "relu_gradient": (2.0, WAVEFRONTS),
}
STRIDED = {
    # A kind of places is reached by every second tap, and the taps lie side by side in a weight.
    "pack_slabs": (2.5, 2.0),
}
LAYERS = [
    Conv("width 4", (1, 6, 7, 128), 128, 3, 1, 1, 32, "bias relu"),
    Conv("width 8", (1, 6, 7, 256), 256, 3, 1, 1, 32, "bias relu"),
    Conv("3x3", (1, 6, 6, 32), 32, 3, 1, 1, epilogue="bias relu"),
    Conv("1x1", (1, 8, 8, 64), 64, epilogue="bias residual relu"),
]


def moved(machine: PtxMachine, exceptions=EXCEPTIONS) -> None:
    """Check what each kernel has moved since the last time, and forget it."""
    for name, found in machine.counters.items():
        most = exceptions.get(name, (SECTORS, WAVEFRONTS))
        assert found.sectors <= most[0] * found.ideal_sectors, name
        assert found.wavefronts <= most[1] * found.ideal_wavefronts, name
    assert machine.counters
    machine.counters.clear()


def counting() -> PtxMachine:
    return PtxMachine(count=True, watched=False)


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)
def test_convolutions(case: Conv):
    machine = counting()
    convolutions.conv2d(machine, case)
    convolutions.gradients(machine, case)
    moved(machine)


def test_a_convolution_with_a_stride():
    machine = counting()
    case = Conv("stride", (1, 6, 6, 128), 128, 3, 2, 1, 32)
    convolutions.conv2d(machine, case)
    convolutions.gradients(machine, case)
    moved(machine, STRIDED)


def test_norms_and_elementwise_ops():
    machine, rng = counting(), np.random.default_rng(0)
    ops = backend(machine)
    x, dy = (ops.upload(rng.standard_normal((2, 6, 8, 64), np.float32)) for _ in range(2))
    gamma, beta, mean, var = (ops.upload(rng.uniform(1, 2, 64)) for _ in range(4))
    ops.relu_backward(dy, ops.relu(x), x)
    ops.add(x, dy)
    ops.batch_norm(x, gamma, beta, mean, var, eps=1e-5)
    ops.batch_norm_backward(dy, x, x, gamma, beta, mean, var, eps=1e-5)
    statistics = ops.empty((2, 64))
    y = ops.batch_norm_train(x, gamma, beta, eps=1e-5, statistics=statistics)
    ops.batch_norm_train_backward(dy, y, x, gamma, beta, eps=1e-5, statistics=statistics)
    moved(machine)


def test_a_kernel_that_moves_too_much_is_found():
    machine = counting()
    convolutions.conv2d(machine, Conv("3 channels", (1, 8, 8, 3), 8, 7, 2, 3))
    with pytest.raises(AssertionError, match="pack_columns_turn"):
        moved(machine)
