"""The ops of inference in PyTorch: an independent computation of reference logits. Needs PyTorch.

Activations are [n, h, w, c] tensors here too; they are permuted for convolutions and poolings.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as f


class Held(Tensor):
    """A tensor that says its type as NumPy does, as the arrays of other backends do."""

    @property
    def dtype(self) -> np.dtype:
        """Return the type of the elements."""
        return np.dtype(str(super().dtype).removeprefix("torch."))


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
    dilation: int = 1,
) -> Tensor:
    """Convolve, and add a bias where there is one."""
    return _last(f.conv2d(_first(x), weight, bias, stride, padding, dilation, groups))


def batch_norm(
    x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, var: Tensor, *, eps: float
) -> Tensor:
    """Normalise with running statistics."""
    return _last(f.batch_norm(_first(x), mean, var, scale, shift, eps=eps))


def relu(x: Tensor) -> Tensor:
    """Replace negative values by zero."""
    return x.relu()


def add(x: Tensor, y: Tensor) -> Tensor:
    """Add two tensors."""
    return x + y


def excite(x: Tensor, s: Tensor) -> Tensor:
    """Multiply each channel of each sample by the sigmoid of its ``s``."""
    return x * s.sigmoid()


def max_pool2d(
    x: Tensor, *, size: int, stride: int, padding: int = 0, ceil_mode: bool = False
) -> Tensor:
    """Take the largest value of each window."""
    return _last(f.max_pool2d(_first(x), size, stride, padding, ceil_mode=ceil_mode))


def avg_pool2d(
    x: Tensor, *, size: int, stride: int, ceil_mode: bool = False, count_include_pad: bool = True
) -> Tensor:
    """Take the mean of each window."""
    return _last(
        f.avg_pool2d(
            _first(x), size, stride, ceil_mode=ceil_mode, count_include_pad=count_include_pad
        )
    )


def blur_pool(x: Tensor, *, stride: int = 2) -> Tensor:
    """Reflect the edges, and filter each channel with ``[1 2 1] x [1 2 1] / 16``."""
    channels, taps = x.shape[3], x.new_tensor((1, 2, 1))
    weight = (torch.outer(taps, taps) / 16).expand(channels, 1, 3, 3)
    padded = f.pad(_first(x), (1, 1, 1, 1), mode="reflect")
    return _last(f.conv2d(padded, weight, stride=stride, groups=channels))


def mean_pool(x: Tensor, *, keepdims: bool = False) -> Tensor:
    """Take the mean over height and width."""
    return x.mean((1, 2), keepdim=keepdims)


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute a matrix product and add a bias."""
    return f.linear(x, weight, bias)


def upload(array: np.ndarray) -> Tensor:
    """Return an array as a tensor."""
    return torch.from_numpy(np.array(array)).as_subclass(Held)


def download(tensor: Tensor) -> np.ndarray:
    """Return a tensor as an array."""
    return tensor.numpy()


def _first(x: Tensor) -> Tensor:
    """Permute to channels before height and width."""
    return x.permute(0, 3, 1, 2)


def _last(x: Tensor) -> Tensor:
    """Permute to channels last."""
    return x.permute(0, 2, 3, 1)
