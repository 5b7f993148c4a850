"""Pickles as data: an interpreter for the opcodes of checkpoints. It imports and calls nothing.

`vocabulary` says what a kind of pickle may name and what the names mean; `machine` interprets the
opcodes with a vocabulary, a `stack`, and the bytes that `source` reads. There are two vocabularies:
`names` for PyTorch's checkpoints, `arrays` for NumPy's arrays of bytes.
"""
