"""Measure the network's speed against the limits of this machine, and compile kernels in advance.

`bench` measures everything, with `measure` for networks and layers and `inputs` for their weights
and images; `tables` prints the results; `processor` names the processor and measures the load of
other processes. `warm` compiles. The room reaches a device only through
`tinyresnext.ops.contract`.
"""
