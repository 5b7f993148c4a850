"""Zip archives, such as PyTorch's checkpoints and NumPy's ``.npz``: read strictly, written plainly.

`records` has the records of the format, `directory` reads the central directory, `reader` checks
each member against it and reads its data, `writer` writes stored (uncompressed) members.

The section numbers are those of PKWARE's APPNOTE.TXT 6.3.10.
"""
