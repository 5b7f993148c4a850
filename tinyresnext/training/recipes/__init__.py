"""What decides a training run, as data: small frozen dataclasses, and the recipes that have names.

Read `schedule` and `optimiser` first, then `parts` (loss and first weights) and `augmentation`.
`kinds` says which values a field takes, and `recipe` puts the parts together. The command line, its
help and the JSON are made from the same fields. `steps` says whether a recipe makes enough steps of
a number of images, and what of a run will be of no use; `idle` refuses settings that would change
nothing. `named` has the recipes with names, and `sources` says where they come from.
"""

from .named import RECIPES, recipe
from .recipe import Recipe
from .sources import SOURCES

__all__ = ["RECIPES", "SOURCES", "Recipe", "recipe"]
