"""Data sets whose images are in memory as pixels: none is decoded.

`cifar` and `mnist` read archives as they are published, and `arrays` takes the caller's. `checks`
says what no data set can be made of.
"""
