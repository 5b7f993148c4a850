"""File formats of others as bytes, with none of our meaning in them. Each reader refuses what it does not know.

`hdf5` reads the part of HDF5 that h5py and Keras write, `stored_zip` zip archives without
compression, `tar` the archives of data sets, and `pickle` the pickles in checkpoints.
"""
