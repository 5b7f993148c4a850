"""Validation images that are also trained on: what is measured with them says too much."""

from __future__ import annotations

import hashlib
import os

from ...data.dataset import Dataset

__all__ = ["said_of_seen"]


def said_of_seen(dataset: Dataset, validation: Dataset | None) -> str:
    """Return a warning of validation images that are also trained on, nothing where there are none.

    Images that are in memory are compared by their pixels, as they were decoded. Others are
    compared by their paths, which a copy of a file does not have.
    """
    if validation is None:
        return ""
    in_memory = dataset.in_memory and validation.in_memory
    if not in_memory and not (dataset.root and validation.root):
        return ""
    find = _digests if in_memory else _paths
    known = set(find(dataset))
    seen = [i for i, one in enumerate(find(validation)) if one in known]
    if not seen:
        return ""
    how, verb = "pixels" if in_memory else "path", "is" if len(seen) == 1 else "are"
    return (
        f"{len(seen):,} of the {len(validation):,} validation images {verb} also trained on, with "
        f"the same {how}, such as {validation.names[seen[0]]!r:.200}: the accuracy says too much; "
        "take them out of one of the two"
    )


def _digests(images: Dataset) -> list[bytes]:
    """Return a digest of the pixels of each image, and of their shape."""
    found = []
    for i in range(len(images)):
        pixels = images.picture(i)
        digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
        digest.update(pixels.tobytes())
        found.append(digest.digest())
    return found


def _paths(images: Dataset) -> list[str]:
    """Return the whole path of each image; links below the root are not followed."""
    root = os.path.realpath(images.root)
    return [os.path.join(root, name) for name in images.names]
