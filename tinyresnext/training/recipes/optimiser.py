"""The part of a recipe that says how a gradient changes the weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import UsageError
from .kinds import Choice, Flag, Real, check_fields, setting

# beta2 and epsilon where a recipe has 0: PyTorch's for AdamW, timm's for LAMB and RMSpropTF. SGD
# has neither.
USUAL = {"sgd": (0.0, 0.0), "adamw": (0.999, 1e-8), "lamb": (0.999, 1e-6), "rmsprop": (0.9, 1e-10)}


@dataclass(frozen=True)
class Optimiser:
    """How a gradient changes the weights.

    Parameters
    ----------
    optimiser : {"sgd", "adamw", "lamb", "rmsprop"}
        Stochastic gradient descent with momentum; AdamW (Loshchilov and Hutter 2019); LAMB (You et
        al. 2020) as timm has it; RMSprop as TensorFlow and timm's RMSpropTF have it, whose average
        of squares begins with 1 and whose epsilon is under the root.
    momentum : float
        The momentum coefficient; of AdamW and LAMB, their beta1.
    beta2 : float
        Of AdamW and LAMB, and of RMSprop, whose alpha it is: what remains of the average of squared
        gradients in a step. 0 means the usual one: 0.999, and for RMSprop 0.9.
    eps : float
        Of these three: what is added to the root of that average, or under it for RMSprop. 0 means
        the usual one: AdamW 1e-8, LAMB 1e-6, RMSprop 1e-10.
    nesterov : bool
        Nesterov's momentum as PyTorch and Torch7 have it (Sutskever et al. 2013).
    muon : float
        The highest rate of Muon (Jordan 2024; `tinyresnext.training.optimisers.muon`) for the
        convolutions in the blocks, whose weights are rescaled to a constant norm instead of
        decayed. It follows the same schedule as ``lr``, which all other weights have. 0 means that
        ``optimiser`` trains all.
    weight_decay : float
        This times the weight is added to the gradient. AdamW subtracts it from the weight instead,
        times the learning rate, and LAMB adds it to the direction before that is scaled.
    decay_all : bool
        Whether scales and shifts of batch norms and the classifier's bias decay too.
    """

    optimiser: str = setting(
        "sgd",
        Choice(tuple(USUAL)),
        "SGD with momentum, AdamW, LAMB, or RMSprop as TensorFlow and timm have it",
    )
    momentum: float = setting(
        0.9, Real(0, 1), "momentum coefficient, such as 0.9; of AdamW and LAMB, beta1"
    )
    beta2: float = setting(
        0.0,
        Real(0, 1),
        "for adamw, lamb and rmsprop: what remains of the average of squares in a step; 0 is the "
        "usual one, 0.999 or for rmsprop 0.9",
    )
    eps: float = setting(
        0.0,
        Real(0, 1),
        "for these: what is added to the root of that average; 0 is the usual 1e-8, 1e-6 or 1e-10",
    )
    nesterov: bool = setting(False, Flag(), "use Nesterov's momentum")
    muon: float = setting(
        0.0,
        Real(0, 10),
        "use Muon for the convolutions in the blocks, at this learning rate, such as 0.1",
    )
    weight_decay: float = setting(
        1e-4,
        Real(0, 1e3),
        "weight decay: this times the weight is added to the gradient, such as 5e-4; for adamw and "
        "lamb to the step, such as 0.02",
    )
    decay_all: bool = setting(True, Flag(), "apply the weight decay to batch norms and biases too")

    def __post_init__(self) -> None:
        check_fields(self)
        plain = self.optimiser == "sgd"
        if plain and (self.beta2 or self.eps):
            raise UsageError(
                f"beta2 is {self.beta2:g}, eps {self.eps:g} and optimiser sgd: SGD has neither; "
                "give one of adamw, lamb and rmsprop, or leave both at 0"
            )
        if self.nesterov and not plain:
            raise UsageError(
                f"nesterov is True and optimiser {self.optimiser}: only SGD has Nesterov's momentum"
            )
        if not plain and (self.momentum == 1 or self.beta2 == 1):
            raise UsageError(
                f"momentum is {self.momentum:g} and beta2 {self.beta2:g}: an average that keeps "
                f"all learns nothing; {self.optimiser} needs both below 1"
            )
        if self.nesterov and self.momentum == 0:
            raise UsageError(
                "nesterov is True and momentum is 0: Nesterov's momentum needs a coefficient; "
                "give one such as 0.9"
            )

    def decay(self, shape: Sequence[int]) -> float:
        """Return the weight decay of a weight of that shape."""
        # Batch norms have vectors, and so has the classifier's bias.
        return self.weight_decay if self.decay_all or len(shape) > 1 else 0.0

    @property
    def constants(self) -> dict[str, float]:
        """Return ``beta2`` and ``eps`` as the backend takes them: the usual ones in place of 0."""
        usual = USUAL[self.optimiser]
        return {"beta2": self.beta2 or usual[0], "eps": self.eps or usual[1]}
