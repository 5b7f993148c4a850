"""Where each recipe with a name comes from, and the accuracy that its authors report.

All accuracies are those of one crop of each validation image, in per cent of the images whose
highest logit is right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["SOURCES", "Source"]

_PAPER = "Xie et al. 2017"
_STRIKES_BACK = "Wightman et al. 2021 (ResNet strikes back), Table 2"


class Source(NamedTuple):
    """Where a recipe comes from.

    Attributes
    ----------
    text : str
        What it is and who published it.
    reported : str
        The accuracy that is published with it, and of which network and images; empty if none is.
    """

    text: str
    reported: str = ""

    def said(self, name: str) -> str:
        """Return a line about the recipe of this name."""
        end = f"; reported are {self.reported}" if self.reported else ""
        return f"recipe {name}: {self.text}{end}"


SOURCES: Mapping[str, Source] = {
    "facebook-cifar": Source(
        "train.lua and opts.lua of facebookresearch/ResNeXt, for CIFAR",
        f"96.35 % for ResNeXt-29 8x64d and 96.42 % for 16x64d on CIFAR-10 ({_PAPER}, Table 7: "
        "errors of 3.65 % and 3.58 %, the means of ten runs)",
    ),
    "facebook-imagenet": Source(
        "train.lua and opts.lua of facebookresearch/ResNeXt, for ImageNet",
        f"77.8 % for ResNeXt-50 32x4d on ImageNet ({_PAPER}, Table 3: an error of 22.2 %)",
    ),
    "torchvision-v1": Source(
        "references/classification of torchvision, for its weights IMAGENET1K_V1",
        "77.618 % for ResNeXt-50 32x4d on ImageNet",
    ),
    "mmpretrain": Source(
        "the schedule imagenet_bs256 of mmpretrain, for its ResNeXts",
        "77.90 % for ResNeXt-50 32x4d on ImageNet",
    ),
    "torchvision-v2": Source(
        "torchvision's article of 2021 about its second weights, IMAGENET1K_V2",
        "81.198 % for ResNeXt-50 32x4d on ImageNet, resized to 232 pixels",
    ),
    "timm-a1": Source(
        f"procedure A1 of {_STRIKES_BACK}",
        "80.526 % for timm's resnext50_32x4d.a1_in1k on ImageNet, resized to 235 pixels",
    ),
    "timm-a2": Source(
        f"procedure A2 of {_STRIKES_BACK}",
        "80.444 % for timm's resnext50_32x4d.a2_in1k on ImageNet, resized to 235 pixels",
    ),
    "timm-a3": Source(
        f"procedure A3 of {_STRIKES_BACK}",
        "79.258 % for timm's resnext50_32x4d.a3_in1k on ImageNet, resized to 235 pixels",
    ),
    "timm-ra": Source(
        "the command for ResNeXt-50 32x4d in timm's documentation (Training Examples)",
        "79.762 % for that network on ImageNet",
    ),
    "fast-cifar": Source("ours, for small images and a short time"),
    "muon-cifar": Source(
        "ours, as the bundled model's first teachers were trained, and itself in 36 epochs",
        "89.89 % for resnext20_2x64d on CIFAR-10, as JPEG",
    ),
    "finetune": Source("ours, for a model that is already trained on other images"),
}
