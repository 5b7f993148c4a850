"""Muon: momentum, norms, Newton-Schulz steps and the update, all on the device.

The formulas and their constants are those of `tinyresnext.ops.reference.update`. A norm is a sum of
squares in parts: a warp sums a part, and who needs the norm adds the parts, in the same order.
"""

from __future__ import annotations

import math
from functools import cache

from numba import cuda

from ...reference.update import LEAST_NORM, MUON_MOMENTUM, NEWTON_SCHULZ, NEWTON_SCHULZ_STEPS
from ..elementwise import EACH, THREADS, blocks_of, narrowed, widened
from ..runtime.arrays import DeviceArray, check, scratch
from ..runtime.call import Call
from ..runtime.kernel import Kernel, float32, floats, int32
from ..runtime.machine import Launch
from ..words import warp_sum
from ..words.whole import quotient
from .products import Matrices, product

WARP = 32
PART, MOST_PARTS = 2048, 256  # values of a part, about, and parts of a group
SECTOR = 8  # values that a GPU moves at once
SMALL = 3 * SECTOR  # larger groups touch few sectors more than they fill, wherever they begin

# --- kernels --------------------------------------------------------------------------------------


@cache
def momentum_kernel() -> Kernel:
    """Return the kernel of Nesterov's momentum: the velocity, and the gradient that looks ahead."""

    def run(gradient, velocity, ahead, momentum, count):
        first = int32(cuda.blockIdx.x * int32(THREADS * EACH) + cuda.threadIdx.x)
        for k in range(EACH):
            i = int32(first + int32(k * THREADS))
            if i < count:
                v = velocity[i] * momentum + gradient[i]
                velocity[i] = v
                ahead[i] = gradient[i] + momentum * v

    return Kernel("muon_momentum", run, (floats, floats, floats, float32, int32), THREADS)


@cache
def squares_kernel() -> Kernel:
    """Return the kernel of the sum of squares of each part of each group."""

    def run(values, sums, length, part, parts):
        group, total = quotient(int32(cuda.blockIdx.x), parts), float32(0)
        begin = int32((int32(cuda.blockIdx.x) - int32(group * parts)) * part)
        first, last = int32(int32(group * length) + begin), int32(int32(group * length) + length)
        if begin + part < length:
            last = int32(first + part)
        i = int32(int32(first & int32(-SECTOR)) + int32(cuda.threadIdx.x))  # a sector begins there
        while i < last:
            if i >= first:
                total += values[i] * values[i]
            i = int32(i + int32(WARP))
        total = warp_sum(total)
        if int32(cuda.threadIdx.x) == int32(0):
            sums[int32(cuda.blockIdx.x)] = total

    return Kernel("muon_squares", run, (floats, floats, int32, int32, int32), WARP)


@cache
def norms_kernel(FACTORS: bool = False) -> Kernel:
    """Return the kernel of the norm of each group, a warp for each: the root of its parts' sum.

    Or of the factors that give each group the norm that it had ``before``.
    """

    def run(sums, before, norms, least, parts):
        start, total = int32(int32(cuda.blockIdx.x) * parts), float32(0)
        i = int32(cuda.threadIdx.x)
        while i < parts:
            total += sums[int32(start + i)]
            i = int32(i + int32(WARP))
        total = warp_sum(total)
        if int32(cuda.threadIdx.x) == int32(0):
            norm = float32(math.sqrt(total))
            if FACTORS:
                norm = before[int32(cuda.blockIdx.x)] / (norm + least)
            norms[int32(cuda.blockIdx.x)] = norm

    name = "muon_factors" if FACTORS else "muon_norms"
    return Kernel(name, run, (floats, floats, floats, float32, int32), WARP)


@cache
def divide_kernel() -> Kernel:
    """Return the kernel that divides a group's values by its norm, ``least`` more than it is."""

    def run(values, norms, least, length, count):
        first = int32(cuda.blockIdx.x * int32(THREADS * EACH) + cuda.threadIdx.x)
        for k in range(EACH):
            i = int32(first + int32(k * THREADS))
            if i < count:
                values[i] /= norms[quotient(i, length)] + least

    return Kernel("muon_divide", run, (floats, floats, float32, int32, int32), THREADS)


@cache
def move_kernel() -> Kernel:
    """Return the kernel of ``weight -= rate * norm * direction``."""

    def run(weight, direction, norms, rate, length, count):
        first = int32(cuda.blockIdx.x * int32(THREADS * EACH) + cuda.threadIdx.x)
        for k in range(EACH):
            i = int32(first + int32(k * THREADS))
            if i < count:
                weight[i] -= rate * norms[quotient(i, length)] * direction[i]

    return Kernel("muon_move", run, (floats, floats, floats, float32, int32, int32), THREADS)


@cache
def rescale_kernel() -> Kernel:
    """Return the kernel that multiplies each group by its factor."""

    def run(weight, factors, length, count):
        first = int32(cuda.blockIdx.x * int32(THREADS * EACH) + cuda.threadIdx.x)
        for k in range(EACH):
            i = int32(first + int32(k * THREADS))
            if i < count:
                weight[i] *= factors[quotient(i, length)]

    return Kernel("muon_rescale", run, (floats, floats, int32, int32), THREADS)


# --- launches -------------------------------------------------------------------------------------


def norms(
    values: DeviceArray, groups: int, before: DeviceArray | None = None
) -> tuple[list[Launch], DeviceArray]:
    """Return the launches that compute the norm of each group's values, and where these will be.

    With the norms that groups had ``before``, it is the factors that give them these again. Small
    groups that may touch more sectors than they fill are filled up with zeros first.
    """
    length, launches = values.size // groups, []
    if groups > 1 and length < SMALL and length % SECTOR not in (0, math.gcd(length, SECTOR)):
        wide = -(-length // SECTOR) * SECTOR
        narrow, values = values, scratch(values.machine, (groups, wide))
        launches, length = [widened(narrow, values, length, wide)], wide
    parts = max(1, min(MOST_PARTS, length // PART))
    part = -(-length // (parts * SECTOR)) * SECTOR
    sums = scratch(values.machine, (groups * parts,))
    found = scratch(values.machine, (groups,))
    kernel, numbers = norms_kernel(before is not None), (float(LEAST_NORM), parts)
    return [
        *launches,
        Launch(squares_kernel(), groups * parts, (values, sums, length, part, parts)),
        Launch(kernel, groups, (sums, before, found, *numbers)),
    ], found


def newton_schulz(
    x: DeviceArray, groups: int, rows: int, columns: int
) -> tuple[list[Launch], DeviceArray]:
    """Return the launches that make matrices of norm 1 orthogonal, and where the result will be.

    The smaller of the two products of a matrix and its transpose is taken.
    """
    short, long, high = min(rows, columns), max(rows, columns), rows > columns
    gram, square, other = (
        scratch(x.machine, (groups, *shape))
        for shape in ((short, short), (short, short), (rows, columns))
    )
    first, second, third = NEWTON_SCHULZ
    launches = []

    def wide(array: DeviceArray) -> Matrices:
        given = Matrices(array, rows * columns, columns, 1)
        return given.transposed if high else given

    small = Matrices(gram, short * short, short, 1), Matrices(square, short * short, short, 1)
    for _ in range(NEWTON_SCHULZ_STEPS):
        of, to = wide(x), wide(other)
        launches += [
            product(of, of.transposed, small[0], (groups, short, short, long)),
            product(
                small[0], small[0], small[1], (groups, short, short, short), third, second, gram
            ),
            product(small[1], of, to, (groups, short, long, short), 1.0, first, x),
        ]
        x, other = other, x
    return launches, x


def orthogonal(
    x: DeviceArray, groups: int, rows: int, columns: int
) -> tuple[list[Launch], DeviceArray]:
    """As `newton_schulz`, with matrices filled up to whole sectors: zeros change no product.

    Rows are filled up only where products are as wide as there are rows; one, two or four stay.
    """
    wide, high = (-(-side // SECTOR) * SECTOR for side in (columns, rows))
    high = rows if rows > wide or SECTOR % rows == 0 else high
    launches: list[Launch] = []
    back, matrices = [], x
    for narrow, filled in ((columns, wide), (rows * wide, high * wide)):
        if narrow < filled:
            before, lines = matrices, matrices.size // narrow
            matrices = scratch(x.machine, (lines, filled))
            launches.append(widened(before, matrices, narrow, filled))
            back.append((before, narrow, filled))
    steps, found = newton_schulz(matrices, groups, high, wide)
    launches += steps
    for before, narrow, filled in reversed(back):
        launches.append(narrowed(found, before, narrow, filled))
        found = before
    return launches, found


# --- public function ------------------------------------------------------------------------------


def muon_step(
    weight: DeviceArray, gradient: DeviceArray, velocity: DeviceArray, *, groups: int, lr: float
) -> None:
    """Make one step of Muon: a few products of matrices, and passes over memory."""
    machine = check("muon_step", weight=weight, gradient=gradient, velocity=velocity)
    count, rows = weight.size, weight.shape[0] // groups
    length, ahead, blocks = count // groups, scratch(machine, weight.shape), blocks_of(count)
    least = float(LEAST_NORM)
    to_norm_ahead, norm_ahead = norms(ahead, groups)
    to_norm, norm = norms(weight, groups)
    steps, direction = orthogonal(ahead, groups, rows, length // rows)
    to_factors, factors = norms(weight, groups, norm)
    rate = lr / math.sqrt(rows)
    launches = [
        Launch(momentum_kernel(), blocks, (gradient, velocity, ahead, MUON_MOMENTUM, count)),
        *to_norm_ahead,
        Launch(divide_kernel(), blocks, (ahead, norm_ahead, least, length, count)),
        *steps,
        *to_norm,
        Launch(move_kernel(), blocks, (weight, direction, norm, rate, length, count)),
        *to_factors,
        Launch(rescale_kernel(), blocks, (weight, factors, length, count)),
    ]
    Call(machine, launches)()
