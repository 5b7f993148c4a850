"""What the kernels of a GPU move, counted by the emulator: whole sectors, and no bank twice.

``sectors`` over ``ideal_sectors`` may be 1.1, and ``wavefronts`` over ``ideal_wavefronts`` 1.25.
The ideal is what the different bytes that a warp asks for would fill. What geometry forbids has
limits of its own, each with the reason.
"""

from __future__ import annotations

import numpy as np
import pytest
import test_cuda_conv as convolutions
import test_cuda_half as halves
from op_cases import Conv

from tinyresnext.emulator.ptx import PtxMachine
from tinyresnext.ops.cuda import CudaBackend, backend
from tinyresnext.ops.cuda.elementwise import accumulate
from tinyresnext.ops.cuda.update import muon

pytestmark = [pytest.mark.device, pytest.mark.usefixtures("nvvm")]
SECTORS, WAVEFRONTS = 1.1, 1.25
NOTHING: dict[str, tuple[float, float]] = {}
# A stride of two makes four kinds of places, which every second tap reaches in either direction:
# the taps of all four lie in every sector of the weight. So it is read four times and written once,
# where one of each would do: 5 / 2. What turns the fours of channels puts two of them into one bank
# where their order begins anew: stores go twice, loads once, 3 / 2.
STRIDED = {"pack_slabs": (2.5, 1.5), "pack_columns": (2.5, 1.5)}
# As `STRIDED`: loads of a channel's filters are stored where the order of the fours begins anew.
TURNED = {"pack_slabs": (SECTORS, 1.5)}
# Rows of 4 x 9 weights begin within a sector: 16 values of one, two sectors, touch three.
ROWS = {"products": (1.5, WAVEFRONTS)}
LAYERS = [
    (Conv("width 4", (1, 6, 7, 128), 128, 3, 1, 1, 32, "bias relu"), NOTHING),
    (Conv("width 8", (1, 6, 7, 256), 256, 3, 1, 1, 32, "bias relu"), NOTHING),
    (Conv("width 16", (1, 3, 7, 128), 128, 3, 1, 1, 8), TURNED),
    (Conv("3x3", (1, 6, 6, 32), 32, 3, 1, 1, epilogue="bias relu"), NOTHING),
    (Conv("1x1", (1, 8, 8, 64), 64, epilogue="bias residual relu"), NOTHING),
    (Conv("dilated", (1, 6, 6, 64), 32, 3, 1, 2, dilation=2), NOTHING),
    (Conv("1x1, stride", (1, 6, 6, 64), 64, 1, 2, epilogue="bias"), NOTHING),
    (Conv("grouped, stride", (1, 6, 6, 128), 128, 3, 2, 1, 32), STRIDED),
]


def moved(machine: PtxMachine, exceptions=NOTHING) -> None:
    """Check what each kernel has moved since the last time, and forget it."""
    for name, found in machine.counters.items():
        most = exceptions.get(name, (SECTORS, WAVEFRONTS))
        assert found.sectors <= most[0] * found.ideal_sectors, name
        assert found.wavefronts <= most[1] * found.ideal_wavefronts, name
    assert machine.counters
    machine.counters.clear()


def counting(multiprocessors: int = 8) -> PtxMachine:
    return PtxMachine(count=True, watched=False, multiprocessors=multiprocessors)


class Inputs:
    """A backend whose inputs are normal random numbers of a shape, and its gradients."""

    def __init__(self, precision: str = "float32") -> None:
        self.machine, self._rng = counting(), np.random.default_rng(0)
        self.ops = CudaBackend(self.machine, precision)

    def __call__(self, *shape: int, of: str | None = None):
        values = self._rng.standard_normal(shape, np.float32)
        return self.ops.upload(values, out=self.ops.empty(shape, of or self.ops.precision))

    def forth_and_back(self, op: str, *given, **attrs) -> None:
        y = getattr(self.ops, op)(*given, **attrs)
        getattr(self.ops, f"{op}_backward")(self(*y.shape), y, *given, **attrs)


# --- convolutions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "exceptions"), LAYERS, ids=lambda given: getattr(given, "name", "")
)
def test_convolutions(case: Conv, exceptions):
    machine = counting()
    convolutions.conv2d(machine, case)
    convolutions.gradients(machine, case)
    moved(machine, exceptions)


def runs(kernel: int, slices: int) -> float:
    """Return how many sectors a window of three channels touches, for one that its bytes fill.

    A line of it is a run of values that begins at any value of a sector, and so is what a slice
    begins with. A run of r bytes touches ``(r + 28) / 32`` sectors in the mean.
    """
    size = 4 * 3 * kernel**2
    return (size + 28 * (kernel + slices - 1)) / size


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (7, 2)])
def test_the_first_layer(kernel: int, stride: int):
    """The image is at most two thirds of what the product loads, and a half for the gradient."""
    machine, depth = counting(1), 3 * kernel**2
    case = Conv("first", (1, 16, 16, 3), 64, kernel, stride, kernel // 2, epilogue="bias relu")
    convolutions.conv2d(machine, case)
    [name] = [name for name in machine.counters if name.startswith("gemm")]
    most = 1 + (runs(kernel, -(-depth // 16)) - 1) * 2 / 3
    moved(machine, {name: (min(1.2, most), WAVEFRONTS)})
    ops, (args, y, dy) = backend(machine), convolutions.conv_case(case)
    there, dw = [ops.upload(a) for a in (dy, y, *args)], ops.empty(case.weight)
    ops.bind("conv2d_backward", *there, **case.attrs, out=(None, dw, None), more=(False,) * 3)()
    most = 1 + (runs(kernel, -(-depth // 32)) - 1) / 2
    moved(machine, {"outer_32x32x4x4_41": (min(1.25, most), WAVEFRONTS)})


# --- everything else ------------------------------------------------------------------------------


def test_norms_and_elementwise_ops():
    given = Inputs()
    ops, vectors = given.ops, [given(64) for _ in range(3)]
    x, var = given(2, 6, 8, 64), given.ops.upload(np.ones(64, np.float32))
    given.forth_and_back("relu", x)
    given.forth_and_back("batch_norm", x, *vectors, var, eps=1e-5)
    ops.machine.launch(accumulate(given(2, 6, 8, 64), x, True))
    ops.machine.launch(accumulate(given(2, 6, 8, 64), x, False))
    statistics = ops.empty((2, 64))
    for residual in (None, given(2, 6, 8, 64)):
        given.forth_and_back(
            "batch_norm_train", x, *vectors[:2], residual, eps=1e-5, relu=True,
            statistics=statistics,
        )  # fmt: skip
    moved(given.machine)


def test_pools():
    given = Inputs()
    x = given(2, 6, 8, 64)
    given.forth_and_back("max_pool2d", x, size=3, stride=2, padding=1)
    given.forth_and_back("avg_pool2d", x, size=2, stride=2)
    given.forth_and_back("blur_pool", x, stride=2)
    given.forth_and_back("mean_pool", x)
    given.forth_and_back("excite", x, given(2, 1, 1, 64), given(2, 6, 8, 64), relu=True)
    moved(given.machine)


def test_the_classifier_softmax_and_losses():
    given = Inputs()
    for samples, classes in ((2, 40), (10, 40)):
        x, labels = given(samples, classes), np.arange(samples)
        given.forth_and_back("linear", given(samples, 128), given(classes, 128), given(classes))
        given.forth_and_back("softmax", x)
        given.forth_and_back("softmax_cross_entropy", x, labels=labels)
        rows = np.zeros((samples, classes), np.float32)
        given.forth_and_back("binary_cross_entropy", x, labels=rows)
    moved(given.machine)


def test_updates(monkeypatch):
    monkeypatch.setattr(muon, "NEWTON_SCHULZ_STEPS", 1)  # each does the same
    given = Inputs()
    ops, (a, b, c) = given.ops, (given(64, 8, 3, 3) for _ in range(3))
    ops.sgd_step(a, b, c, lr=0.1, momentum=0.9, decay=1e-4, nesterov=True)
    ops.average_step(a, b, new=0.1)
    numbers = {"lr": 0.1, "momentum": 0.9, "beta2": 0.99, "eps": 1e-3}
    for decay in (0.1, 0.0):
        ops.lamb_step(a, b, c, c, **numbers, decay=decay, step=2)
    ops.adamw_step(a, b, c, c, **numbers, decay=0.1, step=2)
    ops.rmsprop_step(a, b, c, c, **numbers, decay=0.1)
    ops.clip_norm_step(a, most=1.0)
    ops.clip_value_step(a, most=0.01)
    ops.clip_units_step(a, b, most=0.01)
    ops.statistics_step(given(64), given(64), given(2, 64), count=9, new=0.1)
    ops.muon_step(a, b, c, groups=1, lr=0.1)
    moved(given.machine)
    ops.muon_step(*(given(16, 4, 3, 3) for _ in range(3)), groups=4, lr=0.1)
    moved(given.machine, ROWS)


# --- float16 --------------------------------------------------------------------------------------


# A thread copies eight values one by one, since three channels fill no 16 bytes: neighbours load
# what lies 16 bytes apart, two of them a sector.
FIRST = {"tensor_128x64x32_18": (2.3, WAVEFRONTS)}


@pytest.mark.parametrize(
    "case",
    [
        Conv("first", (1, 12, 12, 3), 64, 7, 2, 3, epilogue="bias relu"),
        Conv("1x1", (1, 8, 8, 64), 64, epilogue="bias residual relu"),
        Conv("width 8", (1, 6, 7, 128), 128, 3, 1, 1, 16, "bias relu"),
        Conv("width 16, dilated", (1, 6, 7, 128), 128, 3, 1, 2, 8, dilation=2),
    ],
    ids=lambda case: case.name,
)
def test_convolutions_in_float16(case: Conv):
    machine = counting(1)
    halves.three(CudaBackend(machine, "float16"), case)
    moved(machine, FIRST)


def test_everything_else_in_float16():
    given = Inputs("float16")
    ops, x = given.ops, given(2, 6, 8, 64)
    vectors = [given(64, of="float32") for _ in range(3)]
    ops.relu(ops.add(x, x))
    ops.batch_norm(x, *vectors, ops.upload(np.ones(64, np.float32)))
    ops.max_pool2d(x, size=3, stride=2, padding=1)
    ops.avg_pool2d(x, size=2, stride=2)
    ops.blur_pool(x)
    ops.excite(x, given(2, 1, 1, 64), x, relu=True)
    ops.linear(ops.mean_pool(x), given(40, 64), given(40, of="float32"))
    moved(given.machine)


# --- what is over is found ------------------------------------------------------------------------


def test_a_kernel_that_moves_too_much_is_found():
    given = Inputs()
    given.ops.mean_pool(given(1, 8, 8, 3))
    with pytest.raises(AssertionError, match="mean_pool"):
        moved(given.machine)
