"""Pickles as data: an interpreter for the opcodes that checkpoints use. It imports nothing and calls nothing.

`machine` interprets, `names` says what the few known globals mean, and `arrays` reads NumPy's
arrays.
"""
