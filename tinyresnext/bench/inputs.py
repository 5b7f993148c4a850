"""Random weights and images to measure with.

Time does not depend on what a network has learned. It does depend on numbers that are so small
(denormals) that the processor computes with them more slowly, so the numbers have usual sizes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..network.plan.quantised import Quantisation, Scale, integer_parts
from ..network.resnext import parameters
from ..network.spec import Spec


def random_parameters(spec: Spec, seed: int = 0) -> dict[str, np.ndarray]:
    """Return random weights as at the beginning of training, and plausible running statistics.

    The weights of convolutions and of the classifier are initialised as in He et al. (2015,
    "Delving Deep into Rectifiers").

    Parameters
    ----------
    spec : Spec
    seed : int
        The random seed: the same one returns the same weights.

    Returns
    -------
    dict
        Every parameter of `tinyresnext.network.resnext.parameters`, float32.
    """
    random, made = np.random.default_rng(seed), {}
    for name, shape in parameters(spec).items():
        value = random.standard_normal(shape, np.float32)
        if len(shape) > 1:  # each convolution, and the classifier
            value *= np.float32(((2.0 if len(shape) == 4 else 1.0) / np.prod(shape[1:])) ** 0.5)
        elif name.endswith("running_var"):
            value = np.float32(1) + np.float32(0.1) * np.abs(value)
        elif name.endswith(".weight"):
            value = np.float32(0.5) + np.float32(0.05) * value
        else:
            value *= np.float32(0.1)
        made[name] = value
    return made


def any_scales(spec: Spec) -> Quantisation:
    """Return the same scale for all values of a network: time does not depend on it."""
    return Quantisation(
        {name: Scale(0.03, "maximum", 0.0) for name in integer_parts(spec).values}, 1
    )


def random_pictures(shape: Sequence[int], seed: int = 1) -> np.ndarray:
    """Return images [n, h, w, c] of normally distributed noise, float32.

    The first images of a mini-batch are the same for every size of mini-batch.
    """
    return np.random.default_rng(seed).standard_normal(shape, np.float32)
