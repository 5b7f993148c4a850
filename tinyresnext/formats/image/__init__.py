"""Image files as bytes: what the pixels need, and which way up they are.

`png`, `jpeg` and `tiff` take a file apart without decoding it: they return it without its metadata,
and the metadata that say how the image is turned, which `orientation` reads.
"""
