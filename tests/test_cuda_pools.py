"""Poolings on a GPU whose pixels are no whole sectors: what only fills up reaches no result.

Every channel is computed as in an image that has whole sectors, to the bit, also of what is not a
number and of infinities.
"""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest

pytest.importorskip("numba.cuda")

from on_device import by_fibers

from tinyresnext.emulator.fibers.machine import FiberMachine
from tinyresnext.ops.cuda import MODULES, CudaBackend
from tinyresnext.ops.cuda.runtime.arrays import DeviceArray

pytestmark = [pytest.mark.device, by_fibers]
WHOLE = 16  # channels that are whole sectors, also in 16 bits
POOLINGS = [
    ("max_pool2d", {"size": 3, "stride": 2, "padding": 1}),
    ("avg_pool2d", {"size": 2, "stride": 2, "ceil_mode": True, "count_include_pad": False}),
    ("blur_pool", {"stride": 2}),
    ("mean_pool", {}),
    ("excite", {"relu": True}),
]


def values(*shape: int) -> np.ndarray:
    """Return random values, of which some are not a number and some are infinite."""
    rng = np.random.default_rng(shape)
    made = rng.standard_normal(shape, np.float32)
    flat = made.reshape(-1)
    for value in (np.nan, np.inf, -np.inf):
        flat[rng.integers(0, flat.size, flat.size // 50)] = value
    return made


def computed(precision: str, op: str, attrs: dict, channels: int) -> list[np.ndarray]:
    """Return results of the first of `WHOLE` channels, and gradients, also added to something."""
    ops = CudaBackend(FiberMachine("descending"), precision)

    def given(*shape: int) -> DeviceArray:
        array = np.ascontiguousarray(values(*shape[:-1], WHOLE)[..., :channels])
        return ops.upload(array, out=ops.empty(array.shape, precision))

    args = [given(2, 5, 6, channels)]
    if op == "excite":
        args += [given(2, 1, 1, channels), given(2, 5, 6, channels)]
    y = getattr(ops, op)(*args, **attrs)
    found = [ops.download(y)]
    if precision == "float32":
        bind = getattr(import_module(f"tinyresnext.ops.cuda.{MODULES[op]}"), f"bind_{op}_backward")
        for add in (False, True):
            out = [given(*a.shape) for a in args]
            bind(given(*y.shape), y, *args, **attrs, out=out, more=[add] * len(out))()
            found += [ops.download(a) for a in out]
    return found


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("op", "attrs"), POOLINGS, ids=[op for op, _ in POOLINGS])
def test_channels_that_are_no_whole_sectors(op: str, attrs: dict, precision: str):
    want = computed(precision, op, attrs, WHOLE)
    for channels in (1, 3, 13):
        for one, whole in zip(computed(precision, op, attrs, channels), want, strict=True):
            assert np.array_equal(one, whole[..., :channels], equal_nan=True)


@pytest.mark.parametrize(("op", "attrs"), POOLINGS[:3], ids=[op for op, _ in POOLINGS[:3]])
def test_pixels_of_whole_sectors_are_not_copied(op: str, attrs: dict):
    ops = CudaBackend(FiberMachine())
    for channels, launches in ((8, 1), (16, 1), (12, 3)):
        x = ops.upload(values(1, 4, 4, channels))
        y = getattr(ops, op)(x, **attrs)
        assert len(ops.bind(op, x, **attrs, out=y).launches) == launches
