"""A network's parameters as other systems write them: their names, order of axes, and pieces.

Each function takes tensors under torchvision's names (timm's for the deep stem and pooled
shortcuts) and gives what the other system would have saved. They go the opposite way of
`tinyresnext.checkpoints.names.schemes` and share nothing with it.
"""

from __future__ import annotations

import re

import numpy as np

from tinyresnext import Spec

Tensors = dict[str, np.ndarray]

# Place in a block -> the way down Torch7's tree from the block, flat as models/resnext.lua builds
# it, nested as published.
FLAT = {
    "conv1": "0.0.0",
    "bn1": "0.0.1",
    "conv2": "0.0.3",
    "bn2": "0.0.4",
    "conv3": "0.0.6",
    "bn3": "0.0.7",
}
NESTED = {
    "conv1": "0.0.0.0",
    "bn1": "0.0.0.1",
    "conv2": "0.0.0.3",
    "bn2": "0.0.0.4",
    "conv3": "0.0.1",
    "bn3": "0.0.2",
}
SHORTCUT = {"downsample.0": "0.1.0", "downsample.1": "0.1.1"}


def split(key: str) -> tuple[int, int, str, str]:
    """Stage and block (0 outside of stages), module, field."""
    match = re.fullmatch(r"(?:layer(\d+)\.(\d+)\.)?(.+)\.(\w+)", key)
    return int(match[1] or 0), int(match[2] or 0), match[3], match[4]


def tree(
    tensors: Tensors,
    spec: Spec,
    places: dict[str, str],
    classifier: str | None = None,
    prefix: str = "",
) -> Tensors:
    """Number the modules: stem, ReLU, a pooling but for CIFAR; a pooling and a View at the end."""
    first = 3 if spec.stem == "cifar" else 4
    last = str(first + len(spec.blocks) + 2) if classifier is None else classifier
    made = {}
    for key, value in tensors.items():
        stage, block, module, field = split(key)
        if field == "num_batches_tracked" and classifier is None:
            continue
        if stage:
            at = f"{prefix}{first + stage - 1}.{block}.{(places | SHORTCUT)[module]}"
        else:
            at = last if module == "fc" else prefix + {"conv1": "0", "bn1": "1"}[module]
        made[f"{at}.{field}"] = value
    return made


def torch7_flat(tensors: Tensors, spec: Spec) -> Tensors:
    return tree(tensors, spec, FLAT)


def torch7_nested(tensors: Tensors, spec: Spec) -> Tensors:
    return tree(tensors, spec, NESTED)


def torch7_wrapped(tensors: Tensors, spec: Spec) -> Tensors:
    """The whole network inside one more container."""
    return {f"0.{key}": value for key, value in torch7_flat(tensors, spec).items()}


def torch7_paths(tensors: Tensors, spec: Spec) -> Tensors:
    """Figure 3(b), ``resnext_B``: a container of C paths of two convolutions; joined, one more."""
    made = {}
    for key, value in torch7_flat(tensors, spec).items():
        if not (match := re.fullmatch(r"(\d+\.\d+\.0\.0)\.([013467])\.(\w+)", key)):
            made[key] = value
        elif match[2] in "67":
            made[f"{match[1]}.{int(match[2]) - 4}.{match[3]}"] = value
        else:
            for i, piece in enumerate(np.split(value, spec.cardinality)):
                made[f"{match[1]}.0.{i}.{match[2]}.{match[3]}"] = piece
    return made


def cadene(tensors: Tensors, spec: Spec) -> Tensors:
    return tree(tensors, spec, NESTED, "last_linear", "features.")


def cadene_first(tensors: Tensors, spec: Spec) -> Tensors:
    """As published until December 2017."""
    return tree(tensors, spec, NESTED, "10.1")


def cadene_bare(tensors: Tensors, spec: Spec) -> Tensors:
    return tree(tensors, spec, NESTED, "last_linear")


def cadene_resnet(tensors: Tensors, spec: Spec) -> Tensors:
    """Its ResNets are torchvision's with another classifier."""
    return {re.sub("^fc", "last_linear", key): value for key, value in tensors.items()}


def mmpretrain(tensors: Tensors, spec: Spec) -> Tensors:
    """Write the deep stem in three pieces; a shortcut's pooling has a number only if it exists."""
    stem = {
        "conv1.0": "0.conv",
        "conv1.1": "0.bn",
        "conv1.3": "1.conv",
        "conv1.4": "1.bn",
        "conv1.6": "2.conv",
        "bn1": "2.bn",
    }
    made = {}
    for key, value in tensors.items():
        stage, block, module, field = split(key)
        if module == "fc":
            made[f"head.fc.{field}"] = value
        elif spec.stem == "deep" and not stage:
            made[f"backbone.stem.{stem[module]}.{field}"] = value
        elif spec.avg_down and stage == 1 and module.startswith("downsample."):
            made[f"backbone.layer1.{block}.downsample.{int(module[-1]) - 1}.{field}"] = value
        else:
            made[f"backbone.{key}"] = value
    return made


def mmcv_averaged(tensors: Tensors, spec: Spec) -> Tensors:
    """With the second copy of every parameter that mmcv's EMAHook keeps among the first."""
    plain = mmpretrain(tensors, spec)
    learned = {
        key: value
        for key, value in plain.items()
        if not key.endswith(("running_mean", "running_var", "tracked"))
    }
    return plain | {"ema_" + key.replace(".", "_"): value + 1 for key, value in learned.items()}


def prlz77(tensors: Tensors, spec: Spec) -> Tensors:
    modules = {
        "conv1": "conv_reduce",
        "bn1": "bn_reduce",
        "conv2": "conv_conv",
        "bn2": "bn",
        "conv3": "conv_expand",
    }
    modules |= {
        "bn3": "bn_expand",
        "downsample.0": "shortcut.shortcut_conv",
        "downsample.1": "shortcut.shortcut_bn",
    }
    outside = {"conv1": "conv_1_3x3", "bn1": "bn_1", "fc": "classifier"}
    made = {}
    for key, value in tensors.items():
        stage, block, module, field = split(key)
        at = (
            f"stage_{stage}.stage_{stage}_bottleneck_{block}.{modules[module]}"
            if stage
            else outside[module]
        )
        made[f"{at}.{field}"] = value
    return made


def depthwise(weight: np.ndarray) -> np.ndarray:
    """Return a grouped convolution as keras-applications keeps it, from what its layers compute.

    The depthwise convolution makes of channel i the products ``i * c + m``; then output ``g * c +
    m`` sums the products m of the channels of group g.
    """
    channels, c, k_h, k_w = weight.shape
    kernel = np.empty((k_h, k_w, channels, c), weight.dtype)
    for output in range(channels):
        group, m = divmod(output, c)
        for t in range(c):
            kernel[:, :, group * c + t, m] = weight[output, t]
    return kernel


def fixed_sum(channels: int, c: int) -> np.ndarray:
    """The 1x1 convolution behind it: which of the ``channels * c`` products each output sums."""
    ones = np.zeros((1, 1, channels * c, channels), np.float32)
    for output in range(channels):
        for t in range(c):
            ones[0, 0, (output // c * c + t) * c + output % c, output] = 1
    return ones


def keras(
    tensors: Tensors,
    spec: Spec,
    nested: bool = False,
    sums: bool = False,
    classifier: str = "probs",
) -> Tensors:
    """Layers numbered from 1, the stem as stage 1; kernels [k_h, k_w, c_in, c_out]."""
    fields = {
        "weight": "gamma",
        "bias": "beta",
        "running_mean": "moving_mean",
        "running_var": "moving_variance",
    }
    made = {}
    for key, value in tensors.items():
        stage, block, module, field = split(key)
        if field == "num_batches_tracked":
            continue
        kind = "bn" if module in ("bn1", "bn2", "bn3", "downsample.1") else "conv"
        place = "0" if module.startswith("downsample") else module[-1]
        layer = f"conv{stage + 1}_block{block + 1}_{place}_{kind}" if stage else f"conv1_{kind}"
        if module == "fc":
            layer, field, value = classifier, {"weight": "kernel", "bias": "bias"}[field], value.T
        elif kind == "bn":
            field = fields[field]
        elif stage and module == "conv2":
            field, value = "depthwise_kernel", depthwise(value)
            if sums:
                made[f"{layer.replace('_conv', '_gconv')}/kernel:0"] = fixed_sum(*value.shape[2:])
        else:
            field, value = "kernel", value.transpose(2, 3, 1, 0)
        made[f"{layer}/{layer}/{field}:0" if nested else f"{layer}/{field}:0"] = value
    return made


def keras_resaved(tensors: Tensors, spec: Spec) -> Tensors:
    """A whole model saved again: groups within groups, and the fixed sums."""
    return keras(tensors, spec, nested=True, sums=True, classifier="predictions")
