"""Predict with a model: load it, classify, evaluate, verify.

`model` is what users hold, `inputs` takes the images that they pass, and `files` loads and saves
models. `classify` predicts for many image files; `ensemble` lets several models, or several views
of an image, predict together. `many` is about any number of images. `evaluate` counts how often a
model is right, and `scores` holds the result. `heads` says what outputs mean. `verify` checks a
model file against its digests and reference logits. The room reaches a device only through
`tinyresnext.ops.contract`.
"""
