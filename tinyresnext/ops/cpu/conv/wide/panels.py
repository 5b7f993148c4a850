"""Panels of any width: how many vectors each has, and where they are.

The vectors of a group's filters are divided among panels of two vectors, and one of three where
their number is odd: 5 vectors are 3 + 2. So at most two kinds of tiles are in one kernel, and only
lanes of the last vector can be idle.
"""

from __future__ import annotations

from ...runtime.kernel import part
from ...runtime.simd import machine


def divided(width: int) -> tuple[int, int, int, int]:
    """Return the panels of a group, how many are of the larger kind, and the vectors of both."""
    vectors = -(-width // machine().lanes)
    panels = max(1, vectors // 2)
    smaller, full = divmod(vectors, panels)
    return (panels, full, smaller + 1, smaller) if full else (panels, panels, smaller, smaller)


@part(inline=True)
def panel_of(g, panel):
    """Return how many vectors of a group are before a panel, and how many it has."""
    before = panel * g.larger - max(0, panel - g.full) * (g.larger - g.smaller)
    return before, g.larger if panel < g.full else g.smaller
