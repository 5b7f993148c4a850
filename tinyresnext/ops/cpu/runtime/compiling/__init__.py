"""How long compiling takes, and what the user sees of it.

`parts` compiles what only kernels call once, as parts of these; `watch` tells what compiles.
"""
