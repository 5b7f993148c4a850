"""What the device functions share: kernels, the machine that runs them, its arrays, bound calls.

Read `kernel` (what is compiled), then `machine` (what a machine can do), `arrays` and `call`.
"""
