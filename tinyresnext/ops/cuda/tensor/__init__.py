"""Convolutions of fewer bits: float16 and bfloat16 on tensor cores, 8 bits in `integer`.

Read `words.tensor` (the instruction), `pairs` (how the weight is laid out) and `product`.
"""
