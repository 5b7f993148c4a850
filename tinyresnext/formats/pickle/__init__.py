"""Pickles as data: an interpreter for the opcodes of checkpoints. It imports and calls nothing.

`vocabulary` says what a kind of pickle may name and what the names mean; `machine` interprets the
opcodes with a vocabulary, and `builder` builds with a `stack`, from the bytes that `source` reads
and `texts` understands; `scan` looks first which objects are asked for again. There are two
vocabularies: `names` for PyTorch's checkpoints, where `dangerous` says which names are refused, and
`arrays` for NumPy's arrays of bytes.
"""
