"""The part of HDF5 that model files and Keras' files use, read without the HDF5 library.

`form` has the numbers of the format, `walker` finds the way through a file of any writer, and
says how such a file is built. `own` reads the files that tinyresnext writes, and nothing else;
`tree` reads what Keras' files need as well: attributes that are lists of texts.
"""
