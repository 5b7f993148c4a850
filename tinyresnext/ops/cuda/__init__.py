"""The same functions on a GPU, by `numba.cuda`. What the ops mean: `tinyresnext.ops.shapes`."""
