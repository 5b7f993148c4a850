"""Kernels as PTX, executed in NumPy: slow, and every access is watched.

Read `machine`, then `source` (the Python made of the PTX), `walk` (which threads run next), `run`
(one launch), `places` (where addresses lead), `memory` and `watch` (what is known of each word),
`copies` and `warps`.
"""

from .machine import PtxMachine as PtxMachine
