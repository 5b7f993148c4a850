"""How to train: one frozen dataclass for everything that decides a run, and the recipes that have names.

A moment of a run is given as a part of it, from 0 to 1, so that a recipe keeps its shape when it is
made shorter: the paper's cuts at epochs 150 and 225 of 300 are 0.5 and 0.75.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ..errors import FormatError, UsageError

SCHEDULES = ("step", "cosine", "linear")
CROPS = ("pad", "resized", "torch7", "none")
INITS = ("torchvision", "facebook")
FILLS = ("black", "mean", "mirror")
FILTERS = ("bilinear", "bicubic")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run but the network, the pictures and the number of threads.

    Parameters
    ----------
    epochs : int
    batch : int
        Pictures in a step.
    lr : float
        The highest learning rate.
    schedule : {"step", "cosine", "linear"}
        After the warm-up: times ``gamma`` at each milestone; half a cosine to zero; a straight line
        to zero.
    milestones : tuple of float
        For "step": the parts of the run at which the rate falls. It falls with the first epoch
        (from 0) that reaches one.
    gamma : float
        For "step": what the rate is multiplied by.
    warmup : float
        The part of the run in which the rate rises, step by step, from nearly nothing.
    momentum : float
    nesterov : bool
        Nesterov's momentum as PyTorch and Torch7 have it (Sutskever et al. 2013).
    muon : float
        The highest rate of `tinyresnext.training.muon` for the convolutions in the blocks, which
        then keep the norm of their weights in place of a decay; it goes up and down as ``lr`` does,
        which all other weights have. 0 is none: SGD for all.
    weight_decay : float
        Added to the gradient, times the weight.
    decay_all : bool
        Decay the scales and shifts of batch norms and the classifier's bias too.
    smoothing : float
        Label smoothing (Szegedy et al. 2016).
    mixup : float
        The alpha of Zhang et al. 2018; 0 is none.
    ema : float
        Decay of the moving average of weights and running statistics; 0 is none. What is kept at
        the end is the average.
    init : {"torchvision", "facebook"}
        Both draw convolutions from N(0, 2 / (k_h k_w c_out)) (He et al. 2015, fan out) and the
        classifier's weights from U(-1, 1) / sqrt(c_in); torchvision draws its biases from that too,
        facebook begins with zeros.
    zero_gamma : bool
        Begin with 0 as scale of the last batch norm of each block, so that each block begins as its
        shortcut (Goyal et al. 2017).
    whiten : bool
        Begin with the principal directions of the pictures' patches as filters of the stem
        (`tinyresnext.training.whiten`).
    crop : {"pad", "resized", "torch7", "none"}
        A crop of the picture with ``padding`` pixels around it; a part of any size and shape,
        resized; the same with shapes drawn as the authors' Torch7 code draws them; the middle, as
        the finished model sees it.
    padding : int
        Pixels around a picture of the network's size; of smaller ones (`sides`), the same part.
    fill : {"black", "mean", "mirror"}
        What is around the picture: a colour, or its own mirror image.
    interpolation : {"bilinear", "bicubic"}
        How pictures are resized, where no preprocessing is given; fine-tuning does it as the model
        does.
    sides : tuple of int
        Sides of the pictures over the run, in equal shares of it: (20, 24, 28, 32) is for three
        quarters of the way a training on smaller pictures, which costs much less, and ends on whole
        ones. By default always those of the network.
    flip : bool
        Mirror every second picture, by chance.
    alternate : bool
        Mirror each in every other epoch instead, so that two epochs show both sides of it (Jordan
        2024, section 3.6).
    jitter : float
        Brightness, contrast and saturation vary by this part.
    lighting : float
        The colour varies by this part of how colours vary over ImageNet (Krizhevsky et al. 2012,
        section 4.1).
    cutout : int
        Side of a square of each picture that is wiped out (DeVries and Taylor 2017), in pixels of
        the network's size; of smaller pictures (`sides`), the same part. 0 is none.
    seed : int
        Of weights, order and augmentation.

    Raises
    ------
    UsageError
        When a value is outside what makes sense.
    """

    epochs: int
    batch: int
    lr: float
    schedule: str
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1
    warmup: float = 0.0
    momentum: float = 0.9
    nesterov: bool = False
    muon: float = 0.0
    weight_decay: float = 1e-4
    decay_all: bool = True
    smoothing: float = 0.0
    mixup: float = 0.0
    ema: float = 0.0
    init: str = "torchvision"
    zero_gamma: bool = False
    whiten: bool = False
    crop: str = "resized"
    padding: int = 0
    fill: str = "black"
    interpolation: str = "bilinear"
    sides: tuple[int, ...] = ()
    flip: bool = True
    alternate: bool = False
    jitter: float = 0.0
    lighting: float = 0.0
    cutout: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (least, most) in _WHOLE.items():
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= most:
                raise UsageError(
                    f"{name} is {value!r}: expected a whole number from {least} to {most}"
                )
        for name, (least, most) in _REAL.items():
            value = getattr(self, name)
            if (
                isinstance(value, bool)
                or not isinstance(value, (int, float))
                or not least <= value <= most
            ):
                raise UsageError(
                    f"{name} is {value!r}: expected a number from {least:g} to {most:g}"
                )
            object.__setattr__(self, name, float(value))
        choices_of = {
            "schedule": SCHEDULES,
            "crop": CROPS,
            "init": INITS,
            "fill": FILLS,
            "interpolation": FILTERS,
        }
        for name, choices in choices_of.items():
            if getattr(self, name) not in choices:
                raise UsageError(
                    f"{name} is {getattr(self, name)!r}: expected one of {', '.join(choices)}"
                )
        for name in ("nesterov", "decay_all", "zero_gamma", "whiten", "flip", "alternate"):
            if type(getattr(self, name)) is not bool:
                raise UsageError(f"{name} is {getattr(self, name)!r}: expected True or False")
        if self.nesterov and self.momentum == 0:
            raise UsageError(
                "nesterov is True and momentum is 0: Nesterov's momentum needs one; give a momentum such as 0.9"
            )
        if self.alternate and not self.flip:
            raise UsageError("alternate is True and flip is False: give flip too, or neither")
        parts = self.milestones
        if not isinstance(parts, (tuple, list)) or not all(
            isinstance(part, float) and 0 <= part <= 1 for part in parts
        ):
            raise UsageError(f"milestones are {parts!r}: expected parts of the run from 0.0 to 1.0")
        if list(parts) != sorted(parts):
            raise UsageError(f"milestones are {parts!r}: expected them in order")
        object.__setattr__(self, "milestones", tuple(parts))
        sides = self.sides
        if not isinstance(sides, (tuple, list)) or not all(
            type(side) is int and 1 <= side <= 4096 for side in sides
        ):
            raise UsageError(
                f"sides are {sides!r}: expected whole numbers of pixels, such as (20, 24, 28, 32)"
            )
        if len(sides) > self.epochs:
            raise UsageError(
                f"sides are {len(sides)} and epochs {self.epochs}: give fewer sides, or at least as many epochs"
            )
        object.__setattr__(self, "sides", tuple(sides))

    def side(self, epoch: int, usual: int) -> int:
        """The side of the pictures of an epoch, counted from 0; behind the last one, that of the last."""
        return (
            self.sides[min(epoch, self.epochs - 1) * len(self.sides) // self.epochs]
            if self.sides
            else usual
        )

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON has them."""
        return asdict(self) | {"milestones": list(self.milestones), "sides": list(self.sides)}

    @classmethod
    def from_json(cls, values: Any) -> Recipe:
        """Read what `to_json` wrote.

        Raises
        ------
        FormatError
            When a field is missing, unknown, or of the wrong kind.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or set(values) != names:
            found = sorted(values) if isinstance(values, dict) else type(values).__name__
            raise FormatError(
                f"the recipe has the fields {found}, expected exactly {sorted(names)}"
            )
        try:
            return cls(**values)
        except UsageError as error:
            raise FormatError(f"the recipe cannot be used: {error}") from error


_WHOLE = {
    "epochs": (1, 100_000),
    "batch": (1, 65536),
    "padding": (0, 1024),
    "cutout": (0, 4096),
    "seed": (0, 2**63 - 1),
}
_REAL = {
    "lr": (0, 1e3),
    "muon": (0, 10),
    "gamma": (0, 1),
    "warmup": (0, 1),
    "momentum": (0, 1),
    "weight_decay": (0, 1e3),
}
_REAL |= {
    "smoothing": (0, 1),
    "mixup": (0, 1e3),
    "ema": (0, 1),
    "jitter": (0, 1),
    "lighting": (0, 1),
}

RECIPES: Mapping[str, Recipe] = {
    # train.lua and opts.lua of facebookresearch/ResNeXt: the rate falls with the first epoch e
    # (from 1) for which e / 300 exceeds 0.49 and 0.74, a little before the 150 and 225 of the
    # paper.
    "facebook-cifar": Recipe(
        300,
        128,
        0.1,
        "step",
        (0.49, 0.74),
        nesterov=True,
        weight_decay=5e-4,
        init="facebook",
        crop="pad",
        padding=4,
        fill="mean",
    ),
    # The same, with its -batchSize 256 for ImageNet; the paper stops after 90 epochs.
    "facebook-imagenet": Recipe(
        100,
        256,
        0.1,
        "step",
        (0.3, 0.6, 0.9),
        nesterov=True,
        init="facebook",
        crop="torch7",
        interpolation="bicubic",
        jitter=0.4,
        lighting=0.1,
    ),
    # references/classification of torchvision, as its first ResNeXt weights (IMAGENET1K_V1) were
    # trained.
    "torchvision-v1": Recipe(100, 256, 0.1, "step", (0.3, 0.6, 0.9)),
    # Ours, for small pictures and a short time: one cycle.
    "fast-cifar": Recipe(
        25,
        128,
        0.2,
        "linear",
        warmup=0.2,
        nesterov=True,
        weight_decay=5e-4,
        decay_all=False,
        smoothing=0.1,
        whiten=True,
        crop="pad",
        padding=4,
    ),
    # Ours, for a model that already knows other pictures.
    "finetune": Recipe(10, 32, 0.01, "cosine", warmup=0.05, nesterov=True, decay_all=False),
}


def recipe(name: str, **changes: Any) -> Recipe:
    """The recipe of that name, with other values for some of its fields.

    Raises
    ------
    UsageError
        When there is no such recipe, or a value makes no sense.
    """
    if name not in RECIPES:
        raise UsageError(
            f"there is no recipe called {name!r}; expected one of {', '.join(RECIPES)}"
        )
    return replace(RECIPES[name], **changes)


def learning_rate(recipe: Recipe, epoch: int, step: int, steps: int) -> float:
    """The rate of one step.

    Parameters
    ----------
    epoch : int
        From 0.
    step : int
        From 0, within the epoch.
    steps : int
        In an epoch.
    """
    done, total = epoch * steps + step, recipe.epochs * steps
    rising = math.ceil(recipe.warmup * total)
    if done < rising:
        return recipe.lr * (done + 1) / rising
    if recipe.schedule == "step":
        return recipe.lr * recipe.gamma ** sum(
            epoch / recipe.epochs >= part for part in recipe.milestones
        )
    part = (done - rising) / (total - rising)
    return recipe.lr * (
        0.5 * (1 + math.cos(math.pi * part)) if recipe.schedule == "cosine" else 1 - part
    )
