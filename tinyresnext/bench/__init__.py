"""Measure what part of this machine's limits the network reaches, and compile kernels before they are needed.

`bench` measures, `tables` prints, `processor` says on what and beside whom. The room reaches a
device only through `tinyresnext.ops.contract`.
"""
