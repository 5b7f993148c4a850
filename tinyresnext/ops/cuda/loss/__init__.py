"""The softmax, the losses of training, and the gradients of all of these.

A warp has one sample; its threads share the classes, as in a softmax (`head`). Read `labels` (what
both share), then `softmax` and `binary`.
"""
