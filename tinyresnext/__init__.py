"""ResNeXt in NumPy and Numba, written to be read.

Names are loaded when they are first used, so that ``import tinyresnext`` costs nothing and brings no Numba.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .convert import load_checkpoint
    from .evaluation import Evaluation, evaluate
    from .image import Preprocess, prepare
    from .model import Model, Prediction, list_models, load, save
    from .recipes import RECIPES, Recipe, recipe
    from .resnext import forward, parameters
    from .spec import VARIANTS, Spec, cifar, variant
    from .training import finetune, train

__version__ = "0.1.0"

_HOMES = {
    "VARIANTS": "spec",
    "Evaluation": "evaluation",
    "Model": "model",
    "Prediction": "model",
    "Preprocess": "image",
    "Spec": "spec",
    "Recipe": "recipes",
    "RECIPES": "recipes",
    "cifar": "spec",
    "evaluate": "evaluation",
    "finetune": "training",
    "forward": "resnext",
    "list_models": "model",
    "load": "model",
    "load_checkpoint": "convert",
    "parameters": "resnext",
    "prepare": "image",
    "recipe": "recipes",
    "save": "model",
    "train": "training",
    "variant": "spec",
}
__all__ = [
    "RECIPES",
    "VARIANTS",
    "Evaluation",
    "Model",
    "Prediction",
    "Preprocess",
    "Recipe",
    "Spec",
    "cifar",
    "evaluate",
    "finetune",
    "forward",
    "list_models",
    "load",
    "load_checkpoint",
    "parameters",
    "prepare",
    "recipe",
    "save",
    "train",
    "variant",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
