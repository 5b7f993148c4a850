"""The systems whose names are known, in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from . import module_tree, pytorch
from .classification_models import classification_models, classification_models_se
from .keras import keras
from .layouts import Reading
from .paddle import paddle

__all__ = [
    "CADENE",
    "CADENE_RESNET",
    "CADENE_SE",
    "CLASSIFICATION_MODELS",
    "FOLDED",
    "KERAS",
    "MMPRETRAIN",
    "PADDLE",
    "PRLZ77",
    "QUANTISED",
    "SCHEMES",
    "SE_CLASSIFICATION_MODELS",
    "TIMM_D",
    "TORCH7",
    "TORCHVISION",
    "Scheme",
]


class Scheme(NamedTuple):
    """How one system names parameters: the function that reads its keys, and a few examples."""

    read: Callable[[Collection[str]], Reading]
    examples: str


TORCHVISION, TIMM_D, MMPRETRAIN = "torchvision", "timm's variants d", "mmpretrain"
CADENE, PRLZ77, TORCH7, KERAS = "Cadene", "prlz77", "Torch7", "Keras"
CADENE_RESNET = "Cadene's ResNets"
PADDLE, QUANTISED, CADENE_SE = "Paddle", "torchvision, quantised", "Cadene's SE networks"
FOLDED = "torchvision, norms folded"
CLASSIFICATION_MODELS, SE_CLASSIFICATION_MODELS = "classification_models", "its SE-ResNeXt"
SCHEMES: Mapping[str, Scheme] = {
    TORCHVISION: Scheme(pytorch.torchvision, "'conv1.weight', 'layer1.0.conv2.weight', 'fc.bias'"),
    TIMM_D: Scheme(pytorch.timm_d, "'conv1.0.weight', 'layer1.0.downsample.1.weight', 'fc.bias'"),
    MMPRETRAIN: Scheme(
        pytorch.mmpretrain,
        "'backbone.conv1.weight', 'backbone.layer1.0.conv2.weight' and 'head.fc.bias'",
    ),
    CADENE: Scheme(
        pytorch.cadene, "'features.0.weight', 'features.4.0.0.0.0.3.weight' and 'last_linear.bias'"
    ),
    CADENE_RESNET: Scheme(
        pytorch.cadene_resnet, "'conv1.weight', 'layer1.0.conv2.weight' and 'last_linear.bias'"
    ),
    CADENE_SE: Scheme(pytorch.cadene_se, "'layer0.conv1.weight' and 'layer1.0.conv2.weight'"),
    PRLZ77: Scheme(
        pytorch.prlz77,
        "'conv_1_3x3.weight', 'stage_1.stage_1_bottleneck_0.conv_conv.weight' and "
        "'classifier.bias'",
    ),
    TORCH7: Scheme(module_tree.to_torchvision, "'0.weight', '4.0.0.0.0.3.weight' and '10.bias'"),
    PADDLE: Scheme(paddle, "'bn1._mean', 'bb_0_0.conv0._conv.weight' and 'out.bias'"),
    QUANTISED: Scheme(pytorch.quantised, "'conv1.scale', 'layer1.0.conv2.bias' and 'fc.weight'"),
    FOLDED: Scheme(pytorch.folded, "'conv1.bias', 'layer1.0.conv2.bias' and 'fc.weight'"),
    CLASSIFICATION_MODELS: Scheme(
        classification_models, "'bn_data/beta:0', 'stage1_unit1_conv1/kernel:0' and 'fc1/bias:0'"
    ),
    SE_CLASSIFICATION_MODELS: Scheme(
        classification_models_se, "'conv2d_1/kernel:0', 'conv2d_37/bias:0' and 'dense_1/kernel:0'"
    ),
    KERAS: Scheme(
        keras, "'conv1_conv/kernel:0', 'conv2_block1_2_conv/depthwise_kernel:0' and 'probs/bias:0'"
    ),
}
