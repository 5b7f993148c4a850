"""What a recipe says about images, as `tinyresnext.images.augmentation` takes it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...data.dataset import Dataset
from ...errors import UsageError
from ...images.augmentation.augment import Augment
from ...images.preprocess import CIFAR, CIFAR_100, Preprocess
from ...network.spec import Spec
from ..recipes import Recipe
from ..recipes.augmentation import Augmentation

# The part of an image's area that a random crop has (Szegedy et al. 2015).
SCALE = (0.08, 1.0)
# Networks for images of this side, or a smaller one, usually see padded crops (He et al. 2015,
# "Deep Residual Learning", section 4.2).
SMALL = 64


def usual_preprocess(spec: Spec, recipe: Recipe) -> Preprocess:
    """Return CIFAR's preprocessing for small images, else ImageNet's, resized as the recipe says.

    That of CIFAR-100 is the authors' for 100 classes; others take CIFAR-10's mean and deviation
    there too. For grey images, both are averaged over the colours.
    """
    interpolation = recipe.augmentation.interpolation
    small = CIFAR_100 if spec.classes == 100 and recipe.start.init == "facebook" else CIFAR
    usual = replace(small if spec.small else Preprocess(), interpolation=interpolation)
    if spec.channels == 1:
        return replace(usual, mean=(sum(usual.mean) / 3,), std=(sum(usual.std) / 3,))
    return usual


def augmented(said: Augmentation, preprocess: Preprocess, dataset: Dataset, side: int) -> Augment:
    """Return how images become the inputs of a training step.

    Parameters
    ----------
    said : Augmentation
        In pixels of the network's size.
    preprocess : Preprocess
        Of the finished model.
    dataset : Dataset
    side : int
        Of the images in this epoch.

    Raises
    ------
    UsageError
        The padding or the erased square is larger than the image.
    """
    full = preprocess.crop
    if side != full:
        resize = round(preprocess.resize * side / full)
        preprocess = replace(preprocess, crop=side, resize=resize)
    whole = preprocess.resize == preprocess.crop  # else the middle of a larger image is seen
    of_size = whole and dataset.pixels is not None and dataset.pixels.shape[1:3] == (side, side)
    common = _common(preprocess) | {
        "flip": said.flip,
        "alternate": said.alternate,
        "policy": said.policy,
        "brightness": said.jitter,
        "contrast": said.jitter,
        "saturation": said.jitter,
        "lighting": said.lighting,
        "cutout": round(said.cutout * side / full),
        "erase": said.erase,
        "erase_count": said.erase_count,
        "erase_with": said.erase_with,
    }
    crop, padding = said.crop, said.padding
    if crop == "usual":
        crop, padding = ("pad", padding or full // 8) if full <= SMALL else ("resized", 0)
    if crop in ("resized", "torch7"):
        return Augment(**common, scale=SCALE, even=crop == "torch7")
    resized = None if of_size else preprocess.resize
    if crop == "pad":
        padding = round(padding * side / full)
        return Augment(**common, resize=resized, padding=padding, fill=said.fill)
    return Augment(**common, resize=resized)


def check_padding(said: Augmentation, side: int) -> None:
    """Refuse a padding that the usual crop of images of this size does not have.

    Raises
    ------
    UsageError
        There is one; the text says what to give.
    """
    plain = Augmentation()
    idle = [name for name in ("padding", "fill") if getattr(said, name) != getattr(plain, name)]
    if idle and said.crop == "usual" and side > SMALL:
        raise UsageError(
            f"{' and '.join(idle)} would change nothing here: images of {side} pixels are not "
            "padded but cropped at random; give --crop pad (crop='pad'), too, or leave it out"
        )


def unchanged(preprocess: Preprocess) -> Augment:
    """Return how the finished model will see images, but with resized values rounded to 8 bits."""
    return Augment(**_common(preprocess), resize=preprocess.resize)


def _common(preprocess: Preprocess) -> dict[str, Any]:
    """Return what `Augment` and `Preprocess` have in common."""
    return {
        "mean": preprocess.mean,
        "std": preprocess.std,
        "interpolation": preprocess.interpolation,
        "size": preprocess.crop,
    }
