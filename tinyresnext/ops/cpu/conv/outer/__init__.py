"""The gradient of a 1x1 convolution's weight.

`floats` has the steps and how they are cut, and `tile` the register tile. `words` is for bfloat16,
where the processor multiplies words of two values.
"""
