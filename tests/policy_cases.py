"""What torchvision and timm make of 200 images with given random numbers, for `test_policies`.

``python tests/policy_cases.py > tests/data/policies.json`` computes the results with their own code
(torchvision 0.28.0, timm 1.0.31, PyTorch 2.13.0 and Pillow 13 wrote the file that is there). Each
random number that they draw comes from the same stream of uniform numbers as ours.
"""

from __future__ import annotations

import json
import math
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
from PIL import Image

COUNT = 200
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TORCHVISION = ("ra", "ta_wide", "imagenet", "cifar10", "augmix")
RANDAUGMENT = ("rand-m7-mstd0.5-inc1", "rand-m9-n3-p0.8", "rand-m9-mstd101-inc1", "rand-m9")
AUGMIX = ("augmix-m3", "augmix-m5-w4-d2", "augmix-m7-mstd1")
TIMM = (*RANDAUGMENT, *AUGMIX, "3a")
ERASED = 24, 31, 3  # height, width and channels of the images that are erased
PHOTO = Path(__file__).parent / "data" / "chelsea.jpg"


class Stream:
    """Uniform numbers, one after the other, however many are asked for at once."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.Generator(np.random.PCG64(seed))

    def random(self, shape: object = 1) -> np.ndarray:
        return self._rng.random(shape)

    def below(self, n: int) -> int:
        return int(self.random()[0] * n)


def images() -> list[Image.Image]:
    """Return parts of a photograph of many sizes, every third of them noise."""
    found = []
    with Image.open(PHOTO) as photo:
        for i in range(COUNT):
            rng = Stream(1000 + i)
            width, height = 20 + rng.below(50), 20 + rng.below(50)
            left, top = rng.below(photo.width - width), rng.below(photo.height - height)
            part = photo.crop((left, top, left + width, top + height))
            if i % 3 == 0:
                part = Image.fromarray((rng.random((height, width, 3)) * 256).astype(np.uint8))
            found.append(part)
    return found


def checksum(pixels: object) -> int:
    """Return the CRC-32 of an array's bytes."""
    return zlib.crc32(np.ascontiguousarray(pixels).tobytes())


def given_to_torch(stream: Stream, uniform: Callable[[], float] | None = None) -> None:
    """Let PyTorch draw from a stream; ``uniform`` has other numbers for ``Tensor.uniform_``."""
    import torch

    uniform = (lambda: stream.random()[0]) if uniform is None else uniform

    def randint(
        *args: object, low: int = 0, high: int = 0, size: object = None, dtype: object = None
    ) -> torch.Tensor:
        *ends, shape = args if size is None else (*args, size)
        low, high = ends if len(ends) == 2 else (0, *ends) if ends else (low, high)
        return torch.tensor([low + stream.below(high - low) for _ in range(math.prod(shape))])

    def drawn(self: torch.Tensor, low: float, high: float) -> torch.Tensor:
        return torch.tensor([float(low) + (float(high) - float(low)) * uniform()])

    torch.randint, torch.Tensor.uniform_ = randint, drawn
    torch.rand = lambda shape: torch.tensor(
        stream.random(shape if isinstance(shape, int) else math.prod(shape))
    )


def _torchvision(results: dict[str, list]) -> None:
    """Add what torchvision computes."""
    import torch

    torch.library.register_fake = lambda *_, **__: lambda f: f  # its compiled part is not needed
    from torchvision.transforms import InterpolationMode, RandomErasing
    from torchvision.transforms import autoaugment as a

    bilinear = {"interpolation": InterpolationMode.BILINEAR}
    policies = {
        "ra": a.RandAugment(**bilinear),
        "ta_wide": a.TrivialAugmentWide(**bilinear),
        "imagenet": a.AutoAugment(a.AutoAugmentPolicy.IMAGENET, **bilinear),
        "cifar10": a.AutoAugment(a.AutoAugmentPolicy.CIFAR10, **bilinear),
    }

    for name, policy in policies.items():
        for i, image in enumerate(images()):
            given_to_torch(Stream(i))
            results.setdefault(name, []).append(checksum(policy(image)))
    _augmix(a, results)
    eraser = RandomErasing(p=0.7)
    for i in range(COUNT):
        given_to_torch(Stream(i))
        erased = eraser(torch.ones(ERASED[2], *ERASED[:2]))
        results.setdefault("erase zero", []).append(checksum(erased.numpy().transpose(1, 2, 0)))


def _augmix(a: ModuleType, results: dict[str, list]) -> None:
    """Add torchvision's AugMix, whose operations take Pillow images here in place of tensors."""
    import torch
    from torchvision.transforms import functional

    plain, policy = a._apply_op, a.AugMix()

    def with_pillow(batch: torch.Tensor, *args: object, **more: object) -> torch.Tensor:
        changed = plain(functional.to_pil_image(batch[0]), *args, **more)
        return functional.pil_to_tensor(changed)[None]

    a._apply_op = with_pillow
    for i, image in enumerate(images()):
        stream = Stream(i)
        given_to_torch(stream)
        policy._sample_dirichlet = lambda ones, stream=stream: torch.tensor(
            dirichlet(stream, ones.shape[1])
        )[None]
        results.setdefault("augmix", []).append(checksum(policy(image)))
    a._apply_op = plain


def dirichlet(stream: Stream, n: int) -> np.ndarray:
    """Return n numbers with the sum 1: float32 [n]."""
    drawn = -np.log1p(-stream.random(n))
    return (drawn / drawn.sum()).astype(np.float32)


def _timm(results: dict[str, list]) -> None:
    """Add what timm computes."""
    import timm.data.auto_augment as t
    import timm.data.random_erasing as erasing
    import torch

    def given(stream: Stream) -> SimpleNamespace:
        def gauss(mean: float, deviation: float) -> float:
            angle, radius = stream.random(2)
            normal = math.cos(2 * math.pi * angle) * math.sqrt(-2 * math.log1p(-radius))
            return mean + deviation * normal

        return SimpleNamespace(
            random=lambda: float(stream.random()[0]),
            uniform=lambda low, high: float(low + (high - low) * stream.random()[0]),
            choice=lambda options: options[stream.below(len(options))],
            randint=lambda low, high: low + stream.below(high - low + 1),
            gauss=gauss,
        )

    fill = tuple(min(255, round(255 * value)) for value in MEAN)
    for name in TIMM:
        said = {"img_mean": fill, "interpolation": Image.Resampling.BILINEAR}
        if name in AUGMIX:
            policy = t.augment_and_mix_transform(name, said)
        elif name in RANDAUGMENT:
            policy = t.rand_augment_transform(name, said)
        else:
            policy = t.AutoAugment(t.auto_augment_policy(name, said))
        for i, image in enumerate(images()):
            stream = Stream(i)
            t.random = given(stream)
            np.random.choice = lambda ops, n, replace, p=None, stream=stream: [
                ops[int(u * len(ops))] for u in stream.random(n)
            ]
            np.random.dirichlet = lambda ones, stream=stream: dirichlet(stream, len(ones))
            np.random.beta = lambda first, second, stream=stream: stream.random()[0]
            np.random.randint = lambda low, high, stream=stream: low + stream.below(high - low)
            results.setdefault(name, []).append(checksum(policy(image)))
    for name, most in (("erase pixel", 1), ("erase three", 3)):
        said = {"probability": 0.7, "mode": "pixel", "device": "cpu", "max_count": most}
        eraser = erasing.RandomErasing(**said)
        for i in range(COUNT):
            stream = Stream(i)
            erasing.random = given(stream)
            # The stream's own numbers stand for those of a normal distribution.
            erasing._get_pixels = lambda *args, stream=stream, **_: torch.tensor(
                noise((*args[2][1:], args[2][0]), stream).transpose(2, 0, 1)
            )
            erased = eraser(torch.ones(ERASED[2], *ERASED[:2]))
            results.setdefault(name, []).append(checksum(erased.numpy().transpose(1, 2, 0)))


def noise(shape: tuple[int, ...], stream: Stream) -> np.ndarray:
    """Return the next numbers of a stream as float32, for what is in a rectangle."""
    return stream.random(shape).astype(np.float32)


if __name__ == "__main__":
    found: dict[str, list] = {}
    _torchvision(found)
    _timm(found)
    json.dump(found, sys.stdout, separators=(",", ":"))
