"""Run GPU kernels without a GPU: what Numba compiles for one, executed on the processor.

`fibers` runs a kernel's LLVM at the processor's speed, for whole networks; it needs nothing but
Numba. `ptx` executes the PTX, watches every access and can count; it needs NVIDIA's compiler. Both
run every thread of every block and are a `Machine`, so all of `tinyresnext.ops.cuda` works on them.
Neither says anything about time. This room knows kernels and launches (`ops.cuda.runtime`) and no
op. Read `memory`, then `fibers`, `ptx` and `counters`.
"""
