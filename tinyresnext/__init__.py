"""ResNeXt in NumPy and Numba, written to be read.

Names and rooms are loaded when they are first used, so that ``import tinyresnext`` costs nothing
and brings no Numba.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .system.version import __version__ as __version__

if TYPE_CHECKING:
    from .explanation.explain import explain
    from .explanation.explanation import Explanation
    from .images.prepare import prepare
    from .images.preprocess import Preprocess
    from .inference.evaluate import evaluate
    from .inference.files import export, list_models, load, load_checkpoint, save
    from .inference.heads import Prediction
    from .inference.many.predictor import Predictor
    from .inference.many.quantise import quantise
    from .inference.model import Model
    from .inference.scores.answers import AnswerEvaluation
    from .inference.scores.evaluation import Evaluation
    from .inference.scores.labels import LabelEvaluation
    from .network.resnext import forward, parameters
    from .network.spec import VARIANTS, Spec, cifar, variant
    from .training.initial import random_model
    from .training.recipes import RECIPES, Recipe, recipe
    from .training.train import finetune, train

_HOMES = {
    "VARIANTS": "network.spec",
    "AnswerEvaluation": "inference.scores.answers",
    "Evaluation": "inference.scores.evaluation",
    "Explanation": "explanation.explanation",
    "LabelEvaluation": "inference.scores.labels",
    "Model": "inference.model",
    "Prediction": "inference.heads",
    "Predictor": "inference.many.predictor",
    "Preprocess": "images.preprocess",
    "Spec": "network.spec",
    "Recipe": "training.recipes",
    "RECIPES": "training.recipes",
    "cifar": "network.spec",
    "evaluate": "inference.evaluate",
    "explain": "explanation.explain",
    "export": "inference.files",
    "finetune": "training.train",
    "forward": "network.resnext",
    "list_models": "inference.files",
    "load": "inference.files",
    "load_checkpoint": "inference.files",
    "parameters": "network.resnext",
    "prepare": "images.prepare",
    "quantise": "inference.many.quantise",
    "random_model": "training.initial",
    "recipe": "training.recipes",
    "save": "inference.files",
    "train": "training.train",
    "variant": "network.spec",
}
_ROOMS = (
    "checkpoints",
    "data",
    "emulator",
    "errors",
    "explanation",
    "hub",
    "images",
    "inference",
    "network",
    "ops",
    "store",
    "training",
)
__all__ = [
    "RECIPES",
    "VARIANTS",
    "AnswerEvaluation",
    "Evaluation",
    "Explanation",
    "LabelEvaluation",
    "Model",
    "Prediction",
    "Predictor",
    "Preprocess",
    "Recipe",
    "Spec",
    "cifar",
    "evaluate",
    "explain",
    "export",
    "finetune",
    "forward",
    "list_models",
    "load",
    "load_checkpoint",
    "parameters",
    "prepare",
    "quantise",
    "random_model",
    "recipe",
    "save",
    "train",
    "variant",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    hidden = {"Any", "TYPE_CHECKING", "annotations", "import_module"}
    return sorted({*globals(), *__all__, *_ROOMS} - hidden)
