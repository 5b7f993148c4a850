"""Gradients that are too large are made smaller, in place: norms, and a pass over memory.

The formulas and their constants are those of `tinyresnext.ops.reference.update`.
"""

from __future__ import annotations

from functools import cache

from numba import cuda

from ...reference.update import CLIP_EPS, LEAST_UNIT
from ..elementwise import EACH, THREADS, blocks_of
from ..runtime.arrays import DeviceArray, check
from ..runtime.call import Call
from ..runtime.kernel import Kernel, float32, floats, int32
from ..runtime.machine import Launch
from ..words import shared
from ..words.whole import quotient
from .muon import SECTOR, norms

CHUNK = THREADS * EACH  # values of a block
FEW = 14  # values of a unit; with as many, most of its sectors are its own

# --- kernels --------------------------------------------------------------------------------------


@cache
def clip_norm_kernel() -> Kernel:
    """Return the kernel that scales all values so that their norm is ``most``, if it is larger."""

    def run(values, norm, most, least, count):
        first = int32(cuda.blockIdx.x * int32(THREADS * EACH) + cuda.threadIdx.x)
        scale = most / (norm[int32(0)] + least)
        for k in range(EACH):
            i = int32(first + int32(k * THREADS))
            if i < count and not scale >= float32(1):  # also where the norm is not a number
                values[i] *= scale

    return Kernel("clip_norm", run, (floats, floats, float32, float32, int32), THREADS)


@cache
def clip_value_kernel() -> Kernel:
    """Return the kernel that brings each value between ``-most`` and ``most``."""

    def run(values, most, count):
        first = int32(cuda.blockIdx.x * int32(THREADS * EACH) + cuda.threadIdx.x)
        for k in range(EACH):
            i = int32(first + int32(k * THREADS))
            if i < count:
                value = values[i]
                if value > most:
                    value = most
                if value < -most:
                    value = -most
                values[i] = value

    return Kernel("clip_value", run, (floats, float32, int32), THREADS)


@cache
def clip_units_kernel() -> Kernel:
    """Return the kernel that scales each unit's gradient by the norms of it and of its weights.

    A block has `CHUNK` values of some units that lie side by side, or what is left of them, and
    computes each unit's factor once. A unit whose factor is 1 is neither read nor written, unless
    it has fewer than `FEW` values: then others share its sectors, which are moved whole.
    """

    def run(values, own, norm, most, eps, least, length, units, together, parts):
        factors = shared(CHUNK)
        thread, block = int32(cuda.threadIdx.x), int32(cuda.blockIdx.x)
        lot = quotient(block, parts)
        start = int32(int32(block - int32(lot * parts)) * int32(CHUNK))
        first = int32(lot * together)
        here = int32(together) if units - first > together else int32(units - first)
        for u in range(thread, here, THREADS):
            unit = int32(first + int32(u))
            largest, now, factor = norm[unit], own[unit], float32(1)
            if largest < least:
                largest = least
            largest *= most
            if now >= largest:  # not where a norm is not a number
                if now < eps:
                    now = eps
                factor = largest / now
            factors[u] = factor
        cuda.syncthreads()
        for k in range(EACH):
            i = int32(start + thread + int32(k * THREADS))
            if i < int32(here * length):
                factor = factors[quotient(i, length)]
                if factor != float32(1) or length < int32(FEW):
                    values[int32(int32(first * length) + i)] *= factor

    kinds = (floats,) * 3 + (float32,) * 3 + (int32,) * 4
    return Kernel("clip_units", run, kinds, THREADS)


# --- public functions -----------------------------------------------------------------------------


def clip_norm_step(gradient: DeviceArray, *, most: float) -> None:
    """Scale a gradient to a norm of ``most`` at most."""
    machine, count = check("clip_norm_step", gradient=gradient), gradient.size
    to_norm, norm = norms(gradient, 1)
    given = gradient, norm, most, CLIP_EPS, count
    Call(machine, [*to_norm, Launch(clip_norm_kernel(), blocks_of(count), given)])()


def clip_value_step(gradient: DeviceArray, *, most: float) -> None:
    """Bring each value between ``-most`` and ``most`` in one pass."""
    machine, count = check("clip_value_step", gradient=gradient), gradient.size
    given = gradient, most, count
    Call(machine, [Launch(clip_value_kernel(), blocks_of(count), given)])()


def clip_units_step(gradient: DeviceArray, weight: DeviceArray, *, most: float) -> None:
    """Scale the gradient of each unit to ``most`` times the norm of its weights, at most."""
    machine, count = check("clip_units_step", gradient=gradient, weight=weight), gradient.size
    units = weight.shape[0] if len(weight.shape) > 1 else 1
    to_own, own = norms(gradient, units)
    to_norm, norm = norms(weight, units)
    length = count // units
    # A block has a multiple of eight units, so norms and values are whole sectors, or all units.
    together = min(units, SECTOR * max(1, CHUNK // max(1, SECTOR * length)))
    parts = blocks_of(together * length)
    blocks = units // together * parts + blocks_of(units % together * length)
    numbers = most, CLIP_EPS, LEAST_UNIT, length, units, together, parts
    launch = Launch(clip_units_kernel(), blocks, (gradient, own, norm, *numbers))
    Call(machine, [*to_own, *to_norm, launch])()
