"""How many steps a run makes, and a mini-batch and epochs that make enough of them.

A network learns in steps, whatever the number of images: with the mini-batches of a recipe that is
meant for 50,000 images, 60 images make no step or a few, and the weights hardly change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .recipe import Recipe

__all__ = ["enough", "few", "steps"]

# In so many steps a network of 20 layers learns to tell apart a few dozen images of simple shapes;
# in a quarter of them it seldom learns anything.
ENOUGH = 400
FEW = ENOUGH // 4
LEAST_BATCH = 16  # statistics over fewer images are noise to a batch norm


def steps(recipe: Recipe, images: int) -> int:
    """Return how many steps a run on so many images makes; images that fill no batch are left."""
    return images // recipe.batch * recipe.epochs


def enough(recipe: Recipe, images: int, given: Mapping[str, Any] | None = None) -> Recipe:
    """Return the recipe with settings that make enough steps of so many images.

    The mini-batch is halved as long as there are too few steps, down to 16 images; after that there
    are more epochs. The learning rate falls with the mini-batch (the linear scaling of Goyal et al.
    2017). A recipe that makes enough steps is returned as it is.

    Parameters
    ----------
    recipe : Recipe
    images : int
        At least 1.
    given : mapping of str, optional
        Settings that have these values, whatever is best.
    """
    given = given or {}
    batch, epochs = given.get("batch", recipe.batch), given.get("epochs", recipe.epochs)
    if "batch" not in given:
        while batch > LEAST_BATCH and images // batch * epochs < ENOUGH:
            batch = max(batch // 2, LEAST_BATCH)
        batch = min(batch, images)
    if "epochs" not in given and batch <= images:
        epochs = max(epochs, -(-ENOUGH // (images // batch)))
    lr = recipe.schedule.lr * min(1, batch / recipe.batch)
    return recipe.changed({"batch": batch, "epochs": epochs, "lr": lr} | dict(given))


def few(recipe: Recipe, images: int) -> str | None:
    """Return what to say of a run that makes too few steps to learn, with what would make more."""
    count = steps(recipe, images)
    if count >= FEW:
        return None
    better = enough(recipe, images)
    smaller = enough(recipe, images, {"epochs": recipe.epochs})
    advice = []
    if smaller.batch < recipe.batch:
        advice.append(f"--batch {smaller.batch} gives {steps(smaller, images)}")
    if better.epochs > recipe.epochs:
        both = f"--batch {better.batch} " if better.batch < recipe.batch else ""
        advice.append(f"{both}--epochs {better.epochs} gives {steps(better, images)}")
    return (
        f"only {count} step{'s' * (count != 1)}, in which a network hardly learns: "
        f"{', '.join(advice)}"
    )
