"""The first weights of a network: drawn at random, and the filters of the stem from the images.

Neighbouring pixels are nearly the same, so nine tenths of the variance of a patch of 3 x 3 pixels
is one number, its brightness, and random filters all respond to that. The eigenvectors of the
patches' covariance (about zero, which is nearly the mean of normalised images) respond to one thing
each, independent of the others; divided by the square root of its variance, all respond equally. A
network that begins so learns faster from the first step on (Page 2019, "How to train your ResNet",
part 8; Jordan 2024, "94% on CIFAR-10 in 3.29 seconds", section 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..data.loader import Loader
from ..errors import UsageError
from ..images.checks import whole_number
from ..images.preprocess import Preprocess
from ..inference.model import Model
from ..network.resnext import parameters
from ..network.spec import Spec, check_spec, variant
from ..ops import backend
from ..store.weights import Weights
from .recipes import Recipe, recipe
from .recipes.parts import Start
from .samples.augmentation import unchanged, usual_preprocess
from .setting import Setting
from .weights import size, views

# As a part of the mean variance: directions that vary less are noise of camera and compression,
# which must not be made as strong as the rest.
LEAST_VARIANCE = 1e-3


def random_model(
    spec: Spec | str,
    seed: int = 0,
    device: str = "cpu",
    threads: int | None = None,
    *,
    preprocess: Preprocess | None = None,
    labels: Sequence[str] | None = None,
) -> Model:
    """Return a network with random weights, as they are before training.

    Parameters
    ----------
    spec : Spec or str
        The network, or the name of an architecture, such as ``resnext50_32x4d``.
    seed : int
        The random seed, at least 0.
    device, threads
        As in `tinyresnext.load`.
    preprocess : Preprocess, optional
        By default that of CIFAR for the stems "cifar" and "pooled", else ImageNet's.
    labels : sequence of str, optional
        The names of the classes; by default ``class 0`` and so on.

    Raises
    ------
    UsageError
        There is no such architecture, or ``spec`` is none; the seed is below 0; the network has
        another number of classes than there are labels; or the device cannot use that many threads.
    DeviceError
        There is no such device.
    """
    if isinstance(spec, str):
        spec = variant(spec)
    spec, seed = check_spec(spec), whole_number("seed", seed, 0)
    names = tuple(labels or (f"class {number}" for number in range(spec.labels)))
    if not all(isinstance(name, str) for name in names):
        raise UsageError(f"labels is {labels!r}; expected a text for each class")
    if len(names) != spec.labels:
        raise UsageError(f"there are {len(names)} labels for {spec.labels} classes; give one each")
    usual = recipe("torchvision-v1")
    params = {name: np.empty(shape, np.float32) for name, shape in parameters(spec).items()}
    initialise(params, usual.start, seed)
    ops = backend(device)
    prepared = preprocess or usual_preprocess(spec, usual)
    origin = {"source": f"random weights, seed {seed}"}
    return Model(spec, Weights(params), prepared, names, origin, ops, ops.thread_count(threads))


def initialise(
    params: Mapping[str, np.ndarray],
    start: Start,
    seed: int,
    only: Collection[str] | None = None,
) -> None:
    """Draw the first weights, in place.

    Parameters
    ----------
    params : mapping of str to array
        Named and shaped as `tinyresnext.network.resnext.parameters` says.
    start : Start
        Has the distributions.
    seed : int
        The random seed.
    only : collection of str, optional
        The names of those that are drawn; by default, all.
    """
    rng = np.random.default_rng([seed, 0])
    for name, value in params.items():
        if only is not None and name not in only:
            continue
        if value.ndim == 4:  # the fan out counts all filters, whatever the groups, in all systems
            c_out, _, k_h, k_w = value.shape
            value[...] = rng.normal(0, math.sqrt(2 / (c_out * k_h * k_w)), value.shape)
        elif name == "fc.weight" and start.init == "mmpretrain":
            value[...] = rng.normal(0, 0.01, value.shape)
        elif name == "fc.weight" or (name == "fc.bias" and start.init == "torchvision"):
            bound = 1 / math.sqrt(params["fc.weight"].shape[1])
            value[...] = rng.uniform(-bound, bound, value.shape)
        else:
            value[...] = 1 if name.endswith((".weight", ".running_var")) else 0
        if start.zero_gamma and name.startswith("layer") and name.endswith(".bn3.weight"):
            value[...] = 0


def weights_to_finetune(
    model: Model, spec: Spec, recipe: Recipe, classes: tuple[str, ...]
) -> tuple[np.ndarray, str]:
    """Return the first values of a network that trains a model further, and what to say of them.

    The classifier is that of the model, if it is for the same classes, or begins anew.
    """
    values, classifier = np.zeros(size(spec), np.float32), ("fc.weight", "fc.bias")
    params, kept = views(values, spec), spec == model.spec and tuple(classes) == model.labels
    initialise(params, recipe.start, recipe.seed, only=classifier)
    for name in params.keys() - (() if kept else classifier):
        params[name][...] = model.params[name]
    if kept:
        return values, "the model has these classes already, so its classifier is trained further"
    return values, "the model has other classes or another head, so its classifier begins anew"


def some_images(setting: Setting, seed: int) -> np.ndarray:
    """Return a few hundred random images, as the finished model would see them."""
    count, images = min(len(setting.dataset), 512), unchanged(setting.preprocess)
    with Loader(setting.dataset, images, batch=count, seed=seed, broken=setting.broken) as loader:
        return next(loader.epoch(0))[0]


def whitened(kernel: NDArray[np.float32], images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the kernel of a first convolution with whitening filters in place of its first ones.

    Each direction comes twice, as it is and negated, since a ReLU lets only one half of its
    responses through. Directions that vary by less than a thousandth of the mean are left out.

    Parameters
    ----------
    kernel : float32 [c_out, c_in, k_h, k_w]
        It is not changed; filters for which there is no direction stay as they were drawn.
    images : float32 [n, h, w, c_in]
        Normalised, at least k_h x k_w.

    Returns
    -------
    float32 [c_out, c_in, k_h, k_w]

    Raises
    ------
    UsageError
        The images are smaller than that.
    """
    c_out, c_in, k_h, k_w = kernel.shape
    if images.shape[1] < k_h or images.shape[2] < k_w:
        raise UsageError(
            f"the images are {images.shape[2]} x {images.shape[1]} pixels and the first filters "
            f"{k_w} x {k_h}: give --no-whiten (whiten=False), or larger images"
        )
    size = c_in * k_h * k_w
    total, count = np.zeros((size, size)), 0
    for image in images:
        windows = np.lib.stride_tricks.sliding_window_view(image, (k_h, k_w), axis=(0, 1))
        patches = windows.reshape(-1, size).astype(float)
        total += patches.T @ patches
        count += len(patches)
    variances, directions = np.linalg.eigh(total / count)  # the smallest first
    kept = min(c_out // 2, np.count_nonzero(variances > LEAST_VARIANCE * variances.mean()))
    lengths = np.sqrt(np.maximum(variances, np.finfo(float).tiny))
    filters = (directions / lengths).T[::-1][:kept]
    found = kernel.copy()
    found[: 2 * kept] = np.concatenate([filters, -filters]).reshape(2 * kept, c_in, k_h, k_w)
    return found
