"""First filters that tell the parts of a picture apart: the stem begins with the principal directions of its patches.

Neighbouring pixels are nearly the same, so nine tenths of what a patch of 3 x 3 pixels holds is one
number, its brightness, and filters drawn at random all answer to that. The eigenvectors of the
patches' covariance (about zero, which is nearly the mean of normalised pictures) answer to one
thing each, independent of the others, and divided by the square root of its variance all answer
equally loud. A network that begins so learns faster from the first step on (Page 2019, "How to
train your ResNet", part 8; Jordan 2024, "94% on CIFAR-10 in 3.29 seconds", section 3.2).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError

__all__ = ["whitened"]

# of the mean variance: what varies less is noise of camera and compression, not to be made as loud
# as the rest
LEAST = 1e-3


def whitened(kernel: NDArray[np.float32], pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """The kernel of a first convolution with whitening filters in place of its first ones.

    Each direction comes twice, as it is and negated, since ReLU lets only one half of its answers
    through. Directions that vary by less than a thousandth of the mean are left out.

    Parameters
    ----------
    kernel : float32 [c_out, c_in, k_h, k_w]
        It is left as it is; filters for which there is no direction stay as they are drawn.
    pictures : float32 [n, h, w, c_in]
        As the network sees them, at least k_h x k_w.

    Returns
    -------
    float32 [c_out, c_in, k_h, k_w]

    Raises
    ------
    UsageError
        When the pictures are smaller than that.
    """
    c_out, c_in, k_h, k_w = kernel.shape
    if pictures.shape[1] < k_h or pictures.shape[2] < k_w:
        raise UsageError(
            f"the pictures are {pictures.shape[2]} x {pictures.shape[1]} pixels and the first filters {k_w} x {k_h}: "
            "give --no-whiten (whiten=False), or larger pictures"
        )
    size = c_in * k_h * k_w
    total, count = np.zeros((size, size)), 0
    for picture in pictures:
        patches = (
            np.lib.stride_tricks.sliding_window_view(picture, (k_h, k_w), axis=(0, 1))
            .reshape(-1, size)
            .astype(float)
        )
        total += patches.T @ patches
        count += len(patches)
    variances, directions = np.linalg.eigh(total / count)  # the smallest first
    kept = min(c_out // 2, np.count_nonzero(variances > LEAST * variances.mean()))
    filters = (directions / np.sqrt(np.maximum(variances, np.finfo(float).tiny))).T[::-1][:kept]
    found = kernel.copy()
    found[: 2 * kept] = np.concatenate([filters, -filters]).reshape(2 * kept, c_in, k_h, k_w)
    return found
