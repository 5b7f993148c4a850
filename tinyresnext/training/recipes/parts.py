"""The parts of a recipe: schedule, optimiser, loss, first weights.

A moment of a run is given as a part of it, from 0 to 1, so that a recipe keeps its shape when it is
made shorter: the paper's cuts at epochs 150 and 225 of 300 are 0.5 and 0.75.
"""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass

from ...errors import UsageError
from .kinds import Choice, Flag, Fractions, Real, check_fields, setting


@dataclass(frozen=True)
class Schedule:
    """How the learning rate changes over the run.

    Parameters
    ----------
    lr : float
        The highest learning rate.
    schedule : {"step", "cosine", "linear"}
        After the warm-up: the rate is multiplied by ``gamma`` at each milestone; it follows half a
        cosine to zero; or a straight line to zero.
    milestones : tuple of float
        For "step": the parts of the run at which the rate falls. It falls with the first epoch
        (counted from 0) that reaches one.
    gamma : float
        For "step": what the rate is multiplied by.
    warmup : float
        The part of the run in which the rate rises, step by step, from nearly zero.
    """

    lr: float = setting(MISSING, Real(0, 1e3), "the highest learning rate")
    schedule: str = setting(
        MISSING, Choice(("step", "cosine", "linear")), "how the learning rate falls"
    )
    milestones: tuple[float, ...] = setting(
        (),
        Fractions(),
        "for step: parts of the run at which the learning rate falls, such as 0.5,0.75",
    )
    gamma: float = setting(
        0.1, Real(0, 1), "for step: what the learning rate is multiplied by at each of them"
    )
    warmup: float = setting(
        0.0, Real(0, 1), "the part of the run in which the learning rate rises, such as 0.2"
    )

    def __post_init__(self) -> None:
        check_fields(self)

    def rate(self, highest: float, epoch: int, step: int, steps: int, epochs: int) -> float:
        """Return the rate of one step of a run whose highest rate is given.

        Parameters
        ----------
        highest : float
            ``lr``, or Muon's own.
        epoch, step : int
            Counted from 0; ``step`` within the epoch.
        steps, epochs : int
            Steps in an epoch, and epochs in the run.
        """
        done, total = epoch * steps + step, epochs * steps
        rising = math.ceil(self.warmup * total)
        if done < rising:
            return highest * (done + 1) / rising
        if self.schedule == "step":
            return highest * self.gamma ** sum(epoch / epochs >= part for part in self.milestones)
        part = (done - rising) / (total - rising)
        return highest * (
            0.5 * (1 + math.cos(math.pi * part)) if self.schedule == "cosine" else 1 - part
        )


@dataclass(frozen=True)
class Optimiser:
    """How a gradient changes the weights.

    Parameters
    ----------
    momentum : float
        The momentum coefficient of stochastic gradient descent.
    nesterov : bool
        Nesterov's momentum as PyTorch and Torch7 have it (Sutskever et al. 2013).
    muon : float
        The highest rate of Muon (Jordan 2024; `tinyresnext.training.optimisers.muon`) for the
        convolutions in the blocks, whose weights are rescaled to a constant norm instead of
        decayed. It follows the same schedule as ``lr``, which all other weights have. 0 means SGD
        for all.
    weight_decay : float
        This times the weight is added to the gradient.
    decay_all : bool
        Whether scales and shifts of batch norms and the classifier's bias decay too.
    """

    momentum: float = setting(0.9, Real(0, 1), "momentum coefficient of SGD, such as 0.9")
    nesterov: bool = setting(False, Flag(), "use Nesterov's momentum")
    muon: float = setting(
        0.0,
        Real(0, 10),
        "use Muon for the convolutions in the blocks, at this learning rate, such as 0.1",
    )
    weight_decay: float = setting(
        1e-4,
        Real(0, 1e3),
        "weight decay: this times the weight is added to the gradient, such as 5e-4",
    )
    decay_all: bool = setting(True, Flag(), "apply the weight decay to batch norms and biases too")

    def __post_init__(self) -> None:
        check_fields(self)
        if self.nesterov and self.momentum == 0:
            raise UsageError(
                "nesterov is True and momentum is 0: Nesterov's momentum needs a coefficient; "
                "give one such as 0.9"
            )


@dataclass(frozen=True)
class Loss:
    """The targets of the cross entropy: the softmax's, or the binary one of a sigmoid.

    Parameters
    ----------
    smoothing : float
        Label smoothing (Szegedy et al. 2016); under a sigmoid, towards one half.
    mixup : float
        The alpha of mixup (Zhang et al. 2018); 0 means no mixup.
    cutmix : float
        The alpha of CutMix (Yun et al. 2019); 0 means none. With mixup too, each mini-batch has one
        of the two, with the same probability.
    entropy : {"softmax", "binary"}
        For one label an image: the softmax cross entropy, or the binary cross entropy of each class
        (Beyer et al. 2020; Wightman et al. 2021). The model stays one whose highest logit counts.
    threshold : float
        For "binary": targets above this become 1 and the others 0, after smoothing and mixing
        (Wightman et al. 2021); 0 leaves them as they are.
    balance : {"none", "weights", "sampling"}
        What makes classes of few images count as much as others: nothing; their losses weigh more;
        or their images are drawn more often, and an epoch has as many images as before.
    """

    smoothing: float = setting(
        0.0, Real(0, 1), "label smoothing: the part that all classes share, such as 0.1"
    )
    mixup: float = setting(
        0.0,
        Real(0, 1e3, "ALPHA"),
        "mix neighbours in a mini-batch in a proportion from Beta(ALPHA, ALPHA), such as 0.2",
    )
    cutmix: float = setting(
        0.0,
        Real(0, 1e3, "ALPHA"),
        "put a part of a neighbour into each image, of a size from Beta(ALPHA, ALPHA), such as 1",
    )
    entropy: str = setting(
        "softmax",
        Choice(("softmax", "binary")),
        "the softmax cross entropy, or the binary cross entropy of each class",
    )
    threshold: float = setting(
        0.0, Real(0, 1), "for binary: targets above this become 1 and the others 0, such as 0.2"
    )
    balance: str = setting(
        "none",
        Choice(("none", "weights", "sampling")),
        "for classes of few images: nothing, a higher weight of their losses, or more draws",
    )

    def __post_init__(self) -> None:
        check_fields(self)
        if self.threshold and self.entropy != "binary":
            raise UsageError(
                f"threshold is {self.threshold:g} and entropy {self.entropy}: only the targets of "
                "the binary cross entropy have one; give entropy binary, or no threshold"
            )
        if self.entropy == "binary" and self.balance == "weights":
            raise UsageError(
                "entropy is binary and balance weights: the weights of classes are defined for the "
                "softmax cross entropy; give balance sampling"
            )


@dataclass(frozen=True)
class Start:
    """The first weights of a network that is trained from scratch.

    Parameters
    ----------
    init : {"torchvision", "facebook"}
        Both draw convolutions from N(0, 2 / (k_h k_w c_out)) (He et al. 2015, fan out) and the
        classifier's weights from U(-1, 1) / sqrt(c_in); torchvision draws its biases from that too,
        facebook begins with zeros.
    zero_gamma : bool
        Whether the last batch norm of each block begins with a scale of 0, so that each block
        begins as its shortcut (Goyal et al. 2017).
    whiten : bool
        Whether the filters of the stem begin with the principal directions of the images' patches.
    """

    init: str = setting(
        "torchvision",
        Choice(("torchvision", "facebook")),
        "how the first weights are drawn",
        flag="initialisation",
        first_weights=True,
    )
    zero_gamma: bool = setting(
        False, Flag(), "begin each block as its shortcut", first_weights=True
    )
    whiten: bool = setting(
        False, Flag(), "make the first filters from patches of the images", first_weights=True
    )

    def __post_init__(self) -> None:
        check_fields(self)
