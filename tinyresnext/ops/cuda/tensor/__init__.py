"""Convolutions in float16 on tensor cores.

Read `words.tensor` (the instruction), `pairs` (how the weight is laid out) and `product`.
"""
