"""A dilated convolution as one without dilation, of images that each have every few pixels.

With a dilation of d, a result reads places that lie d apart, so results of one remainder modulo d
read places of one remainder only. An image is therefore split into the d x d images of equal
remainders of line and column. All of them go through the ordinary convolution as one mini-batch,
and the results are put back in their places. No kernel of convolutions needs to know of it. Where
the sides are no multiple of d, the smaller images are filled up with zeros, which are what lies
outside an image anyway.
"""

from __future__ import annotations

from typing import NamedTuple

from ..checks import Shape
from ..shapes.conv import parts_shape
from .runtime.crew import Step
from .runtime.memory import Array
from .runtime.simd import copy, stored, value
from .runtime.tasks import finished, in_tasks, next_task


class Interlaced(NamedTuple):
    """The numbers of splitting an image, and of joining its parts."""

    n: int
    h: int
    w: int
    c: int
    d_h: int
    d_w: int
    lines: int  # of a part
    columns: int
    add: int  # 1 where the parts are added to what is there
    tasks: int


# --- kernels --------------------------------------------------------------------------------------


@in_tasks(Interlaced)
def _split(x, out, g, counters):
    """Copy every few pixels; a task is a line of a part."""
    task = next_task(counters)
    while task < g.tasks:
        part, line = divmod(task, g.lines)
        remainder, n = divmod(part, g.n)
        a, b = divmod(remainder, g.d_w)
        y = line * g.d_h + a
        for column in range(g.columns):
            z, at = column * g.d_w + b, (task * g.columns + column) * g.c
            if y < g.h and z < g.w:
                copy(x, ((n * g.h + y) * g.w + z) * g.c, out, at, g.c)
            else:
                out[at : at + g.c] = 0
        task = next_task(counters)
    finished(counters)


@in_tasks(Interlaced)
def _join(parts, out, g, counters):
    """Copy or add the pixels of all parts to their places; a task is a line of the image."""
    task = next_task(counters)
    while task < g.tasks:
        n, y = divmod(task, g.h)
        line, a = divmod(y, g.d_h)
        for z in range(g.w):
            column, b = divmod(z, g.d_w)
            part = (a * g.d_w + b) * g.n + n
            source = ((part * g.lines + line) * g.columns + column) * g.c
            at = (task * g.w + z) * g.c
            if g.add:
                for c in range(g.c):
                    out[at + c] = stored(value(out[at + c]) + value(parts[source + c]), out)
            else:
                copy(parts, source, out, at, g.c)
        task = next_task(counters)
    finished(counters)


# --- steps ----------------------------------------------------------------------------------------


def bind_split(x: Array, shape: Shape, dilation: tuple[int, int], parts: Array) -> Step:
    """Prepare the splitting of flat images of that shape into their parts."""
    count, lines, *_ = parts_shape(shape, dilation)
    return Step(_split, _numbers(shape, dilation, count * lines), x=x, out=parts.reshape(-1))


def bind_join(
    parts: Array, shape: Shape, dilation: tuple[int, int], out: Array, more: bool = False
) -> Step:
    """Prepare the joining of parts to flat images of that shape; ``more`` adds to these."""
    g = _numbers(shape, dilation, shape[0] * shape[1], more)
    return Step(_join, g, parts=parts.reshape(-1), out=out)


def _numbers(shape: Shape, dilation: tuple[int, int], tasks: int, more: bool = False) -> Interlaced:
    """Return the numbers of a kernel."""
    _, lines, columns, _ = parts_shape(shape, dilation)
    n, h, w, c = shape
    return Interlaced(n, h, w, c, *dilation, lines, columns, int(more), tasks)
