"""Convolutions of the GPU backend on an emulator: every kernel, every way, and what is refused.

`tests/test_ops.py` and `tests/test_backward.py` run the whole list of cases on it (``pytest -m
device``). Here are those that concern only this backend: the choice of tiles, the parts of a long
sum, arrays that begin anywhere. The bounds are those of `test_ops`. What is about addresses, and
the tiles that few processors would not choose, runs on the emulator that is asked for, as there.
"""

from __future__ import annotations

import numpy as np
import pytest
from on_device import by_fibers
from op_cases import Conv, conv_data, gamma, generator, ident, normal, result_shape
from test_backward import conv_case
from test_ops import bounded_conv, inside, wide

from tinyresnext.emulator.fibers.machine import FiberMachine
from tinyresnext.errors import DeviceError
from tinyresnext.ops import reference
from tinyresnext.ops.cuda import backend
from tinyresnext.ops.cuda.conv import gemm, outer
from tinyresnext.ops.cuda.conv.windows import line_of, windows
from tinyresnext.ops.cuda.runtime.arrays import DeviceArray

pytestmark = by_fibers
CASES = (
    Conv("dense 3x3, stride 2", (2, 5, 6, 12), 20, 3, 2, 1, epilogue="bias relu"),
    Conv("grouped 3x3", (1, 5, 9, 16), 16, 3, 1, 1, 4, "bias residual relu"),
    Conv("pointwise, split", (1, 3, 4, 256), 36, epilogue="bias residual relu"),
    Conv("grouped 3x3, stride 2", (2, 5, 6, 24), 48, 3, 2, 1, 3, "bias"),
    Conv("grouped 3x3, stride 3", (1, 7, 7, 16), 8, 3, 3, 1, 2),
    Conv("two slabs of filters", (1, 2, 3, 132), 132, 3, 1, 1, 33, "relu"),
    Conv("depthwise", (1, 4, 5, 5), 5, 3, 1, 1, 5, "bias relu"),
    Conv("few channels, stride 2", (2, 5, 7, 3), 6, 3, 2, 1, epilogue="bias residual relu"),
    Conv("few channels, stride 3", (1, 8, 7, 2), 36, (3, 2), 3, 1),
    Conv("groups of 5 to 4", (1, 3, 5, 15), 12, 1, 1, 0, 3, "bias residual relu"),
    Conv("groups of 12 to 4, 4x2, stride 2", (1, 7, 6, 36), 12, (4, 2), 2, 1, 3),
    Conv("groups of 12, 2x3", (1, 4, 5, 36), 36, (2, 3), 1, 1, 3, "bias"),
)


def machine(**how) -> FiberMachine:
    return FiberMachine(**how)


def conv2d(device: FiberMachine, case: Conv, *, lead: int = 0):
    """Compute a case; every array begins ``lead`` values behind a multiple of 256 bytes."""
    ops, arrays = backend(device), conv_data(case, result_shape(case))
    x, weight, bias, residual = (place(ops, a, lead) for a in arrays)
    out = place(ops, np.full(result_shape(case), np.nan, np.float32), lead)
    relu = "relu" in case.epilogue
    ops.conv2d(x, weight, bias, **case.attrs, residual=residual, relu=relu, out=out)
    return ops.download(out), *bounded_conv(case, *arrays)


def tile_case(kernel: int) -> Conv:
    """Return a case whose tiles are cut on both sides, and end their sums themselves."""
    channels = 40 if kernel == 1 else 12
    end = "bias residual relu"
    return Conv("tile", (1, 10, 15, channels), 136, kernel, 1, kernel // 2, epilogue=end)


def place(ops, array: np.ndarray | None, lead: int) -> DeviceArray | None:
    if array is None:
        return None
    room = ops.upload(np.concatenate([np.full(lead, np.nan, np.float32), array.reshape(-1)]))
    return ops.view(room, array.shape, lead)


def gradients(device: FiberMachine, case: Conv, lead: int = 0):
    """Return the gradients of a case, the right ones, and how far from these float32 may be."""
    ops, (args, y, dy) = backend(device), conv_case(case)
    arrays = (place(ops, a, lead) for a in (dy, y, *args))
    found = ops.conv2d_backward(*arrays, **case.attrs)
    wanted = reference.conv2d_backward(*wide(dy, y, *args), **case.attrs)
    sizes = (None if a is None else np.abs(a) for a in wide(dy, y, *args))
    positions = y.size // y.shape[-1]
    reached = case.c_out // case.groups * case.weight[2] * case.weight[3]
    bounds = reference.conv2d_backward(*sizes, **case.attrs)
    terms = (reached, positions, positions)[: 2 + (args[2] is not None)]
    values = [ops.download(a) for a in found[: len(terms)]]
    limits = [gamma(k + 1) * b for k, b in zip(terms, bounds, strict=False)]
    return values, wanted[: len(terms)], limits


@pytest.mark.parametrize("case", CASES[:2], ids=ident)
def test_a_convolution_of_either_way(case: Conv):
    """One as a matrix product and one directly: the others take longer to compile (`device`)."""
    y, want, bound = conv2d(machine(), case)
    assert inside(y, want, bound)


@pytest.mark.device
@pytest.mark.parametrize("case", CASES[2:], ids=ident)
def test_conv2d(case: Conv):
    y, want, bound = conv2d(machine(), case)
    assert inside(y, want, bound)


@pytest.mark.device
@pytest.mark.parametrize("case", CASES, ids=ident)
def test_gradients(case: Conv):
    for gradient, want, bound in zip(*gradients(machine(), case), strict=True):
        assert inside(gradient, want, bound)


@pytest.mark.device
@pytest.mark.parametrize("case", CASES[:3], ids=ident)
def test_the_order_of_threads_changes_no_bit(case: Conv):
    """A missing barrier or an unawaited copy would."""
    first = machine(order="ascending", copies="early")
    other = machine(order="descending", copies="late")
    assert np.array_equal(conv2d(first, case)[0], conv2d(other, case)[0])
    for a, b in zip(gradients(first, case)[0], gradients(other, case)[0], strict=True):
        assert np.array_equal(a, b)


@pytest.mark.device
@pytest.mark.parametrize("case", CASES, ids=ident)
def test_arrays_may_begin_anywhere(emulated, case: Conv):
    """Weights in training are parts of one flat array; 16 bytes are loaded only where that goes."""
    device = emulated.backend.machine
    y, want, bound = conv2d(device, case, lead=1)
    assert inside(y, want, bound)
    for gradient, want, bound in zip(*gradients(device, case, lead=3), strict=True):
        assert inside(gradient, want, bound)


@pytest.mark.device
@pytest.mark.parametrize("capability", [(7, 5), (9, 0)], ids=str)
def test_other_capabilities(capability):
    for case in CASES[:4]:
        y, want, bound = conv2d(machine(capability=capability), case)
        assert inside(y, want, bound)


@pytest.mark.device
@pytest.mark.parametrize("tile", gemm.TILES, ids=str)
@pytest.mark.parametrize("kernel", [1, 3])
def test_every_tile_of_a_product(emulated, tile, kernel: int, monkeypatch):
    """A part of the depth would be ended by another kernel; one processor makes none."""
    device = emulated.backend.machine
    monkeypatch.setattr(device, "multiprocessors", 1)
    monkeypatch.setattr(gemm, "TILES", {tile: 1.0})
    y, want, bound = conv2d(device, tile_case(kernel))
    assert inside(y, want, bound)


@pytest.mark.device
@pytest.mark.parametrize("tile", outer.TILES, ids=str)
@pytest.mark.parametrize("kernel", [1, 3])
def test_every_tile_of_a_weights_gradient(tile, kernel: int, monkeypatch):
    monkeypatch.setattr(outer, "TILES", (tile,) * 3)
    case = Conv("tile", (3, 10, 15, 36), 132, kernel, 1, kernel // 2, epilogue="bias")
    for gradient, want, bound in zip(*gradients(machine(multiprocessors=16), case), strict=True):
        assert inside(gradient, want, bound)


# --- how work is cut ------------------------------------------------------------------------------


def resnext(n: int, size: int, c_in: int, c_out: int):
    return windows((n, size, size, c_in), (n, size, size, c_out), (1, 1), 1, 0, 1)


@pytest.mark.parametrize(
    ("win", "tile", "parts"),
    [
        (resnext(256, 56, 256, 128), (128, 128, 8, 16), 1),
        (resnext(256, 56, 256, 64), (128, 64, 8, 8), 1),
        (resnext(32, 7, 1024, 2048), (64, 64, 8, 8), 1),
        (resnext(1, 56, 64, 256), (32, 32, 4, 4), 1),
        (resnext(1, 14, 1024, 512), (128, 64, 8, 8), 16),
        (resnext(1, 7, 1024, 2048), (64, 64, 8, 8), 16),
        (resnext(0, 1, 1, 1)._replace(n=1), (32, 32, 4, 4), 1),
    ],
)
def test_tiles_and_parts_for_132_processors(win, tile, parts: int):
    cut = gemm.cut(win, 132)
    assert (cut.tile, cut.parts) == (tile, parts)
    assert cut.parts * cut.steps >= win.depth / 16 > (cut.parts - 1) * cut.steps


def test_every_position_of_a_weights_gradient_is_in_one_part():
    for n in range(1, 40):
        win = resnext(n, 9, 64, 64)
        cut = outer.cut(win, 132)
        assert (cut.parts - 1) * cut.length < win.positions <= cut.parts * cut.length
        assert cut.length % outer.DEEP == 0


# --- lines of the kernel that are filled up -------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "line"),
    [((3, 3), 4), ((2, 3), 4), ((3, 7), 8), ((1, 3), 0), ((2, 2), 0), ((5, 5), 0), ((7, 7), 0)],
)
def test_lines_are_whole_slices_where_that_makes_no_more(kernel, line: int):
    win = windows((1, 9, 9, 3), (1, 9, 9, 8), kernel, 1, 0, 1)
    assert line_of(win, 4) == line
    assert line_of(win._replace(c_in=5), 4) == 0


@pytest.mark.device
@pytest.mark.parametrize("kernel", [(3, 3), (2, 3), (3, 7)])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_pixel_that_is_not_a_number_is_seen_by_its_windows_only(kernel, stride: int, emulated):
    """Not by the taps that fill a line up: they are zero, and zero times that is no number."""
    ops, rng = emulated.backend, np.random.default_rng(0)
    x, weight = (rng.standard_normal(s, np.float32) for s in ((1, 6, 9, 3), (4, 3, *kernel)))
    x[0, 2, 4, 1] = np.nan
    padding = tuple(k // 2 for k in kernel)
    found = ops.conv2d(ops.upload(x), ops.upload(weight), stride=stride, padding=padding)
    want = reference.conv2d(x, weight, stride=stride, padding=padding)
    assert np.array_equal(np.isnan(ops.download(found)), np.isnan(want))


# --- memory ---------------------------------------------------------------------------------------


@pytest.mark.device
def test_calls_of_a_chain_share_the_room_for_what_they_leave_to_themselves():
    """Weights that are laid out again, and parts of long sums: the largest call decides."""
    device = machine()
    ops, taken = backend(device), []
    x, y, large, small = map(
        ops.empty, ((1, 3, 4, 256), (1, 3, 4, 36), (36, 256, 3, 3), (36, 256, 1, 1))
    )
    for array in (x, large, small):
        ops.upload(normal(generator("room"), *array.shape), array)
    allocate = device.allocate
    device.allocate = device.room = lambda size: taken.append(size) or allocate(size)
    calls = [ops.bind("conv2d", x, small, out=y), ops.bind("conv2d", x, large, padding=1, out=y)]
    tables = sum(taken)
    run = ops.chain(calls)
    assert 4 * large.size <= taken[-1] == sum(taken) - tables
    run()
    chained, taken[:] = ops.download(y), []
    calls[1]()
    assert not taken
    assert np.array_equal(chained, ops.download(y))
    assert np.array_equal(chained, ops.download(ops.conv2d(x, large, padding=1)))


# --- what is refused ------------------------------------------------------------------------------


class Shaped:
    def __init__(self, *shape: int) -> None:
        self.shape = shape


def test_more_values_than_kernels_count_are_refused():
    with pytest.raises(DeviceError, match="smaller mini-batch"):
        windows((3000, 112, 112, 64), (3000, 112, 112, 64), (1, 1), 1, 0, 1)
    with pytest.raises(DeviceError, match="padding"):
        windows((1, 1, 1, 1), (1, 3, 3, 1), (1, 1), 2**30, 2**30, 1)
    with pytest.raises(DeviceError, match="wider"):
        windows((1, 1, 2**15, 1), (1, 1, 1, 1), (1, 2**15), 1, 0, 1)


def test_a_weight_packed_for_other_groups_is_refused():
    ops = backend(machine())
    x, weight = ops.empty((1, 3, 3, 8)), ops.empty((8, 4, 3, 3))
    packed = ops.pack(weight, 2)
    assert packed.shape == (8, 4, 3, 3)
    with pytest.raises(ValueError, match=r"c_in must be groups \* 4"):
        ops.conv2d(x, packed)
    with pytest.raises(ValueError, match="multiple of groups"):
        ops.pack(weight, 3)


@pytest.mark.device
def test_a_packed_weight_makes_the_same_bits():
    case = CASES[1]
    ops, (x, weight, bias, residual) = backend(machine()), conv_data(case, result_shape(case))
    x, weight, bias, residual = map(ops.upload, (x, weight, bias, residual))
    attrs = {**case.attrs, "residual": residual, "relu": True}
    want = ops.download(ops.conv2d(x, weight, bias, **attrs))
    packed = ops.pack(weight, case.groups)
    assert np.array_equal(ops.download(ops.conv2d(x, packed, bias, **attrs)), want)


# --- the classifier -------------------------------------------------------------------------------


SIZES = ((2, 135, 5), (1, 136, 4), (9, 20, 7), (0, 4, 3), (2, 0, 3))  # n, c_in, c_out


@pytest.mark.device
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_linear(sizes):
    n, c_in, c_out = sizes
    rng, ops = generator(sizes), backend(machine())
    arrays = normal(rng, n, c_in), normal(rng, c_out, c_in), normal(rng, c_out)
    dy = normal(rng, n, c_out)
    x, weight, bias, up = map(ops.upload, (*arrays, dy))
    want, bound = reference.linear(*wide(*arrays)), reference.linear(*wide(*map(np.abs, arrays)))
    assert inside(ops.download(ops.linear(x, weight, bias)), want, gamma(c_in + 1) * bound)
    found = ops.linear_backward(up, up, x, weight, bias)
    wanted = reference.linear_backward(*wide(dy, dy, *arrays))
    bounds = reference.linear_backward(*(np.abs(a) for a in wide(dy, dy, *arrays)))
    for gradient, want, bound, k in zip(found, wanted, bounds, (c_out, n, n), strict=True):
        assert inside(ops.download(gradient), want, gamma(k + 1) * bound)
