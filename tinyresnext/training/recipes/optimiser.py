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
        decayed, and whose momentum is 0.6, always Nesterov's: ``momentum``, ``nesterov`` and
        ``weight_decay`` are for the other weights. It follows the same schedule as ``lr``, which
        all other weights have. 0 means that ``optimiser`` trains all.
    weight_decay : float
        This times the weight is added to the gradient. AdamW subtracts it from the weight instead,
        times the learning rate, and LAMB adds it to the direction before that is scaled.
    decay_all : bool
        Whether scales and shifts of batch norms and the classifier's bias decay too.
    layer_decay : float
        For fine-tuning: the rate of each block is this times that of the block behind it, and the
        stem counts as a block. The classifier has the whole rate (Bao et al. 2022, as timm has it).
    clip : {"none", "norm", "value", "adaptive"}
        What keeps gradients from being too large: nothing; all of them together have a norm of
        ``clip_at`` at most; each value is between ``-clip_at`` and ``clip_at``; or the norm of each
        filter's gradient is at most ``clip_at`` times that of its weights (Brock et al. 2021),
        except in the classifier, as timm has it.
    clip_at : float
        As above.
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
        "use Muon for the convolutions in the blocks, at this learning rate, such as 0.1; it has "
        "a momentum of its own there, and no weight decay",
    )
    weight_decay: float = setting(
        1e-4,
        Real(0, 1e3),
        "weight decay: this times the weight is added to the gradient, such as 5e-4; for adamw and "
        "lamb to the step, such as 0.02",
    )
    decay_all: bool = setting(True, Flag(), "apply the weight decay to batch norms and biases too")

    layer_decay: float = setting(
        1.0,
        Real(0, 1),
        "the learning rate of a block, as a part of that of the block behind it, such as 0.75",
    )
    clip: str = setting(
        "none",
        Choice(("none", "norm", "value", "adaptive")),
        "make gradients smaller that are larger than --clip-at: their norm, each value, or the "
        "norm of a filter's beside that of its weights",
    )
    clip_at: float = setting(
        0.0, Real(0, 1e6), "the largest norm, value, or part of the weights, such as 1, 1 or 0.01"
    )

    def __post_init__(self) -> None:
        check_fields(self)
        plain = self.optimiser == "sgd"
        if plain and (self.beta2 or self.eps):
            raise UsageError(
                f"beta2 is {self.beta2:g}, eps {self.eps:g} and optimiser sgd: SGD has neither; "
                "give one of adamw, lamb and rmsprop, or leave both at 0"
            )
        if (self.clip == "none") != (self.clip_at == 0):
            raise UsageError(
                f"clip is {self.clip} and clip_at {self.clip_at:g}: give both, such as clip norm "
                "and clip_at 1, or clip none and clip_at 0"
            )
        if self.nesterov and not plain:
            raise UsageError(
                f"nesterov is True and optimiser {self.optimiser}: only SGD has Nesterov's "
                "momentum; give nesterov False (--no-nesterov), and a learning rate for "
                f"{self.optimiser}, since those of recipes are for SGD"
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
