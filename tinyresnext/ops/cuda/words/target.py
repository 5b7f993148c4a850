"""Which GPU the code that is being compiled is for."""

from __future__ import annotations

from numba.core.targetconfig import ConfigStack


def capability() -> tuple[int, int]:
    """Return the compute capability, such as (8, 0); for use inside an intrinsic."""
    major, minor = ConfigStack().top().compute_capability
    return major, minor
