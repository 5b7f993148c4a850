"""What the kernels of a GPU move, counted by the emulator: whole sectors, and no bank twice.

``sectors`` over ``ideal_sectors`` may be 1.1, ``wavefronts`` over ``ideal_wavefronts`` 1.25. The
ideal is what the different bytes that a warp asks for would fill.
"""

from __future__ import annotations

import numpy as np
import pytest
import test_cuda_conv as convolutions
import test_cuda_half as halves
from numba import cuda
from op_cases import Conv, ident

from tinyresnext.emulator.ptx import PtxMachine
from tinyresnext.ops.cuda import CudaBackend
from tinyresnext.ops.cuda.conv import gemm
from tinyresnext.ops.cuda.elementwise import accumulate
from tinyresnext.ops.cuda.pool.average import bind_avg_pool2d_backward
from tinyresnext.ops.cuda.runtime.kernel import Kernel, floats, int32
from tinyresnext.ops.cuda.runtime.machine import Launch
from tinyresnext.ops.cuda.update import muon

pytestmark = [pytest.mark.device, pytest.mark.usefixtures("nvvm")]
SECTORS, WAVEFRONTS = 1.1, 1.25
LAYERS = [
    Conv("width 4", (1, 6, 7, 128), 128, 3, 1, 1, 32, "bias relu"),
    Conv("width 8", (1, 6, 7, 256), 256, 3, 1, 1, 32, "bias relu"),
    Conv("width 16", (1, 3, 7, 128), 128, 3, 1, 1, 8),
    Conv("width 32", (1, 3, 7, 128), 128, 3, 1, 1, 4),
    Conv("3x3", (1, 6, 6, 32), 32, 3, 1, 1, epilogue="bias relu"),
    Conv("1x1", (1, 8, 8, 64), 64, epilogue="bias residual relu"),
    Conv("dilated", (1, 6, 6, 64), 32, 3, 1, 2, dilation=2),
    Conv("1x1, stride", (1, 6, 6, 64), 64, 1, 2, epilogue="bias"),
    Conv("3x3, stride", (1, 6, 6, 32), 32, 3, 2, 1),
    Conv("grouped, stride", (1, 6, 6, 128), 128, 3, 2, 1, 32),
    Conv("width 16, stride", (1, 6, 6, 128), 128, 3, 2, 1, 8),
    Conv("first, 3x3", (1, 16, 16, 3), 64, 3, 1, 1, epilogue="bias relu"),
    Conv("first, 7x7", (1, 16, 16, 3), 64, 7, 2, 3, epilogue="bias relu"),
    Conv("width 14", (1, 3, 7, 112), 112, 3, 1, 1, 8, "bias relu"),
    Conv("width 28", (1, 3, 7, 56), 56, 3, 1, 1, 2, "bias relu"),
    Conv("width 4, 5x5", (1, 4, 6, 64), 64, 5, 1, 2, 16, "bias relu"),
    Conv("12 channels, stride", (1, 8, 8, 12), 32, 3, 2, 1),
    # Channels that are no whole sectors.
    Conv("3 to 5", (1, 6, 7, 3), 5, epilogue="bias residual relu"),
    Conv("5 to 10", (1, 6, 7, 5), 10, epilogue="bias relu"),
    Conv("10 to 100", (1, 6, 7, 10), 100, epilogue="bias residual relu"),
    Conv("100 to 50", (1, 6, 7, 100), 50, epilogue="bias residual relu"),
    Conv("50 to 12, stride", (1, 6, 7, 50), 12, 1, 2, epilogue="bias"),
    Conv("3 to 10, 3x3", (1, 6, 7, 3), 10, 3, 1, 1, epilogue="bias residual relu"),
    Conv("12 to 20, 3x3", (1, 6, 7, 12), 20, 3, 1, 1, epilogue="bias residual relu"),
    Conv("50 to 36, 3x3", (1, 6, 7, 50), 36, 3, 1, 1),
    Conv("20 to 50, 3x3, stride", (1, 6, 7, 20), 50, 3, 2, 1, epilogue="bias relu"),
    Conv("100 to 3, 3x3, stride", (1, 6, 7, 100), 3, 3, 2, 1, epilogue="bias"),
    Conv("130 to 5, 3x3, stride", (1, 6, 7, 130), 5, 3, 2, 1),
    Conv("3 to 10, stride", (1, 16, 13, 3), 10, 1, 2),
    Conv("20 to 50, 4x4, stride", (1, 6, 7, 20), 50, 4, 2, 1),
    Conv("50 to 12, 2x2, stride", (1, 6, 7, 50), 12, 2, 2),
    Conv("dilated, 12 to 20", (1, 6, 7, 12), 20, 3, 1, 2, 1, "bias residual relu", dilation=2),
    Conv("dilated, 3 to 5", (1, 16, 13, 3), 5, 3, 1, 2, dilation=2),
    # Pixels of half a sector: lines of an odd length, few filters, strides that leave pixels out.
    Conv("3 to 10, 3x3, stride", (1, 16, 13, 3), 10, 3, 2, 1),
    Conv("3 to 64, 3x3, stride", (2, 14, 22, 3), 64, 3, 2, 1, epilogue="bias relu"),
    Conv("4 to 8, 3x3, stride", (2, 14, 22, 4), 8, 3, 2, 1),
    Conv("3 to 8, 3x3, stride 4", (4, 16, 25, 3), 8, 3, 4, 1),
    Conv("3 to 32, 2x2, stride", (2, 14, 22, 3), 32, 2, 3),
    Conv("2 to 16, 4x4, stride", (1, 9, 17, 2), 16, 4, 4),
    Conv("2 to 32, 5x3, stride", (3, 17, 12, 2), 32, (5, 3), 2, 1),
    # Groups that are no whole sectors, or that have fewer filters than channels.
    Conv("groups of 2 filters", (1, 16, 13, 10), 10, 3, 1, 1, 5, "bias"),
    Conv("groups of 4, 4x4, stride", (1, 9, 10, 12), 12, 4, 2, 1, 3),
    Conv("groups of 5 to 4", (2, 10, 20, 15), 12, 1, 1, 0, 3, "residual"),
    Conv("groups of 28 to 4", (1, 18, 23, 84), 12, 2, 1, 0, 3),
    # Weights that are turned in shared memory.
    Conv("groups of 4, 2x2", (1, 16, 13, 8), 8, 2, 2, 0, 2),
    Conv("groups of 28, 1x2", (1, 6, 7, 56), 56, (1, 2), 2, 0, 2),
    Conv("groups of 12, 2x3", (1, 8, 9, 36), 36, (2, 3), 1, 0, 3),
    Conv("4 to 12, 3x3", (1, 9, 13, 4), 12, 3),
    Conv("4 to 12, 4x4", (1, 9, 10, 4), 12, 4),
    Conv("4 to 8, 3x7", (2, 9, 13, 4), 8, (3, 7)),
    Conv("3 to 8, 5x5", (1, 9, 13, 3), 8, 5),
]


def moved(machine: PtxMachine) -> None:
    """Check what each kernel has moved since the last time, and forget it."""
    for name, found in machine.counters.items():
        assert found.sectors <= SECTORS * found.ideal_sectors, name
        assert found.wavefronts <= WAVEFRONTS * found.ideal_wavefronts, name
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


@pytest.mark.parametrize("case", LAYERS, ids=ident)
def test_convolutions(case: Conv):
    machine = counting()
    convolutions.conv2d(machine, case)
    convolutions.gradients(machine, case)
    moved(machine)


@pytest.mark.parametrize("tile", gemm.TILES, ids=str)
@pytest.mark.parametrize("kernel", [1, 3])
def test_every_tile_of_a_product(tile, kernel: int, monkeypatch):
    """Of cases this small, eight processors would choose the two smallest alone."""
    monkeypatch.setattr(gemm, "TILES", {tile: 1.0})
    machine = counting(1)
    convolutions.conv2d(machine, convolutions.tile_case(kernel))
    moved(machine)


# --- everything else ------------------------------------------------------------------------------


def norms(given: Inputs, *shape: int) -> None:
    ops, channels = given.ops, shape[-1]
    x, vectors = given(*shape), [given(channels) for _ in range(3)]
    var = ops.upload(np.ones(channels, np.float32))
    given.forth_and_back("batch_norm", x, *vectors, var, eps=1e-5)
    statistics = ops.empty((2, channels))
    for residual in (None, given(*shape)):
        given.forth_and_back(
            "batch_norm_train", x, *vectors[:2], residual, eps=1e-5, relu=True,
            statistics=statistics,
        )  # fmt: skip
    moved(given.machine)


@pytest.mark.parametrize("channels", [64, 3, 5, 36, 50, 130])
def test_norms_and_elementwise_ops(channels: int):
    given = Inputs()
    ops, shape = given.ops, (2, 16, 16, channels)
    x = given(*shape)
    given.forth_and_back("relu", x)
    ops.machine.launch(accumulate(given(*shape), x, True))
    ops.machine.launch(accumulate(given(*shape), x, False))
    norms(given, *shape)


@pytest.mark.parametrize("channels", [33, 50, 100])
def test_norms_of_few_positions(channels: int):
    norms(Inputs(), 1, 7, 8, channels)
    given = Inputs("float16")
    vectors = [given(channels, of="float32") for _ in range(3)]
    var = given.ops.upload(np.ones(channels, np.float32))
    given.ops.batch_norm(given(1, 7, 8, channels), *vectors, var)
    moved(given.machine)


@pytest.mark.parametrize("channels", [64, 1, 3, 5, 12, 36, 50, 130])
def test_pools(channels: int):
    given = Inputs()
    ops, (h, w) = given.ops, (12, 16) if channels < 50 else (6, 8)
    x = given(2, h, w, channels)
    for op, *args, attrs in (
        ("max_pool2d", {"size": 3, "stride": 2, "padding": 1}),
        ("avg_pool2d", {"size": 2, "stride": 2}),
        ("blur_pool", {"stride": 2}),
        ("mean_pool", {}),
        ("excite", given(2, 1, 1, channels), given(*x.shape), {"relu": True}),
    ):
        given.forth_and_back(op, x, *args, **attrs)
        moved(ops.machine)
    bind_avg_pool2d_backward(x, x, x, size=1, stride=1, out=[given(*x.shape)], more=[True])()
    moved(ops.machine)


def test_the_classifier_softmax_and_losses():
    given = Inputs()
    for samples, classes, seen in ((2, 40, 128), (10, 40, 128), (16, 10, 128), (2, 10, 50)):
        x, labels = given(samples, classes), np.arange(samples) % classes
        given.forth_and_back("linear", given(samples, seen), given(classes, seen), given(classes))
        given.forth_and_back("softmax", x)
        given.forth_and_back("softmax_cross_entropy", x, labels=labels)
        rows = np.zeros((samples, classes), np.float32)
        given.forth_and_back("binary_cross_entropy", x, labels=rows)
    moved(given.machine)


@pytest.mark.parametrize("samples", [2, 20])
def test_a_classifier_of_three_inputs(samples: int):
    given = Inputs()
    given.forth_and_back("linear", given(samples, 3), given(100, 3), given(100))
    moved(given.machine)


@pytest.mark.parametrize(("samples", "classes"), [(40, 3), (30, 23), (16, 37), (12, 100)])
def test_losses_of_any_number_of_classes(samples: int, classes: int):
    given = Inputs()
    x, rows = given(samples, classes), np.zeros((samples, classes), np.float32)
    given.forth_and_back("softmax", x)
    given.forth_and_back("softmax_cross_entropy", x, labels=rows)
    given.forth_and_back("binary_cross_entropy", x, labels=rows, weights=rows)
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
    moved(given.machine)
    # Rows of 72 and of 36 values, and of 27 in a matrix that is higher than wide; then fifty rows,
    # and two groups, of which the second begins inside a sector.
    shapes = ((64, 8, 3, 3), 1), ((16, 4, 3, 3), 4), ((64, 3, 3, 3), 1)
    for shape, groups in (*shapes, ((50, 50, 1, 1), 1), ((50, 19, 3, 3), 2)):
        ops.muon_step(*(given(*shape) for _ in range(3)), groups=groups, lr=0.1)
        moved(given.machine)


@pytest.mark.parametrize("length", [1, 3, 5, 7, 9, 13, 23, 27, 130])
def test_clipping_of_units_of_any_length(length: int):
    given = Inputs()
    shape = 2000 // length, length
    for most in (1e-6, 1.0, 1e6):  # all of them, about a half, and none
        given.ops.clip_units_step(given(*shape), given(*shape), most=most)
        moved(given.machine)


@pytest.mark.parametrize("length", [3, 5, 7, 23])
def test_muon_of_groups_of_few_values(length: int, monkeypatch):
    monkeypatch.setattr(muon, "NEWTON_SCHULZ_STEPS", 0)
    given = Inputs()
    groups = 1500 // length
    given.ops.muon_step(*(given(groups, length) for _ in range(3)), groups=groups, lr=0.1)
    moved(given.machine)


@pytest.mark.parametrize("classes", [10, 100, 1000])
@pytest.mark.parametrize("samples", [2, 16])
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_classifier_of_any_number_of_classes(precision: str, samples: int, classes: int):
    given = Inputs(precision)
    for seen in (50, 64):
        arrays = given(samples, seen), given(classes, seen), given(classes, of="float32")
        if precision == "float32":
            given.forth_and_back("linear", *arrays)
        else:
            given.ops.linear(*arrays)
    moved(given.machine)


# --- float16 --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "case",
    [
        Conv("first", (1, 12, 12, 3), 64, 7, 2, 3, epilogue="bias relu"),
        Conv("1x1", (1, 8, 8, 64), 64, epilogue="bias residual relu"),
        Conv("width 8", (1, 6, 7, 128), 128, 3, 1, 1, 16, "bias relu"),
        Conv("width 16, dilated", (1, 6, 7, 128), 128, 3, 1, 2, 8, dilation=2),
        Conv("width 4", (1, 6, 7, 128), 128, 3, 1, 1, 32, "bias relu"),
        Conv("width 14", (1, 3, 7, 112), 112, 3, 1, 1, 8, "bias relu"),
        Conv("width 24", (1, 3, 7, 96), 96, 3, 1, 1, 4, "bias relu"),
        Conv("width 4, 5x5", (1, 4, 6, 64), 64, 5, 1, 2, 16, "bias relu"),
        Conv("3 to 5", (1, 6, 7, 3), 5, epilogue="bias residual relu"),
        Conv("5 to 12, 3x3", (1, 6, 7, 5), 12, 3, 1, 1, epilogue="bias relu"),
        Conv("10 to 24", (1, 6, 7, 10), 24, epilogue="bias residual relu"),
        Conv("12 to 20, 3x3, stride", (1, 6, 7, 12), 20, 3, 2, 1, epilogue="bias relu"),
        Conv("20 to 8", (1, 6, 7, 20), 8, epilogue="bias residual relu"),
        Conv("50 to 100", (1, 6, 7, 50), 100, epilogue="bias residual relu"),
        Conv("100 to 10, stride", (1, 6, 7, 100), 10, 1, 2),
        Conv("3 to 10, stride", (1, 16, 13, 3), 10, 1, 2),
        Conv("width 4, 12 channels", (1, 9, 10, 12), 12, 3, 1, 1, 3, "bias residual relu"),
        Conv("dilated, 12 to 20", (1, 6, 7, 12), 20, 3, 1, 2, 1, "bias residual relu", dilation=2),
        Conv("3 to 64, 3x3, stride", (2, 14, 22, 3), 64, 3, 2, 1, epilogue="bias relu"),
        Conv("3 to 16, 2x2, stride", (2, 14, 23, 3), 16, 2, 3),
        Conv("7 to 67, 2x1, stride", (5, 10, 8, 7), 67, (2, 1), 2, 1),
        Conv("groups of 5 to 8", (2, 10, 20, 15), 24, 1, 1, 0, 3, "residual"),
    ],
    ids=ident,
)
def test_convolutions_in_float16(case: Conv):
    machine = counting(1)
    halves.three(CudaBackend(machine, "float16"), case)
    moved(machine)


@pytest.mark.parametrize("case", halves.BRAIN[1:], ids=ident)
def test_convolutions_in_bfloat16(case: Conv):
    """What kernels move does not depend on which type of 16 bits it is: one stands for all."""
    machine = counting(1)
    halves.three(CudaBackend(machine, "bfloat16"), case)
    moved(machine)


@pytest.mark.parametrize("channels", [64, 3, 8, 20, 50])
def test_everything_else_in_float16(channels: int):
    given = Inputs("float16")
    ops, x = given.ops, given(6, 16, 16, channels)
    vectors = [given(channels, of="float32") for _ in range(3)]
    ops.relu(ops.add(x, x))
    ops.batch_norm(x, *vectors, ops.upload(np.ones(channels, np.float32)))
    moved(ops.machine)
    x = given(2, 12, 14, channels)
    for op, *args, attrs in (
        ("max_pool2d", {"size": 3, "stride": 2, "padding": 1}),
        ("avg_pool2d", {"size": 2, "stride": 2}),
        ("blur_pool", {}),
        ("excite", given(2, 1, 1, channels), x, {"relu": True}),
        ("mean_pool", {}),
    ):
        getattr(ops, op)(x, *args, **attrs)
        moved(ops.machine)
    ops.linear(given(2, channels), given(40, channels), given(40, of="float32"))
    moved(ops.machine)


# --- what is over is found ------------------------------------------------------------------------


def test_a_kernel_that_moves_too_much_is_found():
    def run(x, y):
        i = int32(cuda.threadIdx.x)
        y[i] = x[int32(i + i)]

    given = Inputs()
    kernel = Kernel("every_other_value", run, (floats, floats), 256)
    given.machine.launch(Launch(kernel, 1, (given(512), given(256))))
    with pytest.raises(AssertionError, match="every_other_value"):
        moved(given.machine)
