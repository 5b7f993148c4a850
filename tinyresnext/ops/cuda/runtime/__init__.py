"""What the device functions share: kernels, the machine that runs them, its arrays, bound calls.

Read `kernel` (what is compiled), then `machine` (what a machine can do), `arrays` and `call`. `gpu`
is the machine that is a GPU: it speaks to NVIDIA's driver through `library`, copies through
`staging` and records plans as a `graph`. `cache` keeps compiled kernels, and `peak` measures
limits.
"""
