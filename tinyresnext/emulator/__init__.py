"""Run GPU kernels without a GPU: what Numba compiles for one, executed on the processor.

`check` runs a kernel of `numba.cuda` on NumPy arrays. `fibers` runs a kernel's LLVM at the
processor's speed, for whole networks; it needs nothing but Numba. `ptx` executes the PTX, watches
every access and counts; it needs NVIDIA's compiler. Both run every thread of every block and are a
`Machine`, so all of `tinyresnext.ops.cuda` works on them. Neither says anything about time.
`assembler` shows what NVIDIA's assembler makes of a kernel. This room knows kernels and launches
(`ops.cuda.runtime`) and no op. Read `check`, then `memory`, `fibers`, `ptx` and `counters`. `fault`
is what is raised, `arguments` what a kernel is given, `local` what its own arrays hold before it
writes them, and `compiled` keeps compiled functions on disk.
"""

from .check import check as check
from .fault import KernelFault as KernelFault
