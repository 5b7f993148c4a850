"""The model file: one HDF5 file with weights, architecture, preprocessing, labels and provenance.

`store` writes, reads and checks it; start there. `contents` says what a model is and how its
description becomes JSON, `digest` computes the digests, `layout` writes the HDF5, through `sink`,
and `places` finds every part in a file before a byte is allocated for it. The room knows networks,
and how images are prepared. `reading` checks a file and reads it, and `weights` are its tensors,
which can be freed and read again. `integers` has what is different for quantised models.
"""
