"""Kernels at the processor's speed: Numba's LLVM of a kernel, and its threads as fibers.

Read `machine`, then `program`, `translate` (the LLVM), `words` (what a GPU has and a processor
lacks), `schedule` (which thread runs when) and `stops` (signals). `arithmetic` computes
instructions that LLVM lacks, `atomics` has those of floats, and `tensor` what tensor cores do.
"""

from .machine import FiberMachine as FiberMachine
