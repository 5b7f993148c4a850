"""How kernels run on the CPU: compiled, kept on disk, and shared among threads.

Read `kernel` (how a function becomes a kernel), `crew` (how threads share its tasks) and `launch`
(on which threads). `cache` keeps compiled kernels, `compiling` shortens compiling and tells of it,
`simd` emits vector instructions, `memory` places arrays, `cores` counts cores, and `peak` measures
limits. `tasks` makes a kernel of a function whose tasks several threads share.
"""
