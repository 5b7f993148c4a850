"""Kernels as PTX, executed in NumPy: slow, and every access is watched.

Read `machine`, then `parse` (instructions), `write` (the Python made of them), `registers`, `walk`
(which threads run next), `run` (one launch), `memory` and `watch` (what is known of each word).
"""

from .machine import PtxMachine as PtxMachine
