"""Data sets of images for training and evaluation.

Start with `open`: it finds out what lies at a path. `folders` (with `zips`), `cifar` and `mnist`
each read one kind of data set; `rules` says what the name of a file or folder means, `listing`
finds images by that, and `tree` splits and classes. `dataset` says what they all return, and
`loader` makes mini-batches of it. The room knows images, not networks.
"""

from .open import open_dataset

__all__ = ["open_dataset"]
