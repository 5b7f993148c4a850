"""Convolutions in float16 and bfloat16 on tensor cores.

Read `words.tensor` (the instruction), `pairs` (how the weight is laid out) and `product`.
"""
