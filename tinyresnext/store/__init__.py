"""The model file: one self-contained HDF5 file with weights, architecture, preprocessing, labels and provenance.

`store` writes and reads it; `layout` says what lies where in the file and checks everything before
a byte is allocated.
"""
