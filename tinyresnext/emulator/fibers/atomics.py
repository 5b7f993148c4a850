"""Atomics that LLVM has no instruction for, or another one than a GPU.

Fibers take turns only where they wait for each other: so a load, and a store behind it, are one.
"""

from __future__ import annotations

KINDS = (("float", "f32"), ("double", "f64"))
# When the other number is stored. Of what is not a number, Numba's `max` keeps either, and its
# `nanmax` keeps the other one.
CHOICES = {"max": "olt", "min": "ogt", "nanmax": "ult", "nanmin": "ugt"}


def _choice(kind: str, name: str) -> str:
    """Return the definition of the larger or the smaller of two numbers."""
    return f"""
define {kind} @word_{kind}_{name}(ptr %to, {kind} %x) alwaysinline {{
  %before = load {kind}, ptr %to
  %is = fcmp ord {kind} %x, %x
  %wins = fcmp {CHOICES[name]} {kind} %before, %x
  %both = and i1 %is, %wins
  %y = select i1 %both, {kind} %x, {kind} %before
  store {kind} %y, ptr %to
  ret {kind} %before
}}"""


def _change(kind: str, name: str) -> str:
    """Return the definition of a sum or a difference."""
    return f"""
define {kind} @word_{kind}_{name}(ptr %to, {kind} %x) alwaysinline {{
  %before = atomicrmw f{name} ptr %to, {kind} %x monotonic
  ret {kind} %before
}}"""


ATOMIC = "".join(
    [_choice(kind, name) for kind, _ in KINDS for name in CHOICES]
    + [_change(kind, name) for kind, _ in KINDS for name in ("add", "sub")]
)
# What Numba calls them.
ATOMICS = {
    f"___numba_atomic_{kind}_{name}": f"word_{kind}_{name}"
    for kind, _ in KINDS
    for name in (*CHOICES, "add", "sub")
} | {f"llvm.nvvm.atomic.load.add.{short}.p0{short}": f"word_{kind}_add" for kind, short in KINDS}
