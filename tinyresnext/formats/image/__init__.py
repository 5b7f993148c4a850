"""Image files as bytes: what the pixels need, and which way up they are.

`jpeg`, `png`, `gif`, `webp` and `tiff` take a file apart without decoding it: they return it
without its metadata, as `parts`, and the metadata that say how the image is turned, which
`orientation` reads. They refuse what has more parts than an image needs.
"""
