"""How often fewer bits change the first class, of crops of photographs.

``python benchmarks/agreement.py tests/data`` cuts 1,000 crops from the photographs in a folder, the
same ones in every run, and prints for how many the first class in bfloat16 and in int8 is that of
float32. A crop has 8 to 100 % of a photograph and a ratio of 3:4 to 4:3, as in training; every
second one is mirrored. The scales of int8 are found on other crops.

The model is the bundled one or the one that ``--model`` names. With random weights the figure says
little: their logits are nearly the same for all images, so either one class is always the first, or
rounding decides between several. So the margin is printed too: how far the first logit is before
the second, as a part of the standard deviation of an image's logits.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path[:0] = [str(Path(__file__).parents[1])]

import tinyresnext as tr  # noqa: E402  (the path above finds it, from any folder)
from tinyresnext.ops import backend  # noqa: E402

PRECISIONS = ("bfloat16", "int8")
SUFFIXES = (".jpg", ".jpeg", ".png")
BATCH, TRIES = 16, 10
LEAST, RATIO = 0.08, (3 / 4, 4 / 3)  # of the area, and of the sides


def photographs(places: Sequence[str]) -> list[Path]:
    """Return the image files among these, and in these folders, in order of their names."""
    found: set[Path] = set()
    for place in map(Path, places):
        files = place.rglob("*") if place.is_dir() else [place]
        found |= {file for file in files if file.suffix.lower() in SUFFIXES}
    return sorted(found)


def crops(files: Sequence[Path], count: int, seed: int) -> Iterator[Image.Image]:
    """Yield so many different crops, of the photographs in turn.

    Raises
    ------
    ValueError
        The photographs are too few or too small for so many.
    """
    random, seen = np.random.default_rng(seed), set()
    opened = [Image.open(file).convert("RGB") for file in files]
    for number in range(count):
        which = number % len(opened)
        for _ in range(TRIES):
            box = _box(random, opened[which].size)
            if (which, box) not in seen:
                break
        else:
            raise ValueError(f"{files[which].name} has no more crops; give more photographs")
        seen.add((which, box))
        crop = opened[which].crop(box)
        yield crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if number % 2 else crop


def _box(random: np.random.Generator, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return a box inside an image: left, top, right, bottom."""
    width, height = size
    area = width * height * random.uniform(LEAST, 1)
    ratio = np.exp(random.uniform(*np.log(RATIO)))
    w = min(width, max(1, round((area * ratio) ** 0.5)))
    h = min(height, max(1, round((area / ratio) ** 0.5)))
    left, top = random.integers(width - w + 1), random.integers(height - h + 1)
    return int(left), int(top), int(left + w), int(top + h)


def logits(model: tr.Model, images: Sequence[np.ndarray]) -> np.ndarray:
    """Return the logits of images, in mini-batches."""
    parts = [np.stack(images[at : at + BATCH]) for at in range(0, len(images), BATCH)]
    return np.concatenate([model(part) for part in parts])


def agreement(wide: np.ndarray, narrow: np.ndarray) -> dict[str, Any]:
    """Return for how many images the first class is the same, and how far logits differ."""
    return {
        "same": int((wide.argmax(1) == narrow.argmax(1)).sum()),
        "count": len(wide),
        "error_of_logits": float(np.abs(wide - narrow).max() / np.abs(wide).max()),
    }


def margin(wide: np.ndarray) -> dict[str, float]:
    """Return what the logits say of the figure: the median margin, and how many classes come first.

    The margin is that of the first logit before the second, by the deviation of an image's logits.
    """
    second, first = np.sort(wide, 1)[:, -2:].T
    classes = len(set(wide.argmax(1).tolist()))
    return {"margin": float(np.median((first - second) / wide.std(1))), "first_classes": classes}


def measured(a: argparse.Namespace) -> dict[str, Any]:
    """Compare a model with itself in fewer bits."""
    files = photographs(a.images)
    if not files:
        raise SystemExit("there are no photographs in what was given; expected .jpg or .png")
    model = tr.load(a.model, threads=a.threads)
    images = [tr.prepare(crop, model.preprocess) for crop in crops(files, a.count, a.seed)]
    wide = logits(model, images)
    found = {"model": a.model or "bundled model", "photographs": len(files), **margin(wide)}
    for precision in a.precision:
        if precision == "int8":
            narrow = tr.quantise(model, crops(files, a.calibration, a.seed + 1))
        else:
            ops = backend("cpu", precision)
            narrow = tr.Model(
                model.spec, model.params, model.preprocess, model.labels, {}, ops, a.threads
            )
        found[precision] = agreement(wide, logits(narrow, images))
    return found


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options."""
    p = argparse.ArgumentParser(description="Compare the first classes of fewer bits with float32.")
    p.add_argument("images", nargs="+", metavar="PATH", help="photographs, or folders of them")
    p.add_argument("--model", metavar="NAME|FILE", help="a float32 model (the bundled model)")
    p.add_argument("--count", type=int, default=1000, help="crops to compare (1000)")
    p.add_argument(
        "--calibration", type=int, default=512, help="other crops, for the scales of int8 (512)"
    )
    p.add_argument("--seed", type=int, default=0, help="the random seed of the crops (0)")
    p.add_argument(
        "--precision",
        nargs="+",
        default=list(PRECISIONS),
        choices=PRECISIONS,
        help="by default all",
    )
    p.add_argument("--threads", type=int, help="by default as many as there are cores")
    p.add_argument("--json", metavar="FILE", help="also write the figures there")
    return p.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the figures."""
    a = arguments(argv)
    found = measured(a)
    print(
        f"{found['model']}: {a.count} crops of {found['photographs']} photographs; "
        f"{found['first_classes']} classes come first, with a median margin of "
        f"{found['margin']:.3f} deviations"
    )
    for precision in a.precision:
        one = found[precision]
        print(
            f"  {precision:9} {one['same']} of {one['count']} ({one['same'] / one['count']:.1%}) "
            f"have the first class of float32; logits differ by {one['error_of_logits']:.2%} of "
            "the largest at most"
        )
    if a.json:
        Path(a.json).write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
