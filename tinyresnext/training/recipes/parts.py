"""The parts of a recipe that are small: the loss, what is left out, and the first weights."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import UsageError
from .kinds import Choice, Flag, Real, check_fields, setting


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
    teacher_weight : float
        With a teacher, for the softmax cross entropy: the part of the loss that compares with its
        probabilities (`tinyresnext.ops.distillation`); the rest compares with the labels. 0 means
        the usual one with a teacher: 0.9.
    temperature : float
        With a teacher: what all logits are divided by before they are compared; 0 means the usual
        one: 4.
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
        Choice(("none", "weights", "sampling"), alone="weights"),
        "for classes of few images: nothing, a higher weight of their losses, which the option "
        "alone means too, or more draws",
    )
    teacher_weight: float = setting(
        0.0,
        Real(0, 1),
        "with --teacher: the part of the loss that compares with it; 0 is the usual 0.9",
    )
    temperature: float = setting(
        0.0,
        Real(0, 1e3),
        "with --teacher: what logits are divided by to compare them; 0 is the usual 4",
    )

    def __post_init__(self) -> None:
        check_fields(self)
        if self.threshold and self.entropy != "binary":
            raise UsageError(
                f"threshold is {self.threshold:g} and entropy {self.entropy}: only the targets of "
                "the binary cross entropy have one; give entropy binary, or no threshold"
            )


@dataclass(frozen=True)
class Drop:
    """What a step of training leaves out of the network, at random.

    Parameters
    ----------
    drop_path : float
        Stochastic depth (Huang et al. 2016): the probability that the last block of a sample is
        only its shortcut. It grows from 0 for the first block by equal steps, as in timm.
    dropout : float
        The probability of each feature to be 0 before the classifier (Srivastava et al. 2014).
    """

    drop_path: float = setting(
        0.0,
        Real(0, 0.99),
        "stochastic depth: the probability that the last block is left out, such as 0.05",
    )
    dropout: float = setting(
        0.0, Real(0, 0.99), "the probability of a feature to be left out before the classifier"
    )

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Start:
    """The first weights of a network that is trained from scratch.

    Parameters
    ----------
    init : {"torchvision", "facebook", "mmpretrain"}
        All draw convolutions from N(0, 2 / (k_h k_w c_out)) (He et al. 2015, "Delving Deep
        into Rectifiers", fan out). torchvision draws the classifier's weights and biases from
        U(-1, 1) / sqrt(c_in). The biases of the others begin with zeros, the weights of facebook as
        those of torchvision, and those of mmpretrain are from N(0, 0.01 ** 2).
    zero_gamma : bool
        Whether the last batch norm of each block begins with a scale of 0, so that each block
        begins as its shortcut (Goyal et al. 2017).
    whiten : bool
        Whether the filters of the stem begin with the principal directions of the images' patches.
    """

    init: str = setting(
        "torchvision",
        Choice(("torchvision", "facebook", "mmpretrain")),
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
