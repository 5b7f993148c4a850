"""Other programs' file formats as bytes, without our meaning. Readers refuse all they do not know.

`dtypes` has the types of numbers under the names of each format. `hdf5` reads the part of HDF5 that
h5py and Keras write, `stored_zip` reads and writes zip archives, `npy` reads NumPy's arrays in
them, `tar` reads the archives of data sets, `pickle` the pickles in checkpoints and data sets,
`lua` the objects of Torch7, and `image` takes image files apart. The room knows the room `system`
and the errors only. `onnx` reads and writes graphs, and `others` knows files that people mistake
for checkpoints.
"""
