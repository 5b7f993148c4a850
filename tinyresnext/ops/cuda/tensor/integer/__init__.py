"""Convolutions of integers of 8 bits (`shapes.integer`), by products of four pairs at once.

Read `words.integer` (the instruction, and the arithmetic behind the sums), `pack` (how weights are
laid out), `product` and `grouped` (the kernels), `ends` (what of their results is not stored by
themselves), and `forward` (the op). `rounding` converts values.
"""
