"""The losses of training, and their gradients: cross entropy of a softmax, and of sigmoids.

A warp has one sample; its threads share the classes, as in a softmax. Read `labels` (what both
share), then `softmax` and `binary`.
"""
