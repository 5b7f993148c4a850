"""The one list of op cases. Every backend runs all of it; add a case here and each of them has it.

Data are drawn from a generator seeded with the case's name, so a case is the same alone and in the
whole list.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from tinyresnext.ops import shapes
from tinyresnext.ops.shapes import Pair, pair

UNIT = 2.0**-24  # float32's unit roundoff: half the distance from 1 to the next number


@dataclass(frozen=True)
class Conv:
    """A convolution of ``x[n, h, w, c_in]``; its epilogue is any of ``bias residual relu``."""

    name: str
    x: tuple[int, int, int, int]
    c_out: int
    kernel: Pair = 1
    stride: Pair = 1
    padding: Pair = 0
    groups: int = 1
    epilogue: str = ""
    dilation: Pair = 1

    @property
    def weight(self) -> tuple[int, int, int, int]:
        return self.c_out, self.x[3] // self.groups, *pair("kernel", self.kernel, 1)

    @property
    def fan_in(self) -> int:
        return int(np.prod(self.weight[1:]))

    @property
    def terms(self) -> int:
        """Return how many numbers one result adds up: the products, the bias and the residual."""
        return self.fan_in + ("bias" in self.epilogue) + ("residual" in self.epilogue)

    @property
    def work(self) -> int:
        """Return the number of multiplications, at most."""
        return int(np.prod(self.x[:3])) * self.c_out * self.fan_in

    @property
    def attrs(self) -> dict:
        attrs = {"stride": self.stride, "padding": self.padding, "groups": self.groups}
        return attrs if self.dilation == 1 else attrs | {"dilation": self.dilation}


@dataclass(frozen=True)
class Pool:
    """A pooling of ``x[n, h, w, c]``; ``include_pad`` concerns averages only."""

    name: str
    x: tuple[int, int, int, int]
    size: Pair
    stride: Pair
    padding: Pair = 0
    ceil_mode: bool = False
    include_pad: bool = True

    @property
    def attrs(self) -> dict:
        return {
            "size": self.size,
            "stride": self.stride,
            "padding": self.padding,
            "ceil_mode": self.ceil_mode,
        }


EPILOGUES = (
    "",
    "bias",
    "relu",
    "bias relu",
    "residual",
    "bias residual",
    "residual relu",
    "bias residual relu",
)


def _resnext50() -> list[Conv]:
    """Return every distinct convolution of ResNeXt-50 32x4d, with its channels, on small images."""
    layers = [Conv("r50 stem 7x7", (1, 21, 21, 3), 64, 7, 2, 3, epilogue="bias relu")]
    c_in = 64
    for stage, size in enumerate((8, 8, 7, 5), start=1):
        width, c_out, stride = 64 * 2**stage, 128 * 2**stage, 1 if stage == 1 else 2
        small = (size - 1) // stride + 1
        layers += [
            Conv(f"r50 layer{stage}.0 reduce", (1, size, size, c_in), width, epilogue="bias relu"),
            Conv(
                f"r50 layer{stage}.0 grouped",
                (1, size, size, width),
                width,
                3,
                stride,
                1,
                32,
                "bias relu",
            ),
            Conv(
                f"r50 layer{stage}.0 shortcut",
                (1, size, size, c_in),
                c_out,
                1,
                stride,
                epilogue="bias",
            ),
            Conv(
                f"r50 layer{stage} expand",
                (1, small, small, width),
                c_out,
                epilogue="bias residual relu",
            ),
            Conv(f"r50 layer{stage} reduce", (1, small, small, c_out), width, epilogue="bias relu"),
        ]
        if stage > 1:
            layers.append(
                Conv(
                    f"r50 layer{stage} grouped",
                    (1, small, small, width),
                    width,
                    3,
                    1,
                    1,
                    32,
                    "bias relu",
                )
            )
        c_in = c_out
    return layers


# On the CPU each size of narrow groups is a kernel of its own, which takes seconds to compile: the
# cases that are about something else share groups of 3, 4 or 8 channels.
CONVS = (
    *_resnext50(),
    Conv("r101 32x8d grouped", (1, 7, 9, 256), 256, 3, 1, 1, 32, "bias relu"),
    Conv("r101 32x8d widest, stride 2", (1, 5, 5, 2048), 2048, 3, 2, 1, 32, "bias relu"),
    Conv("r101 64x4d grouped", (1, 7, 7, 256), 256, 3, 1, 1, 64, "bias relu"),
    Conv("r101 64x4d widest", (1, 4, 4, 2048), 2048, 3, 1, 1, 64, "bias"),
    Conv("cifar 8x64d stem", (2, 9, 9, 3), 64, 3, 1, 1, epilogue="bias relu"),
    Conv("cifar 8x64d grouped", (2, 6, 6, 512), 512, 3, 1, 1, 8, "bias relu"),
    Conv("cifar 16x64d grouped, stride 2", (1, 6, 6, 1024), 1024, 3, 2, 1, 16, "bias relu"),
    Conv("deep stem, first", (1, 16, 16, 3), 32, 3, 2, 1, epilogue="bias relu"),
    Conv("deep stem, last", (1, 10, 10, 32), 64, 3, 1, 1, epilogue="bias relu"),
    Conv("resnet50 3x3", (1, 9, 9, 64), 64, 3, 1, 1, epilogue="bias relu"),
    Conv(
        "resnet50 widest 3x3: columns in several parts",
        (1, 4, 4, 512),
        160,
        3,
        1,
        1,
        epilogue="bias",
    ),
    Conv("one pixel", (1, 1, 1, 5), 7, epilogue="bias"),
    Conv("one pixel, 3x3", (1, 1, 1, 4), 6, 3, 1, 1, epilogue="bias residual relu"),
    Conv("one number", (1, 1, 1, 1), 1),
    Conv("kernel larger than the picture", (1, 3, 2, 2), 3, 5, 1, 2, epilogue="bias"),
    Conv("mostly padding", (1, 2, 3, 2), 4, 2, 3, 4, 2, "bias relu"),
    Conv("stride beyond the kernel", (1, 9, 8, 3), 4, 2, 3),
    Conv("1x1 stride 2", (2, 7, 6, 3), 5, 1, 2, epilogue="residual"),
    Conv("1x1 stride 3 by 2", (1, 8, 7, 4), 4, 1, (3, 2)),
    Conv("1x1 padded", (1, 3, 4, 5), 3, 1, 2, (1, 2), epilogue="bias"),
    Conv("1x1 grouped", (1, 4, 5, 24), 24, groups=3, epilogue="bias relu"),
    Conv("kernel 1 by 3", (1, 5, 6, 6), 6, (1, 3), 1, (0, 1), 2, "bias"),
    Conv("kernel 3 by 2, stride 2 by 1", (2, 6, 5, 3), 5, (3, 2), (2, 1), (1, 0), epilogue="relu"),
    Conv(
        "kernel 5 by 1, padded on one side",
        (1, 7, 3, 2),
        2,
        (5, 1),
        (1, 2),
        (2, 0),
        epilogue="residual relu",
    ),
    Conv("depthwise", (1, 6, 6, 7), 7, 3, 1, 1, 7, "bias relu"),
    Conv("depthwise, two filters each", (1, 5, 7, 3), 6, 3, 2, 1, 3, "bias"),
    Conv("five filters a group", (1, 4, 4, 6), 15, 3, 1, 1, 3, "bias residual"),
    Conv("seventeen filters a group", (1, 4, 3, 4), 34, 3, 1, 1, 2),
    Conv("width 3", (2, 5, 9, 15), 15, 3, 1, 1, 5, "bias relu"),
    Conv("width 14", (6, 3, 4, 70), 70, 3, 1, 1, 5, "bias relu"),
    Conv("width 14, stride 2", (1, 9, 8, 42), 42, 3, 2, 1, 3, "bias residual"),
    Conv("width 24", (2, 5, 9, 72), 72, 3, 1, 1, 3, "bias relu"),
    Conv("width 40", (2, 5, 9, 80), 80, 3, 1, 1, 2, "bias relu"),
    Conv("lines of 8, width 8", (1, 4, 8, 64), 64, 3, 1, 1, 8, "bias residual relu"),
    Conv("lines of 16, width 32", (1, 2, 16, 64), 64, 3, 1, 1, 2, "bias relu"),
    Conv("104 filters: panels of two kinds", (1, 4, 5, 6), 104, 3, 1, 1, epilogue="bias relu"),
    Conv("half the filters", (1, 6, 5, 24), 12, 3, 1, 1, 6, "bias relu"),
    Conv("a kernel wider than registers", (1, 9, 12, 6), 6, (3, 11), 1, (1, 5), 2, "bias relu"),
    Conv("one filter for all", (1, 5, 5, 13), 1, 3, 1, 1, epilogue="bias"),
    Conv("prime everything", (3, 7, 11, 13), 17, 3, 2, 1, epilogue="bias relu"),
    Conv("prime everything, 1x1", (3, 7, 11, 13), 67, epilogue="bias residual relu"),
    Conv("positions over several panels", (3, 5, 11, 6), 6, 3, 1, 1, 2, "bias relu"),
    Conv("no pictures", (0, 5, 5, 6), 6, 3, 1, 1, 2, "bias"),
    Conv("no pictures, 1x1", (0, 5, 5, 4), 4, epilogue="bias residual relu"),
    Conv("dilated, grouped", (2, 9, 7, 64), 64, 3, 1, 2, 8, "bias relu", 2),
    Conv("dilated, dense", (1, 10, 11, 5), 7, 3, 1, 4, 1, "bias residual relu", 4),
    Conv("dilated, no padding", (1, 8, 9, 6), 6, 3, 1, 0, 2, "bias", 3),
    Conv("dilated on one side", (2, 5, 8, 6), 6, (1, 3), 1, (0, 3), 2, "residual", (1, 3)),
    Conv("dilated beyond the picture", (1, 2, 3, 3), 4, 3, 1, 4, 1, "", 4),
    Conv("dilated, no pictures", (0, 5, 5, 6), 6, 3, 1, 2, 2, "bias", 2),
    *(Conv(f"epilogue: {e or 'none'}", (2, 4, 5, 6), 6, 3, 1, 1, 2, e) for e in EPILOGUES),
    *(Conv(f"epilogue of 1x1: {e or 'none'}", (2, 3, 5, 6), 7, epilogue=e) for e in EPILOGUES),
)

POOLS = (
    Pool("stem", (1, 11, 11, 64), 3, 2, 1),
    Pool("stem, even", (2, 12, 10, 5), 3, 2, 1),
    Pool("avg-down", (1, 7, 7, 6), 2, 2, 0, True, False),
    Pool("avg-down, even", (1, 8, 6, 6), 2, 2, 0, True, False),
    Pool("padding counted", (1, 5, 6, 3), 3, 2, 1),
    Pool("padding not counted", (1, 5, 6, 3), 3, 2, 1, False, False),
    Pool("padding counted, ceil", (1, 6, 5, 3), 3, 2, 1, True),
    Pool("padding not counted, ceil", (1, 6, 5, 3), 3, 2, 1, True, False),
    Pool("ceil drops a window in the padding", (1, 3, 3, 2), 2, 3, 1, True),
    Pool("global", (2, 7, 7, 5), 7, 7),
    Pool("non-square", (1, 6, 9, 3), (2, 3), (1, 2), (1, 0)),
    Pool("stride beyond the window", (1, 8, 8, 2), 2, 3),
    Pool("one pixel", (1, 1, 1, 3), 1, 1),
    Pool("one pixel, padded", (1, 1, 1, 3), 3, 2, 1),
    Pool("no pictures", (0, 4, 4, 3), 2, 2),
)

CHANNEL_SHAPES = ((2, 3, 5, 7), (1, 1, 1, 1), (1, 4, 4, 64), (0, 3, 3, 4), (3, 7, 5, 257))
ANY_SHAPES = (*CHANNEL_SHAPES, (5,), (3, 4), ())
MEAN_SHAPES = ((1, 7, 7, 2048), (2, 3, 5, 7), (1, 1, 1, 1), (0, 3, 3, 4), (3, 8, 8, 1))
BLURS = (  # x, stride
    ((1, 8, 8, 64), 2),
    ((2, 7, 5, 3), 2),
    ((1, 2, 2, 1), 2),
    ((1, 3, 2, 5), 1),
    ((2, 6, 9, 70), 3),
    ((0, 4, 4, 3), 2),
)
SCALED = ((2, 7, 5, 70), (1, 1, 1, 1), (1, 28, 28, 3), (0, 3, 3, 4), (3, 2, 2, 65))
LINEAR_SHAPES = (
    (1, 2048, 1000),
    (3, 7, 5),
    (1, 1, 1),
    (0, 4, 3),
    (17, 33, 2),
    (129, 3, 2),
    (9, 3, 37),
)  # n, c_in, c_out
SOFTMAX_SHAPES = ((1, 1000), (5, 3), (4, 1), (0, 6))


def generator(name: object) -> np.random.Generator:
    """Return a generator that belongs to a case."""
    return np.random.default_rng(zlib.crc32(repr(name).encode()))


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Return samples of the standard normal distribution, float32."""
    return rng.standard_normal(shape).astype(np.float32)


def gamma(terms: int) -> float:
    """Return ``g_k = k u / (1 - k u)``, the relative error that ``k`` roundings can add up to.

    See Higham (2002), Lemma 3.1.
    """
    return terms * UNIT / (1 - terms * UNIT)


def result_shape(case: Conv) -> tuple[int, ...]:
    """Return the shape of a convolution's result, as the contract defines it."""
    return shapes.conv2d(np.empty(case.x), np.empty(case.weight), **case.attrs)


def conv_data(
    case: Conv, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Return ``x``, ``weight``, ``bias`` and ``residual`` of a case; ``shape`` is the result's."""
    rng = generator(case.name)
    x, weight = normal(rng, *case.x), normal(rng, *case.weight)
    bias = normal(rng, case.c_out) if "bias" in case.epilogue else None
    return x, weight, bias, normal(rng, *shape) if "residual" in case.epilogue else None


def ident(case: object) -> str:
    """Return the name of a case in the test's name."""
    return getattr(case, "name", str(case)).replace(" ", "_")
