"""The ops of inference in PyTorch: an independent computation of reference logits. Needs PyTorch.

Activations are [n, h, w, c] tensors here too; they are permuted for convolutions and poolings.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as f


def conv2d(
    x: Tensor, weight: Tensor, *, stride: int = 1, padding: int = 0, groups: int = 1
) -> Tensor:
    """Convolve, without a bias."""
    return _last(f.conv2d(_first(x), weight, stride=stride, padding=padding, groups=groups))


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


def max_pool2d(x: Tensor, *, size: int, stride: int, padding: int = 0) -> Tensor:
    """Take the largest value of each window."""
    return _last(f.max_pool2d(_first(x), size, stride, padding))


def avg_pool2d(
    x: Tensor, *, size: int, stride: int, ceil_mode: bool, count_include_pad: bool
) -> Tensor:
    """Take the mean of each window."""
    return _last(
        f.avg_pool2d(
            _first(x), size, stride, ceil_mode=ceil_mode, count_include_pad=count_include_pad
        )
    )


def mean_pool(x: Tensor) -> Tensor:
    """Take the mean over height and width."""
    return x.mean((1, 2))


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute a matrix product and add a bias."""
    return f.linear(x, weight, bias)


def upload(array: np.ndarray) -> Tensor:
    """Return an array as a tensor."""
    return torch.from_numpy(np.array(array))


def download(tensor: Tensor) -> np.ndarray:
    """Return a tensor as an array."""
    return tensor.numpy()


def _first(x: Tensor) -> Tensor:
    """Permute to channels before height and width."""
    return x.permute(0, 3, 1, 2)


def _last(x: Tensor) -> Tensor:
    """Permute to channels last."""
    return x.permute(0, 2, 3, 1)
