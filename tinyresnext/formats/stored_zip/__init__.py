"""Zip archives, such as PyTorch's checkpoints and NumPy's ``.npz``: read strictly, written plainly.

`records` has the records of the format, `ends` finds the central directory, `directory` reads its
entries. `reader` checks each member of an archive of tensors and reads its data, `archive` does so
for archives that people pack, whose `names` are kept in few bytes. `writer` writes stored
(uncompressed) members.

The section numbers are those of PKWARE's APPNOTE.TXT 6.3.10.
"""
