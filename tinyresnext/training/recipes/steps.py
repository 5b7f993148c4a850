"""How many steps a run makes, a mini-batch and epochs that make enough, and warnings.

A network learns in steps, whatever the number of images: with the mini-batches of a recipe that is
meant for 50,000 images, 60 images make no step or a few, and the weights hardly change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...network.spec import Spec, blocks
from .recipe import Recipe

__all__ = ["enough", "few", "steps", "warnings_for"]

# In so many steps a network of 20 layers learns to tell apart a few dozen images of simple shapes;
# in a quarter of them it seldom learns anything.
ENOUGH = 400
FEW = ENOUGH // 4
LEAST_BATCH = 16  # without parts: statistics over fewer images are noise to a batch norm


def steps(recipe: Recipe, images: int) -> int:
    """Return how many steps a run on so many images makes; images that fill no batch are left."""
    return images // recipe.batch * recipe.epochs


def enough(recipe: Recipe, images: int, given: Mapping[str, Any] | None = None) -> Recipe:
    """Return the recipe with settings that make enough steps of so many images.

    The mini-batch is halved as long as there are too few steps, down to 16 images and two for each
    part; after that there are more epochs. Where parts are given and there are as many images, it
    grows to two for each part. The parts stay equal. The learning rate falls with the
    mini-batch (the linear scaling of Goyal et al. 2017). A recipe that makes enough steps is
    returned as it is, with the settings that are given: its rate does not follow a given batch.

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
    follows = "batch" not in given or images // recipe.batch * epochs < ENOUGH
    if "batch" not in given:
        parts = given.get("parts", recipe.parts)
        least = max(LEAST_BATCH, 2 * parts) if parts > 1 else LEAST_BATCH
        batch = max(batch, 2 * parts) if "parts" in given and parts > 1 else batch
        while batch > least and images // batch * epochs < ENOUGH:
            batch = max(batch // 2, least)
        batch = max(min(batch, images) // parts, 1) * parts
    if "epochs" not in given and batch <= images:
        epochs = max(epochs, -(-ENOUGH // (images // batch)))
    lr = recipe.schedule.lr * (min(1, batch / recipe.batch) if follows else 1)
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


def warnings_for(spec: Spec, recipe: Recipe, images: int, frozen: Sequence[str] = ()) -> list[str]:
    """Return what to say before a run on so many images of which something will be of no use.

    ``frozen`` has the first parts of the names of layers that are not trained.
    """
    drop = recipe.drop.drop_path
    alone = (
        f"drop_path is {drop:g} and {spec.name} has a single block, which is never left out: "
        "--drop-path changes nothing here"
    )
    said = few(recipe, images), _all_warm_up(recipe, images), _early_average(recipe, images)
    single = drop > 0 and len(list(blocks(spec))) == 1
    more = alone if single else None, _classifier_alone(spec, recipe, frozen)
    return [text for text in (*said, *more) if text is not None]


def _classifier_alone(spec: Spec, recipe: Recipe, frozen: Sequence[str]) -> str | None:
    """Return what to say of settings for other layers if only the classifier is trained."""
    last, how = f"layer{len(spec.blocks)}", recipe.optimiser
    asked = {
        f"--muon {how.muon:g}": how.muon > 0,
        f"--layer-decay {how.layer_decay:g}": how.layer_decay != 1,
        "--clip adaptive": how.clip == "adaptive",
    }
    idle = [name for name, given in asked.items() if given]
    if last not in frozen or not idle:
        return None
    return (
        f"all layers up to {last} are frozen and only the classifier is trained, which "
        f"{' and '.join(idle)} leave{'s' * (len(idle) == 1)} alone: nothing changes by "
        f"{'them' if len(idle) > 1 else 'it'} here"
    )


def _all_warm_up(recipe: Recipe, images: int) -> str | None:
    """Return what to say if the learning rate never reaches its highest value."""
    each, epochs, schedule = images // recipe.batch, recipe.epochs, recipe.schedule
    count = epochs if schedule.changes == "epoch" else each * epochs
    # A part of 1 asks for nothing else, and without a first rate the last step of it has all of lr.
    if schedule.warmup == 1 or not schedule.warmup_from or schedule.rising(count) < count:
        return None
    last = recipe.learning_rate(epochs - 1, each - 1, each)
    if last >= schedule.lr:
        return None
    return (
        f"all of this run is warm-up: the learning rate is {last:g} at most, and never "
        f"{schedule.lr:g}; give more --epochs, or --warmup 0 --warmup-from 0"
    )


def _early_average(recipe: Recipe, images: int) -> str | None:
    """Return what to say if half of the average that is kept is older than the last third."""
    total = steps(recipe, images)
    if not recipe.ema or 3 * (middle := _middle(recipe, images)) > 2 * total:
        return None
    return (
        f"half of the averaged weights that are kept would be those of step {middle} of {total} or "
        f"before: ema is {recipe.ema:g}, in every {recipe.ema_every} steps, whatever the length of "
        "the run; give a smaller --ema or --ema-every (--ema-every 1 --ema-warmup soft suits any "
        "length), or --ema 0"
    )


def _middle(recipe: Recipe, images: int) -> int:
    """Return the step, counted from 1, from which on the average has half of what it keeps."""
    each, left, step = images // recipe.batch, 1.0, 0
    for epoch in reversed(range(recipe.epochs)):
        for moved in reversed(range(0, each, recipe.ema_every)):
            left *= recipe.kept(epoch, moved, each) or 0.0
            step = epoch * each + moved + 1
            if left <= 0.5:
                return step
    return step
