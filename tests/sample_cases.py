"""What torchvision and timm make of 200 images with given random numbers, for `test_samples`.

``python tests/sample_cases.py > tests/data/samples.json`` computes the results with their own code
(torchvision 0.28.0, timm 1.0.31, PyTorch 2.13.0 and Pillow 13 wrote the file that is there). As in
`policy_cases`, each random number that they draw comes from the same stream as ours.
"""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import numpy as np
from PIL import Image
from policy_cases import COUNT, MEAN, STD, Stream, checksum, given_to_torch, images

SIDE = 20  # the least side of these images
CROP = 16
TOGETHER = 4  # images in a mini-batch that is mixed
PADDING = 4
JITTER = (0.4, 0.3, 0.6, 0.1)  # brightness, contrast, saturation, hue
RANKS, REPEATS, REPEATED = 4, 3, 512  # a multiple of 256, which timm makes of its number


class Drawn(Stream):
    """The stream, with numbers for a Beta distribution too, as float32 holds them."""

    def beta(self, first: float, second: float) -> float:
        """Return the next number: it stands for one of this distribution."""
        return float(np.float32(self.random()[0]))


def squares() -> list[np.ndarray]:
    """Return the images' upper left corners: uint8 [SIDE, SIDE, 3]."""
    return [np.asarray(image)[:SIDE, :SIDE] for image in images()]


def batches() -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the corners as mini-batches in [0, 1], with one target each."""
    values = np.stack(squares()).astype(np.float32) / np.float32(255)
    rows = np.eye(TOGETHER, dtype=np.float32)
    return [(values[k : k + TOGETHER], rows) for k in range(0, COUNT, TOGETHER)]


def permutation() -> np.ndarray:
    """Return the numbers of images in the order of an epoch without repetitions."""
    return np.argsort(Stream(0).random(REPEATED), kind="stable")


class Blocks(Stream):
    """The stream for torchvision's random crops: each try takes four numbers, used or not."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._left = np.empty(0)

    def uniform(self) -> float:
        """Return the next number for an area or a shape."""
        if len(self._left) < 3:
            self._left = super().random(4)
        return self._next()

    def _next(self) -> float:
        number, self._left = float(self._left[0]), self._left[1:]
        return number

    def random(self, shape: object = 1) -> np.ndarray:
        """Return numbers for the place, and after these others."""
        return np.array([self._next()]) if len(self._left) else super().random(shape)


def _crops(transforms, results: dict[str, list]) -> None:
    """Add random crops, mirrored or not, of each interpolation; and windows in a padded image."""
    from torchvision.transforms import InterpolationMode

    flip = transforms.RandomHorizontalFlip()
    for name in ("bilinear", "bicubic"):
        crop = transforms.RandomResizedCrop(CROP, interpolation=InterpolationMode(name))
        for i, image in enumerate(images()):
            blocks = Blocks(i)
            given_to_torch(blocks, blocks.uniform)
            cropped = crop(image)
            stream = Stream(1000 + i)
            stream.random(2)  # the place of a window, which ours draws here too
            given_to_torch(stream)
            results.setdefault(f"crop {name}", []).append(checksum(flip(cropped)))
    window = transforms.RandomCrop(SIDE, padding=PADDING)
    for i, image in enumerate(squares()):
        given_to_torch(Stream(i))
        results.setdefault("window", []).append(checksum(flip(window(Image.fromarray(image)))))


def _colours(transforms, results: dict[str, list]) -> None:
    """Add jittered colours, and what each value of each channel is after normalisation."""
    import torch

    jitter = transforms.ColorJitter(*JITTER)
    for i, image in enumerate(images()):
        stream = Stream(i)
        given_to_torch(stream)
        order = np.argsort(stream.random(4), kind="stable")
        torch.randperm = lambda n, order=order: torch.tensor(order)
        results.setdefault("jitter", []).append(checksum(jitter(image)))
    table = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    normalise = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    found = normalise(Image.fromarray(table)).numpy().astype(float)
    results["normalised"] = found[:, :, 0].T.tolist()


def _mixed(results: dict[str, list]) -> None:
    """Add mixup, CutMix, and the choice of one of them."""
    import torch
    from torchvision.transforms import v2

    mixup, cutmix = v2.MixUp(num_classes=TOGETHER), v2.CutMix(num_classes=TOGETHER)
    ways = {"mixup": mixup, "cutmix": cutmix, "either": v2.RandomChoice([mixup, cutmix])}
    for name, way in ways.items():
        for i, (x, _) in enumerate(batches()):
            stream = Drawn(i)
            given_to_torch(stream)
            torch.multinomial = lambda p, n, stream=stream: torch.tensor(
                int(stream.random()[0] >= float(p[0]))
            )
            drawn = SimpleNamespace(sample=lambda _, stream=stream: stream.beta(1, 1))
            mixup._dist = cutmix._dist = drawn
            mixture, targets = way(torch.tensor(x.transpose(0, 3, 1, 2)), torch.arange(TOGETHER))
            pixels = checksum(mixture.numpy().transpose(0, 2, 3, 1))
            results.setdefault(name, []).append([pixels, checksum(targets.numpy())])


def _repeated(results: dict[str, list]) -> None:
    """Add the order in which all ranks together see images."""
    import torch
    from timm.data.distributed_sampler import RepeatAugSampler

    torch.randperm = lambda n, generator: torch.tensor(permutation())
    ranks = [
        list(RepeatAugSampler(range(REPEATED), RANKS, rank, num_repeats=REPEATS))
        for rank in range(RANKS)
    ]
    results["repeated"] = [int(image) for images in zip(*ranks, strict=True) for image in images]


def main() -> None:
    """Print all of it."""
    import torch

    torch.library.register_fake = lambda *_, **__: lambda f: f  # its compiled part is not needed
    from torchvision import transforms

    results: dict[str, list] = {}
    _crops(transforms, results)
    _colours(transforms, results)
    _mixed(results)
    _repeated(results)
    json.dump(results, sys.stdout, separators=(",", ":"))


if __name__ == "__main__":
    main()
