"""Updates value by value: one pass over memory each."""

from __future__ import annotations

from functools import cache

from numba import cuda

from ..elementwise import EACH, THREADS, blocks_of
from ..runtime.arrays import DeviceArray, check
from ..runtime.call import Call
from ..runtime.kernel import Kernel, float32, floats, int32
from ..runtime.machine import Launch

# --- kernels --------------------------------------------------------------------------------------


@cache
def sgd_kernel() -> Kernel:
    """Return the kernel that updates each weight and its velocity."""

    def run(weight, gradient, velocity, lr, momentum, decay, nesterov, count):
        first = int32(cuda.blockIdx.x * int32(THREADS * EACH) + cuda.threadIdx.x)
        for k in range(EACH):
            i = int32(first + int32(k * THREADS))
            if i < count:
                step = weight[i] * decay + gradient[i]
                v = velocity[i] * momentum + step
                velocity[i] = v
                if nesterov != int32(0):
                    v = step + v * momentum
                weight[i] -= v * lr

    numbers = (float32, float32, float32, int32, int32)
    return Kernel("sgd", run, (floats, floats, floats, *numbers), THREADS)


@cache
def average_kernel() -> Kernel:
    """Return the kernel that moves each average towards its value."""

    def run(average, values, new, count):
        first = int32(cuda.blockIdx.x * int32(THREADS * EACH) + cuda.threadIdx.x)
        for k in range(EACH):
            i = int32(first + int32(k * THREADS))
            if i < count:
                if new == float32(1):
                    average[i] = values[i]
                else:
                    average[i] += (values[i] - average[i]) * new

    return Kernel("average", run, (floats, floats, float32, int32), THREADS)


@cache
def statistics_kernel() -> Kernel:
    """Return the kernel that moves running means and variances; ``statistics`` is ``[mean, var]``.

    ``unbiased`` is what a biased variance is multiplied by.
    """

    def run(mean, var, statistics, unbiased, new, kept, count):
        i = int32(int32(cuda.blockIdx.x) * int32(THREADS) + int32(cuda.threadIdx.x))
        if i < count:
            mean[i] = mean[i] * kept + new * statistics[i]
            var[i] = var[i] * kept + new * (statistics[i + count] * unbiased)

    kinds = (floats, floats, floats, float32, float32, float32, int32)
    return Kernel("statistics", run, kinds, THREADS)


# --- public functions -----------------------------------------------------------------------------


def sgd_step(
    weight: DeviceArray,
    gradient: DeviceArray,
    velocity: DeviceArray,
    *,
    lr: float,
    momentum: float,
    decay: float,
    nesterov: bool,
) -> None:
    """Make one step of stochastic gradient descent in one pass: read three arrays, write two."""
    machine = check("sgd_step", weight=weight, gradient=gradient, velocity=velocity)
    arguments = (weight, gradient, velocity, lr, momentum, decay, int(nesterov), weight.size)
    Call(machine, [Launch(sgd_kernel(), blocks_of(weight.size), arguments)])()


def average_step(average: DeviceArray, values: DeviceArray, *, new: float) -> None:
    """Move an average in one pass: read two arrays, write one."""
    machine, count = check("average_step", average=average, values=values), average.size
    Call(machine, [Launch(average_kernel(), blocks_of(count), (average, values, new, count))])()


def statistics_step(
    mean: DeviceArray, var: DeviceArray, statistics: DeviceArray, *, count: int, new: float
) -> None:
    """Move running statistics in one pass."""
    machine = check("statistics_step", mean=mean, var=var, statistics=statistics)
    unbiased = count / max(count - 1, 1)
    arguments = (mean, var, statistics, unbiased, new, 1 - new, mean.size)
    Call(machine, [Launch(statistics_kernel(), -(-mean.size // THREADS), arguments)])()
