"""The part of a recipe that says how images are varied."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import UsageError
from .kinds import Choice, Flag, Policy, Real, Sides, Whole, check_fields, setting

MOST_SIDE = 4096


@dataclass(frozen=True)
class Augmentation:
    """How the images of a mini-batch are varied.

    Parameters
    ----------
    crop : {"pad", "resized", "torch7", "none", "usual"}
        A crop of the image with ``padding`` pixels around it; a part of any size and shape,
        resized; the same with shapes drawn as the authors' Torch7 code draws them; the middle, as
        the finished model sees it; or what is usual for the size of the network's input: "resized",
        and up to 64 pixels "pad", if nothing is said by an eighth of the side, as for CIFAR.
    padding : int
        Pixels around an image of the network's size; of smaller ones (``sides``), the same part.
    fill : {"black", "mean", "mirror"}
        What the padding shows: a colour, or the image's own mirror image.
    interpolation : {"bilinear", "bicubic"}
        How images are resized where no preprocessing is given; fine-tuning resizes as its model
        does.
    sides : tuple of int
        Sides of the images over the run, in equal shares of it: (20, 24, 28, 32) trains for three
        quarters of the run on smaller images, which costs much less, and ends on whole ones. By
        default the images always have the side of the network's input.
    flip : bool
        Whether each image is mirrored with probability 1/2.
    alternate : bool
        Whether each image is mirrored in every other epoch instead, so that two epochs show both
        sides of it (Jordan 2024, section 3.6).
    policy : str
        The name of a policy that draws operations for each image, such as "ra", "ta_wide",
        "rand-m7-mstd0.5-inc1" or "augmix-m3" (`tinyresnext.images.augmentation.policy`); empty for
        none.
    jitter : float
        Brightness, contrast and saturation vary by this part.
    lighting : float
        The standard deviation of a random number for each principal direction in which the colours
        of ImageNet vary. The colour shifts along it by this number times the eigenvalue, the
        variance in this direction (Krizhevsky et al. 2012, section 4.1, with 0.1).
    cutout : int
        Side of a square of each image that is erased (DeVries and Taylor 2017), in pixels of the
        network's size; of smaller images (``sides``), the same part. 0 means none.
    erase : float
        The probability that a rectangle of an image is erased (Zhong et al. 2020).
    erase_count : int
        How many rectangles are erased of such an image, at most (timm's ``recount``).
    erase_with : {"zero", "pixel"}
        What is in the rectangle: zero after normalisation, or noise.
    repeats : int
        How often an image comes in a mini-batch, each time augmented anew (Hoffer et al. 2020). An
        epoch has as many samples as before, so it sees fewer images. Where it does not divide the
        mini-batch, the last image comes once more in the next one.
    """

    crop: str = setting(
        "resized",
        Choice(("pad", "resized", "torch7", "none", "usual")),
        "a crop with padding around the image, a random part by torchvision's or by the "
        "authors' rule, the middle, or what is usual for the network's size: pad up to 64 pixels",
    )
    padding: int = setting(
        0, Whole(0, 1024), "for pad: pixels around an image of the network's size"
    )
    fill: str = setting(
        "black", Choice(("black", "mean", "mirror")), "for pad: what the padding shows"
    )
    interpolation: str = setting(
        "bilinear", Choice(("bilinear", "bicubic")), "how images are resized", first_weights=True
    )
    sides: tuple[int, ...] = setting(
        (), Sides(MOST_SIDE), "sides of the images, in equal shares of the run, such as 20,24,28,32"
    )
    flip: bool = setting(True, Flag(), "mirror each image with probability 1/2")
    alternate: bool = setting(False, Flag(), "mirror each image in every other epoch instead")
    policy: str = setting(
        "",
        Policy(),
        "draw operations for each image: imagenet, cifar10, ra, ta_wide, augmix, 3a, or timm's "
        "notation such as rand-m7-mstd0.5-inc1 or augmix-m3",
        flag="auto-augment",
    )
    jitter: float = setting(0.0, Real(0, 1), "how much brightness, contrast and saturation vary")
    lighting: float = setting(0.0, Real(0, 1), "how much the colour varies, such as 0.1")
    cutout: int = setting(0, Whole(0, MOST_SIDE), "side of a square that is erased from each image")
    erase: float = setting(
        0.0,
        Real(0, 1),
        "the probability that a rectangle of an image is erased, such as 0.1",
        flag="random-erase",
    )
    erase_count: int = setting(
        1, Whole(1, 64), "how many rectangles are erased of such an image, at most"
    )
    erase_with: str = setting(
        "zero", Choice(("zero", "pixel")), "what is in the rectangle: the mean colour, or noise"
    )
    repeats: int = setting(
        1, Whole(1, 64), "how often an image comes in a mini-batch, each time augmented anew"
    )

    def __post_init__(self) -> None:
        check_fields(self)
        if self.alternate and not self.flip:
            raise UsageError("alternate is True and flip is False: give flip too, or neither")
