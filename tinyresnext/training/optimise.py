"""What training does to the weights: the first values, the step of SGD, running statistics, the average, mixup.

All values of a network lie in one flat array, and the names are views into it: what is done to each
of millions of values is a few passes over pieces that stay in the processor's cache, and a
checkpoint is a few arrays.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping

import numpy as np

from ..network.resnext import parameters
from ..network.spec import Spec
from .recipes import Recipe

Views = dict[str, np.ndarray]
PIECE = (
    1 << 15
)  # values: with weight, gradient, momentum and two scratch arrays, some 640 KiB, which level 2 of most caches holds
# PyTorch's and Torch7's: the share of the new batch in running statistics
MOMENTUM_OF_STATISTICS = 0.1


def views(flat: np.ndarray, spec: Spec) -> Views:
    """Every parameter of the network as a part of one flat array, in the order of `tinyresnext.network.resnext.parameters`.

    Parameters
    ----------
    flat : [size(spec)]
    """
    found, start = {}, 0
    for name, shape in parameters(spec).items():
        count = math.prod(shape)
        found[name] = flat[start : start + count].reshape(shape)
        start += count
    return found


def size(spec: Spec) -> int:
    """How many values all parameters have together, running statistics among them."""
    return sum(map(math.prod, parameters(spec).values()))


def initialise(
    params: Views, spec: Spec, recipe: Recipe, only: Collection[str] | None = None
) -> None:
    """Draw the first weights, in place; see `Recipe` for the distributions.

    Parameters
    ----------
    params : dict of str to array
        As `views` makes it.
    only : collection of str, optional
        The names of those that are drawn; by default, all.
    """
    rng = np.random.default_rng([recipe.seed, 0])
    for name, value in params.items():
        if only is not None and name not in only:
            continue
        if value.ndim == 4:  # the fan out counts all filters, whatever the groups, in both systems
            c_out, _, k_h, k_w = value.shape
            value[...] = rng.normal(0, math.sqrt(2 / (c_out * k_h * k_w)), value.shape)
        elif name.startswith("fc.") and not (name == "fc.bias" and recipe.init == "facebook"):
            bound = 1 / math.sqrt(params["fc.weight"].shape[1])
            value[...] = rng.uniform(-bound, bound, value.shape)
        else:
            value[...] = 1 if name.endswith((".weight", ".running_var")) else 0
        if recipe.zero_gamma and name.startswith("layer") and name.endswith(".bn3.weight"):
            value[...] = 0


class SGD:
    """Stochastic gradient descent with momentum, as ``torch.optim.SGD`` defines it, in place.

    ``m = momentum * m + g``, with ``g`` the gradient plus ``weight_decay`` times the weight; the
    weight loses ``lr * m``, or with Nesterov ``lr * (g + momentum * m)``.

    Parameters
    ----------
    params : dict of str to array
        The weights, which change in place.
    velocity : dict of str to array
        The momentum's memory, of the same names and shapes; zeros at the beginning.
    recipe : Recipe
    """

    def __init__(self, params: Views, velocity: Views, recipe: Recipe) -> None:
        self.params, self.velocity, self.recipe = params, velocity, recipe
        self._scratch = np.empty((2, PIECE), np.float32)

    def __call__(self, gradients: Mapping[str, np.ndarray], lr: float) -> None:
        """One step. ``gradients`` has a float32 array for every name that is trained."""
        for name, gradient in gradients.items():
            decayed = (
                self.recipe.decay_all or gradient.ndim > 1
            )  # norms have vectors, and so has the classifier's bias
            decay = self.recipe.weight_decay if decayed else 0.0
            for w, g, m in _pieces(self.params[name], gradient, self.velocity[name]):
                self._update(w, g, m, decay, lr)

    def _update(self, w: np.ndarray, g: np.ndarray, m: np.ndarray, decay: float, lr: float) -> None:
        """One piece: eight passes over what the cache holds."""
        step, ahead = self._scratch[:, : len(w)]
        np.multiply(w, decay, out=step)
        step += g
        m *= self.recipe.momentum
        m += step
        if self.recipe.nesterov:
            np.multiply(m, self.recipe.momentum, out=ahead)
            step += ahead
            step *= lr
        else:
            np.multiply(m, lr, out=step)
        w -= step


def update_statistics(
    params: Views,
    statistics: Mapping[str, tuple[np.ndarray, np.ndarray]],
    positions: Mapping[str, int],
) -> None:
    """Move the running statistics towards those of the last batch, in place, as PyTorch does.

    Parameters
    ----------
    statistics : mapping of str to pair of arrays
        For each batch norm, the mean and the biased variance of the batch.
    positions : mapping of str to int
        For each, how many values those are of: the running variance is the unbiased one, and of a
        single value the biased.
    """
    new = MOMENTUM_OF_STATISTICS
    for name, (mean, variance) in statistics.items():
        count = positions[name]
        unbiased = variance * (count / max(count - 1, 1))
        for part, value in (("running_mean", mean), ("running_var", unbiased)):
            running = params[f"{name}.{part}"]
            running *= 1 - new
            running += new * value


def update_average(average: np.ndarray, flat: np.ndarray, decay: float, updates: int) -> None:
    """Move the average of all values towards the present ones, in place.

    Parameters
    ----------
    average, flat : [size]
    decay : float
        What remains of the average. It begins lower, ``(1 + updates) / (10 + updates)``, so that
        the first weights, which know nothing, are soon forgotten.
    updates : int
        How many there were before.
    """
    new = 1 - min(decay, (1 + updates) / (10 + updates))
    scratch = np.empty(PIECE, np.float32)
    for a, w in _pieces(average, flat):
        difference = np.subtract(w, a, out=scratch[: len(w)])
        difference *= new
        a += difference


def mix(
    x: np.ndarray, labels: np.ndarray, classes: int, alpha: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Mixup (Zhang et al. 2018): each picture with its neighbour in the batch, in one proportion drawn from Beta(alpha, alpha).

    Parameters
    ----------
    x : [n, h, w, c] float32
    labels : [n] integers

    Returns
    -------
    x : [n, h, w, c] float32
    labels : [n, classes] float32
        The same mixture of the labels.
    """
    kept = np.float32(rng.beta(alpha, alpha))
    targets = np.zeros((len(labels), classes), np.float32)
    targets[np.arange(len(labels)), labels] = 1
    mixed = kept * x
    mixed += (1 - kept) * np.roll(x, 1, axis=0)
    return mixed, kept * targets + (1 - kept) * np.roll(targets, 1, axis=0)


def _pieces(*arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Arrays of one size, cut into flat pieces that a cache holds."""
    flat = [array.reshape(-1) for array in arrays]
    for start in range(0, flat[0].size, PIECE):
        yield tuple(one[start : start + PIECE] for one in flat)
