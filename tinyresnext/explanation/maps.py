"""Where in the image the evidence for a class is, and which channels of a stage are strongest."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .recorded import Recorded

__all__ = ["Channel", "class_activation", "grad_cam", "strongest"]


class Channel(NamedTuple):
    """A channel of a stage's output.

    Attributes
    ----------
    number : int
    mean : float
        The mean of its values.
    map : [h, w]
    """

    number: int
    mean: float
    map: np.ndarray

    def __repr__(self) -> str:
        return f"<Channel {self.number}, mean {self.mean:.3g}>"


def class_activation(recorded: Recorded, number: int) -> np.ndarray:
    """Return the class activation map [h, w] of Zhou et al. (2016, Equation 2), in float64.

    The classifier is linear and sees the mean of each channel. So the mean of the map, plus the
    bias of the class, is exactly the logit.
    """
    weight = recorded.model.params["fc.weight"][number].astype(np.float64)
    *_, output = recorded.stages.values()
    last: np.ndarray = recorded.value(output).astype(np.float64)
    return last @ weight


def grad_cam(values: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Return the map [h, w] of Selvaraju et al. (2017, Equations 1 and 2), in float64.

    Each channel is weighted with the mean of its gradient, and what is below zero becomes zero.

    Parameters
    ----------
    values, gradient : [h, w, c]
        The output of a stage, and the gradient of the logit for it.
    """
    weights = gradient.astype(np.float64).mean((0, 1))
    return np.maximum(values.astype(np.float64) @ weights, 0)


def strongest(values: np.ndarray, count: int) -> tuple[Channel, ...]:
    """Return the channels of [h, w, c] with the largest means, the largest first."""
    means = values.astype(np.float64).mean((0, 1))
    order = np.argsort(-means, kind="stable")[:count]
    return tuple(Channel(int(c), float(means[c]), values[:, :, c]) for c in order)
