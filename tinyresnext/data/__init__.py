"""Data sets of images for training and evaluation.

Start with `open`: it finds out what lies at a path. `folders` (with `zips`), `cifar` and `mnist`
each read one kind of data set, `dataset` says what they all return, and `loader` makes mini-batches
of it. The room knows images, not networks.
"""

from .open import open_dataset

__all__ = ["open_dataset"]
