"""Pickles as data: an interpreter for the opcodes of checkpoints. It imports and calls nothing.

`vocabulary` says what a kind of pickle may name and what the names mean; `machine` interprets the
opcodes with a vocabulary, and `builder` builds with a `stack`, from the bytes that `source` reads;
`scan` looks first which objects are asked for again. There are three vocabularies: `names` for
PyTorch's checkpoints, where `tensors` describes tensors and `dangerous` says which names are
refused, and in `arrays` one for NumPy's arrays of bytes and one for Paddle's arrays of weights.
"""
