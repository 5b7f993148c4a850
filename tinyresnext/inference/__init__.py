"""Predict with a model: load it, classify, evaluate, verify.

`model` is what users hold. `classify` takes many images, `evaluate` counts how often a model is
right, `confusion` draws its mistakes, and `verify` compares a model file with its digests and with
reference logits.
"""
