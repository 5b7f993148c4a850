"""AdamW, LAMB and RMSprop: a pass over memory each; LAMB has norms and another pass after it.

The formulas are those of `tinyresnext.ops.reference.update`.
"""

from __future__ import annotations

import math
from functools import cache

from numba import cuda

from ..elementwise import EACH, THREADS, blocks_of
from ..runtime.arrays import DeviceArray, check, scratch
from ..runtime.call import Call
from ..runtime.kernel import Kernel, float32, floats, int32
from ..runtime.machine import Launch
from .muon import norms

# --- kernels --------------------------------------------------------------------------------------


@cache
def adamw_kernel() -> Kernel:
    """Return the kernel that updates each weight and its two moments."""

    def run(
        weight, gradient, velocity, squares, lr, new, beta2, fresh, root, eps, kept, count
    ):  # fmt: skip
        first = int32(cuda.blockIdx.x * int32(THREADS * EACH) + cuda.threadIdx.x)
        for k in range(EACH):
            i = int32(first + int32(k * THREADS))
            if i < count:
                g = gradient[i]
                v = velocity[i] + (g - velocity[i]) * new
                s = squares[i] * beta2 + g * g * fresh
                velocity[i] = v
                squares[i] = s
                weight[i] = weight[i] * kept - v / (math.sqrt(s) / root + eps) * lr

    return Kernel("adamw", run, (floats,) * 4 + (float32,) * 7 + (int32,), THREADS)


@cache
def lamb_kernel() -> Kernel:
    """Return the kernel of the direction of each weight, which updates its two moments."""

    def run(
        weight, gradient, velocity, squares, update,
        scale, new, beta2, fresh, root, eps, decay, count,
    ):  # fmt: skip
        first = int32(cuda.blockIdx.x * int32(THREADS * EACH) + cuda.threadIdx.x)
        for k in range(EACH):
            i = int32(first + int32(k * THREADS))
            if i < count:
                g = gradient[i]
                v = velocity[i] + (g - velocity[i]) * new
                s = squares[i] * beta2 + g * g * fresh
                velocity[i] = v
                squares[i] = s
                update[i] = v * scale / (math.sqrt(s) / root + eps) + weight[i] * decay

    return Kernel("lamb", run, (floats,) * 5 + (float32,) * 7 + (int32,), THREADS)


@cache
def trusted_kernel() -> Kernel:
    """Return the kernel of ``weight -= lr * trust * update``; the trust is 1 where a norm is 0."""

    def run(weight, update, norm, own, lr, count):
        first = int32(cuda.blockIdx.x * int32(THREADS * EACH) + cuda.threadIdx.x)
        ratio = float32(1)
        if norm[int32(0)] > float32(0) and own[int32(0)] > float32(0):
            ratio = norm[int32(0)] / own[int32(0)]
        for k in range(EACH):
            i = int32(first + int32(k * THREADS))
            if i < count:
                weight[i] -= update[i] * ratio * lr

    return Kernel("lamb_trusted", run, (floats,) * 4 + (float32, int32), THREADS)


@cache
def plain_kernel() -> Kernel:
    """Return the kernel of ``weight -= lr * update``."""

    def run(weight, update, lr, count):
        first = int32(cuda.blockIdx.x * int32(THREADS * EACH) + cuda.threadIdx.x)
        for k in range(EACH):
            i = int32(first + int32(k * THREADS))
            if i < count:
                weight[i] -= update[i] * lr

    return Kernel("lamb_plain", run, (floats, floats, float32, int32), THREADS)


@cache
def rmsprop_kernel() -> Kernel:
    """Return the kernel that updates each weight, its velocity and its average of squares."""

    def run(weight, gradient, velocity, squares, lr, momentum, fresh, eps, decay, count):
        first = int32(cuda.blockIdx.x * int32(THREADS * EACH) + cuda.threadIdx.x)
        for k in range(EACH):
            i = int32(first + int32(k * THREADS))
            if i < count:
                g = weight[i] * decay + gradient[i]
                s = squares[i] + (g * g - squares[i]) * fresh
                v = velocity[i] * momentum + g / math.sqrt(s + eps) * lr
                squares[i] = s
                velocity[i] = v
                weight[i] -= v

    return Kernel("rmsprop", run, (floats,) * 4 + (float32,) * 5 + (int32,), THREADS)


# --- public functions -----------------------------------------------------------------------------


def adamw_step(
    weight: DeviceArray,
    gradient: DeviceArray,
    velocity: DeviceArray,
    squares: DeviceArray,
    *,
    lr: float,
    momentum: float,
    beta2: float,
    eps: float,
    decay: float,
    step: int,
) -> None:
    """Make one step of AdamW in one pass: read four arrays, write three."""
    arrays = weight, gradient, velocity, squares
    machine = check(
        "adamw_step", weight=weight, gradient=gradient, velocity=velocity, squares=squares
    )
    count = weight.size
    numbers = lr / (1 - momentum**step), 1 - momentum, beta2, 1 - beta2
    more = math.sqrt(1 - beta2**step), eps, 1 - lr * decay, count
    given = (*arrays, *numbers, *more)
    Call(machine, [Launch(adamw_kernel(), blocks_of(count), given)])()


def lamb_step(
    weight: DeviceArray,
    gradient: DeviceArray,
    velocity: DeviceArray,
    squares: DeviceArray,
    *,
    lr: float,
    momentum: float,
    beta2: float,
    eps: float,
    decay: float,
    step: int,
) -> None:
    """Make one step of LAMB in two passes, with the norms of weight and direction between them."""
    arrays = weight, gradient, velocity, squares
    machine = check(
        "lamb_step", weight=weight, gradient=gradient, velocity=velocity, squares=squares
    )
    count = weight.size
    update, blocks = scratch(machine, weight.shape), blocks_of(count)
    numbers = 1 / (1 - momentum**step), 1 - momentum, beta2, 1 - beta2
    more = math.sqrt(1 - beta2**step), eps, decay, count
    launches = [Launch(lamb_kernel(), blocks, (*arrays, update, *numbers, *more))]
    if decay:
        to_norm, norm = norms(weight, 1)
        to_own, own = norms(update, 1)
        move = Launch(trusted_kernel(), blocks, (weight, update, norm, own, lr, count))
        launches += [*to_norm, *to_own, move]
    else:
        launches.append(Launch(plain_kernel(), blocks, (weight, update, lr, count)))
    Call(machine, launches)()


def rmsprop_step(
    weight: DeviceArray,
    gradient: DeviceArray,
    velocity: DeviceArray,
    squares: DeviceArray,
    *,
    lr: float,
    momentum: float,
    beta2: float,
    eps: float,
    decay: float,
) -> None:
    """Make one step of RMSprop in one pass: read four arrays, write three."""
    arrays = weight, gradient, velocity, squares
    machine = check(
        "rmsprop_step", weight=weight, gradient=gradient, velocity=velocity, squares=squares
    )
    count = weight.size
    given = (*arrays, lr, momentum, 1 - beta2, eps, decay, count)
    Call(machine, [Launch(rmsprop_kernel(), blocks_of(count), given)])()
