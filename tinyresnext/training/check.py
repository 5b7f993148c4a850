"""What is refused before a run begins: network, images and recipe that do not fit together."""

from __future__ import annotations

from ..errors import UsageError
from ..inference.model import shapes_that_fit
from ..network.count import norm_values
from ..network.spec import Spec
from .augmentation import augmented
from .recipes import Recipe
from .run import Setting

__all__ = ["check"]


def check(spec: Spec, recipe: Recipe, setting: Setting) -> None:
    """Refuse what does not fit together, before anything is written."""
    count = len(setting.dataset)
    if spec.classes < 2:
        raise UsageError(
            f"there is {'one' if spec.classes else 'no'} class to train for, and a single class "
            "means nothing under a softmax: give images of at least two classes"
        )
    if setting.preprocess.channels != spec.channels:
        raise UsageError(
            f"the preprocessing makes {setting.preprocess.channels} channels and the network takes "
            f"{spec.channels}"
        )
    for what, images in (("data set", setting.dataset), ("validation set", setting.validation)):
        if images is not None and len(images.classes) != spec.classes:
            raise UsageError(
                f"the {what} has {len(images.classes)} classes and the network {spec.classes}; "
                "both must have the same"
            )
        if images is not None and tuple(images.classes) != tuple(setting.dataset.classes):
            raise UsageError(
                f"the {what} has other classes, or in another order: "
                f"{', '.join(images.classes[:5])} ..."
            )
    if count < recipe.batch:
        raise UsageError(
            f"the data set has {count} images and a mini-batch {recipe.batch}; give --batch "
            f"{count} at most"
        )
    if setting.validation is not None and len(setting.validation) == 0:
        raise UsageError("the validation set has no images; leave it out")
    for side in {*recipe.augmentation.sides, setting.preprocess.crop}:
        # This refuses padding or a square that is larger than the image.
        augmented(recipe.augmentation, setting.preprocess, setting.dataset, side)
    _check_norms(spec, recipe, setting)


def _check_norms(spec: Spec, recipe: Recipe, setting: Setting) -> None:
    """Refuse a mini-batch of which a trained batch norm gets one value for each channel.

    The mean is then the value itself: the result is the shift, whatever the image is, and no
    gradient passes.
    """
    for side in recipe.augmentation.sides or (setting.preprocess.crop,):
        shape = recipe.batch, side, side, spec.channels
        with shapes_that_fit():
            values = norm_values(spec, shape, setting.frozen)
        if single := [name for name, count in values.items() if count == 1]:
            raise UsageError(
                f"of a mini-batch of {recipe.batch} image of {side} x {side}, the batch norm "
                f"{single[0]} gets a single value for each channel, of which it can learn nothing; "
                "give a larger mini-batch (--batch, at least 2), or larger images"
            )
