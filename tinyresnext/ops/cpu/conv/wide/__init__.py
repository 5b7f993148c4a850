"""Groups of any width, and dense kernels larger than 1x1.

`strips` is the forward pass, with `panels` of one to three vectors and the register `tile`; `outer`
is the gradient of the weight, in bfloat16 from words of two positions (`pairs`).
"""
