"""A mistake of each kind in each kernel of convolutions: the emulator names it, or a value is off.

A line of a module is changed, the module is made again from that, and takes the place of the right
one. Where the emulator of PTX says nothing, the result must lie outside its bound.
"""

from __future__ import annotations

import inspect
import sys
from types import ModuleType

import numpy as np
import pytest
import test_cuda_conv as right
from op_cases import Conv

from tinyresnext.emulator.fault import KernelFault
from tinyresnext.emulator.ptx import PtxMachine
from tinyresnext.ops.cuda import backend, linear
from tinyresnext.ops.cuda.conv import (
    backward,
    fold,
    forward,
    gemm,
    grouped,
    grouped_outer,
    interlaced,
    outer,
    pack,
)

pytestmark = [pytest.mark.device, pytest.mark.usefixtures("nvvm")]
DENSE = Conv("dense", (2, 5, 6, 8), 20, 3, 1, 1, epilogue="bias residual")  # 4.5 slices, one part
ODD = Conv("odd", (2, 5, 6, 3), 21, 3, 1, 1, epilogue="bias residual")
SPLIT = Conv("split", (1, 3, 4, 256), 36, epilogue="bias residual")
DIRECT = Conv("direct", (1, 5, 9, 16), 24, 3, 1, 1, 2, "bias residual")
STRIDE = Conv("stride", (1, 5, 6, 3), 20, 3, 2, 1)
UNEVEN = Conv("strides", (1, 6, 6, 16), 24, 3, (3, 2), 1)
SECTORS = Conv("rows of whole sectors", (1, 5, 6, 16), 24, 1, 2)
BARRIER, WAIT = "            cuda.syncthreads()\n", "            copies_done()\n"
RACE, COPY, OUT = "another thread|copy", "copy", "an access to byte"

# The module, where it is used, what is changed to what, the case, and what is said of it.
FORWARD = [
    (gemm, "product", BARRIER, "", DENSE, RACE),
    (gemm, "product", WAIT, "", DENSE, COPY),
    (gemm, "product", "and uint32(left[i] + (tap & 65535)) < uint32(w)", "", DENSE, None),
    (gemm, "product", "offset >= 0\n                            and ", "", DENSE, None),
    (gemm, "product", "b_inside = o0 + column_b < wide", "b_inside = True", DENSE, OUT),
    (gemm, "product", "if m0 + ty + 4 * i < positions:", "if True:", DENSE, OUT),
    (gemm, "product", "first = int32(int32(part) * steps)", "first = int32(0)", SPLIT, None),
    (gemm, "product", "load4_if(residual, into, add != 0, 16)",
     "load4_if(residual, into + 4, add != 0, 16)", DENSE, None),
    (grouped, "direct", BARRIER, "", DIRECT, RACE),
    (grouped, "direct", WAIT, "", DIRECT, COPY),
    (grouped, "direct", "seen = inside and uint32(left + j) < uint32(w)", "seen = inside", DIRECT,
     None),
    (grouped, "direct", "tile < uint32(tiles) and o < c_out", "o < c_out", DIRECT, None),
    (grouped, "direct", "and column + p < w_out:", ":", DIRECT, None),
    (pack, "columns_kernel", "        cuda.syncthreads()\n", "", DENSE, RACE),
    (pack, "columns_kernel", "if column < wide:", "if True:", DENSE, RACE),
    (pack, "columns_kernel", "if lane < filters and c < here:", "if lane < filters:", ODD, None),
    (pack, "slabs_kernel", "cuda.syncthreads()\n        slab,", "slab,", DIRECT, RACE),
    (pack, "slabs_kernel", "if o < uint32(filters):", "if True:", DIRECT, OUT),
]  # fmt: skip
BACKWARD = [
    (outer, "outer", BARRIER, "", DENSE, RACE),
    (outer, "outer", WAIT, "", DENSE, COPY),
    (outer, "outer", "inside = wanted and m < last", "inside = wanted", DENSE, None),
    (outer, "outer", "if o < width and k < depth:", "if True:", DENSE, None),
    (grouped_outer, "grouped_outer", BARRIER, "", DIRECT, RACE),
    (grouped_outer, "grouped_outer", "if turn > 0:", "if turn > 1:", DIRECT, None),
    (grouped_outer, "grouped_outer", "strip = int32(strip + WARPS)", "strip = int32(strip + 5)",
     DIRECT, None),
    (interlaced, "join", "        cuda.syncthreads()\n", "", STRIDE, RACE),
    (interlaced, "join", "s[int32(to + 1)] = u[1]", "s[int32(to + 1)] = u[2]", STRIDE, None),
    (interlaced, "join", "a, b = int32(a - d_h)", "a, b = int32(a - d_w)", UNEVEN, None),
    (interlaced, "join", "there = a < k_h and b < k_w", "there = True", SECTORS, None),
]  # fmt: skip
FOLD = [
    (
        "channels",
        "s[thread] = total\n        cuda.syncthreads()\n",
        "s[thread] = total\n",
        DENSE,
        RACE,
    ),
    ("channels", "row = int32(row + LINES)", "row = int32(row + 9)", DENSE, None),
    ("sums", "for _ in range(parts):", "for _ in range(1, parts):", SECTORS, None),
    ("weight", "for _ in range(parts):", "for _ in range(1, parts):", DENSE, None),
    ("weight", "        cuda.syncthreads()\n", "", DENSE, RACE),
    ("slabs", "cuda.syncthreads()\n        for step", "for step", DIRECT, RACE),
    ("slabs", "if o < c_out:", "if True:", DIRECT, OUT),
]
CLASSIFIER = [
    ("        if o < c_out:\n            left", "        if True:\n            left", OUT),
    ("total = warp_sum(total)", "total = total", None),
    ("k = int32(k + 128)", "k = int32(k + 256)", None),
]


def changed(module: ModuleType, old: str, new: str, monkeypatch, of: str = "") -> ModuleType:
    """Return a module of the same name with its first such line changed, or that of a function."""
    source = inspect.getsource(module)
    part = inspect.getsource(getattr(module, of)) if of else source
    assert old in part, f"{of or module.__name__} has no {old!r}"
    made = ModuleType(module.__name__)
    made.__file__, made.__package__ = module.__file__, module.__package__
    monkeypatch.setitem(sys.modules, module.__name__, made)
    source = source.replace(part, part.replace(old, new, 1))
    exec(compile(source, module.__file__, "exec"), vars(made))
    return made


def faulty(found, said: str | None) -> None:
    """Compute; pass where the emulator says what is wrong, or a value is."""
    if said is not None:
        with pytest.raises(KernelFault, match=said):
            found()
        return
    try:
        values = found()
    except KernelFault:
        return
    assert not all(right.inside(*three) for three in values), "the values are right all the same"


@pytest.mark.parametrize(("module", "name", "old", "new", "case", "said"), FORWARD)
def test_a_mistake_forward_is_found(module, name, old, new, case, said, monkeypatch):
    made = changed(module, old, new, monkeypatch)
    monkeypatch.setattr(module if module is pack else forward, name, getattr(made, name))
    faulty(lambda: [right.conv2d(PtxMachine(), case)], said)


@pytest.mark.parametrize(("module", "name", "old", "new", "case", "said"), BACKWARD)
def test_a_mistake_backward_is_found(module, name, old, new, case, said, monkeypatch):
    made = changed(module, old, new, monkeypatch)
    monkeypatch.setattr(backward, name, getattr(made, name))
    machine = PtxMachine(multiprocessors=2)
    faulty(lambda: zip(*right.gradients(machine, case), strict=True), said)


@pytest.mark.parametrize(("name", "old", "new", "case", "said"), FOLD)
def test_a_mistake_in_a_sum_is_found(name, old, new, case, said, monkeypatch):
    made = changed(fold, old, new, monkeypatch, f"{name}_kernel")
    monkeypatch.setattr(fold, f"{name}_kernel", getattr(made, f"{name}_kernel"))
    faulty(lambda: zip(*right.gradients(PtxMachine(), case), strict=True), said)


ROWS = [
    ("for _ in range(parts):", "for _ in range(1, parts):", SPLIT, None),
    ("        cuda.syncthreads()\n", "", ODD, RACE),
    ("if within < width and into", "if into", ODD, RACE),
]


@pytest.mark.parametrize(("old", "new", "case", "said"), ROWS)
def test_a_mistake_in_the_rows_of_a_result_is_found(old, new, case, said, monkeypatch):
    made = changed(fold, old, new, monkeypatch, "rows_kernel")
    monkeypatch.setattr(fold, "rows_kernel", made.rows_kernel)
    faulty(lambda: [right.conv2d(PtxMachine(), case)], said)


@pytest.mark.parametrize(("old", "new", "said"), CLASSIFIER)
def test_a_mistake_in_the_classifier_is_found(old, new, said, monkeypatch):
    made = changed(linear, old, new, monkeypatch)
    ops = backend(PtxMachine())
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s).astype(np.float32) for s in ((1, 300), (5, 300), (5,))]

    def found():
        y = ops.download(made.linear(*map(ops.upload, arrays)))
        want = arrays[0].astype(np.float64) @ arrays[1].T.astype(np.float64) + arrays[2]
        size = np.abs(arrays[0]).astype(np.float64) @ np.abs(arrays[1]).T + np.abs(arrays[2])
        return [(y, want, right.gamma(301) * size)]

    faulty(found, said)
