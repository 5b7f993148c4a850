"""How long compiling takes, and what the user sees of it.

`parts` compiles what only kernels call once, as parts of these; `ahead` lets other processes
compile some kernels (`process` is what they run); `watch` tells what compiles. `identity` is what
compiled code depends on.
"""
