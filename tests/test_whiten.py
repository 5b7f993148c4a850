"""The whitening filters: their outputs for patches of the images from which they were computed."""

from __future__ import annotations

import numpy as np
import pytest

from tinyresnext import Spec, recipe
from tinyresnext.data.dataset import Dataset
from tinyresnext.errors import UsageError
from tinyresnext.ops import reference
from tinyresnext.training.initial import LEAST_VARIANCE as LEAST
from tinyresnext.training.initial import whitened
from tinyresnext.training.train import train


def smooth(count: int, side: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Return images whose neighbouring pixels and channels are alike, as in photographs.

    The shape is [count, side, side, channels].
    """
    x = np.random.default_rng(seed).normal(size=(count, side + 4, side + 4, channels))
    for axis in (1, 2):
        x = np.lib.stride_tricks.sliding_window_view(x, 5, axis=axis).mean(-1)
    return (x + 0.5 * x.mean(-1, keepdims=True)).astype(np.float32)


def pictures(count: int, side: int) -> Dataset:
    """The same as a data set of two classes."""
    pixels = (smooth(count, side) * 60 + 120).clip(0, 255).astype(np.uint8)
    names = [f"picture {i}" for i in range(count)]
    return Dataset(("a", "b"), np.arange(count) % 2, names, pixels.__getitem__, pixels)


def answers(kernel: np.ndarray, x: np.ndarray) -> np.ndarray:
    """What the filters say at every place: [places, c_out]."""
    out = reference.conv2d(x.astype(float), kernel.astype(float))
    return out.reshape(-1, len(kernel))


def test_answers_are_independent_and_equally_loud():
    x, drawn = smooth(8, 12), np.random.default_rng(1).normal(size=(64, 3, 3, 3)).astype(np.float32)
    kernel = whitened(drawn, x)
    kept = int((kernel != drawn).any((1, 2, 3)).sum()) // 2
    assert 0 < kept <= 27
    said = answers(kernel[:kept], x)
    # rounding the filters to float32 moves an answer by at most 2**-24 times the filter's weight
    # times the largest pixel
    weight = np.abs(kernel[:kept]).sum((1, 2, 3)).max() * np.abs(x).max()
    tolerance = 2 * weight * 2**-24 * np.abs(said).max() + 1e-9
    assert np.abs(said.T @ said / len(said) - np.eye(kept)).max() <= tolerance
    assert (kernel[kept : 2 * kept] == -kernel[:kept]).all()
    assert (kernel[2 * kept :] == drawn[2 * kept :]).all()
    assert kernel.dtype == np.float32


def test_the_loudest_directions_come_first_and_the_faintest_never():
    rng = np.random.default_rng(2)
    x = np.concatenate(
        [rng.normal(size=(4, 9, 9, 1)), rng.normal(size=(4, 9, 9, 1)) * np.sqrt(LEAST) / 4], -1
    )
    kernel = whitened(np.zeros((8, 2, 1, 1), np.float32), x.astype(np.float32))
    assert (np.abs(kernel[:2, 0, 0, 0]) > 0.5).all()  # the first channel, as it is and negated
    assert not kernel[2:].any()  # the second varies by less than a thousandth


def test_few_filters_take_the_first_directions():
    x = smooth(4, 10)
    many, few = (whitened(np.zeros((count, 3, 3, 3), np.float32), x) for count in (54, 5))
    assert (few[:2] == many[:2]).all()
    assert not few[4].any()  # five filters have room for two pairs


def test_small_pictures_are_refused():
    with pytest.raises(
        UsageError, match="2 x 4 pixels and the first filters 3 x 3: give --no-whiten"
    ):
        whitened(np.zeros((4, 3, 3, 3), np.float32), np.zeros((1, 4, 2, 3), np.float32))


@pytest.mark.parametrize("whiten", [True, False])
def test_training_begins_with_them(whiten, tmp_path):
    dataset = pictures(12, 8)
    chosen = recipe("fast-cifar", epochs=1, batch=4, lr=0.0, weight_decay=0.0, whiten=whiten)
    model = train(
        Spec((1,), 1, 4, 2, stem="cifar"), dataset, chosen, tmp_path / "run", device="reference"
    )
    kernel = model.params["conv1.weight"]
    pairs = [(one == -other).all() for one in kernel for other in kernel]
    assert any(pairs) == whiten
