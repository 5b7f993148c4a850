"""Products of many small matrices at once: ``a.T @ b``, for Muon.

Both matrices are read row by row, and the depth are their rows: so the register tile of a weight's
gradient computes them (`conv.outer.tile`), and nothing is copied into panels.
"""

from __future__ import annotations

from typing import NamedTuple

from ..conv.gemm import UNROLL, VECTORS
from ..conv.outer.floats import meet
from ..conv.outer.tile import LENGTH
from ..runtime.crew import Step
from ..runtime.memory import Array, empty
from ..runtime.simd import aligned, copy, machine
from ..runtime.tasks import finished, in_tasks, next_task


class Matrices(NamedTuple):
    """Matrices ``[n, rows, columns]`` in an array of their own.

    Rows of zeros follow each of them up to ``deep`` rows, a multiple of what the tile takes at
    once, and the array ends with zeros that the tile may read.
    """

    array: Array  # flat
    n: int
    rows: int
    columns: int
    deep: int

    @property
    def values(self) -> Array:
        """The matrices themselves, a view."""
        every = self.array[: self.n * self.deep * self.columns]
        return every.reshape(self.n, self.deep, self.columns)[:, : self.rows]


def empty_matrices(n: int, rows: int, columns: int) -> Matrices:
    """Return matrices without values."""
    m, deep = machine(), -(-rows // UNROLL) * UNROLL
    size = n * deep * columns
    array = empty((size + max(2 * m.half, VECTORS * m.lanes),))
    array[size:] = 0
    array[:size].reshape(n, deep, columns)[:, rows:] = 0
    return Matrices(array, n, rows, columns, deep)


class Products(NamedTuple):
    """The numbers of the products: the shape of each result, and how it is cut into panels."""

    rows: int
    columns: int
    depth: int  # a multiple of UNROLL
    apart: int  # values from one result to the next
    half: int  # rows of the lower register tile
    panel: int  # columns of a task
    panels: int
    length: int  # of the depth, between two sums in memory
    tasks: int


@in_tasks(Products)
def _products(a, b, out, g, counters):
    """Compute a few columns of one result in a task, from a few rows of both matrices at a time."""
    sums = aligned((g.rows + g.half - 1) // g.half * g.half * g.panel)
    task = next_task(counters)
    while task < g.tasks:
        n, panel = divmod(task, g.panels)
        first, row = panel * g.panel, n * g.depth
        end = row + g.depth
        sums[:] = 0
        while row < end:
            some = min(g.length, end - row)
            meet(
                a, row * g.rows, 2 * g.half, g.rows, b, row * g.columns + first, g.panel,
                g.columns, some, g.rows, g.panel, g.half, g.panel, sums, 0,
            )  # fmt: skip
            row += some
        count = min(g.panel, g.columns - first)
        for r in range(g.rows):
            copy(sums, r * g.panel, out, n * g.apart + r * g.columns + first, count)
        task = next_task(counters)
    finished(counters)


def product(a: Matrices, b: Matrices) -> Matrices:
    """Compute ``a.T @ b`` of each pair; of a symmetric ``a`` that is ``a @ b``."""
    m, out = machine(), empty_matrices(a.n, a.columns, b.columns)
    panel = VECTORS * m.lanes
    panels = -(-b.columns // panel)
    g = Products(
        rows=a.columns,
        columns=b.columns,
        depth=a.deep,
        apart=out.deep * out.columns,
        half=m.half,
        panel=panel,
        panels=panels,
        length=LENGTH,
        tasks=a.n * panels,
    )
    Step(_products, g, a=a.array, b=b.array, out=out.array)()
    return out
