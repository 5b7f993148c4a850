"""The same network as a PyTorch module, with torchvision's attribute names. Needs PyTorch."""

from __future__ import annotations

import torch
from torch import nn

from tinyresnext.network.resnext import Block, blocks
from tinyresnext.network.spec import Spec


class Bottleneck(nn.Module):
    """One block."""

    def __init__(self, block: Block, cardinality: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = (
            nn.Conv2d(block.c_in, block.channels, 1, bias=False),
            nn.BatchNorm2d(block.channels),
        )
        self.conv2 = nn.Conv2d(
            block.channels, block.channels, 3, block.stride, 1, groups=cardinality, bias=False
        )
        self.bn2 = nn.BatchNorm2d(block.channels)
        self.conv3, self.bn3 = (
            nn.Conv2d(block.channels, block.c_out, 1, bias=False),
            nn.BatchNorm2d(block.c_out),
        )
        self.downsample = nn.Identity()
        if block.shortcut == "projection":
            conv = nn.Conv2d(block.c_in, block.c_out, 1, block.stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(block.c_out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        return (self.bn3(self.conv3(y)) + self.downsample(x)).relu()


class Network(nn.Module):
    """Plain ImageNet and CIFAR networks with shortcuts of type B."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        kernel, stride = (7, 2) if spec.stem == "imagenet" else (3, 1)
        self.conv1, self.bn1 = (
            nn.Conv2d(spec.channels, 64, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(64),
        )
        self.maxpool = nn.Identity() if spec.stem == "cifar" else nn.MaxPool2d(3, 2, 1)
        self.stages = []
        for block in blocks(spec):
            stage = block.name.partition(".")[0]
            if not hasattr(self, stage):
                setattr(self, stage, nn.Sequential())
                self.stages.append(stage)
            getattr(self, stage).append(Bottleneck(block, spec.cardinality))
        self.fc = nn.Linear(block.c_out, spec.classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.bn1(self.conv1(x)).relu())
        for stage in self.stages:
            x = getattr(self, stage)(x)
        return self.fc(x.mean((2, 3)))
