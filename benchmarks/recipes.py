"""Measure in short runs whether a change helps our own recipes, `fast-cifar` and `finetune`.

``python benchmarks/recipes.py cifar10-jpeg.zip`` trains each recipe as it is, and with one change
at a time, for several random seeds. All runs of a recipe see the same images, and are judged by
others that are kept aside for this choice; the test images of CIFAR-10 judge nothing.

* `fast-cifar`: a network of 11 layers, from the beginning, on 5,000 training images; 3,000 other
  training images judge.
* `finetune`: the bundled model learns a question that it was not trained for, whether an image is
  upright or upside down, from 300 of CIFAR-10's test images, which it has not seen; 1,000 others
  judge.

``--part 0.2`` takes a fifth of all these images, for a first impression.

Finished runs are lines of ``--out``; the same command makes those that are missing, a seed of all
changes before the next seed, and prints the table.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import tinyresnext as tr  # noqa: E402  (the path above finds it)
from tinyresnext.data.dataset import Dataset, some_of  # noqa: E402

SPEC = tr.Spec((1, 1, 1), 8, 4, 10, stem="pooled", expansion=2)
COSINE = {"schedule": "cosine", "lowest": 0.01, "constant": 0.1}
CHANGES: dict[str, dict[str, dict[str, Any]]] = {
    "fast-cifar": {
        "as it is": {},
        "ema 0.98": {"ema": 0.98},
        "cosine, its last tenth constant": COSINE,
        "random erasing": {"erase": 0.25, "erase_with": "pixel"},
        "ta_wide": {"policy": "ta_wide"},
        "clip norm 1": {"clip": "norm", "clip_at": 1.0},
    },
    "finetune": {
        "as it is": {},
        "layer decay 0.75": {"layer_decay": 0.75},
        "smoothing 0.1": {"smoothing": 0.1},
        "ema 0.98": {"ema": 0.98},
        "clip norm 1": {"clip": "norm", "clip_at": 1.0},
    },
}
Images = tuple[Dataset, Dataset]  # to train on, and to judge by


def spread_out(count: int, of: int) -> np.ndarray:
    """Return so many numbers of images at equal distances: classes stand one after the other."""
    return np.linspace(0, of - 1, count).astype(np.int64)


def in_memory(whole: Dataset, numbers: np.ndarray) -> Dataset:
    """Return some of the images, decoded once."""
    pixels = np.stack([whole.picture(i) for i in numbers.tolist()])
    return replace(some_of(whole, numbers), pixels=pixels, read=pixels.__getitem__)


def pictures(data: str, count: int, judging: int) -> Images:
    """Return training images of CIFAR-10, and others of them."""
    whole = tr.data.open_dataset(data, "train", memory=0)  # only what is chosen is decoded
    chosen = np.random.default_rng(0).permutation(spread_out(count + judging, len(whole)))
    return in_memory(whole, chosen[:count]), in_memory(whole, chosen[count:])


def turned(data: str, count: int, judging: int) -> Images:
    """Return test images of CIFAR-10, each second one upside down."""
    whole = tr.data.open_dataset(data, "test", memory=0)
    order = np.random.default_rng(0).permutation(len(whole))

    def some(numbers: np.ndarray) -> Dataset:
        found, labels = in_memory(whole, numbers), np.arange(len(numbers)) % 2
        found.pixels[1::2] = found.pixels[1::2, ::-1].copy()
        return replace(found, labels=labels, classes=("upright", "upside down"))

    return some(order[:count]), some(order[count : count + judging])


def trained(name: str, changes: dict[str, Any], images: Images, threads: int) -> tr.Model:
    """Return a model that a recipe with some changes has trained."""
    recipe = tr.recipe(name, **changes)
    with TemporaryDirectory() as folder:
        if name == "finetune":
            model = tr.load(threads=threads)
            return tr.finetune(model, images[0], recipe, folder, threads=threads)
        return tr.train(SPEC, images[0], recipe, folder, threads=threads)


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the runs that are done."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def table(done: list[dict[str, Any]], name: str) -> Iterator[str]:
    """Yield the lines of a table: accuracy, its spread over the seeds, and the gain."""
    plain = {r["seed"]: r["top1"] for r in done if (r["recipe"], r["change"]) == (name, "as it is")}
    yield f"| `{name}` | accuracy, each seed | mean | spread | gain with the same seed |"
    yield "|---|---|---|---|---|"
    for change in CHANGES[name]:
        found = {r["seed"]: r["top1"] for r in done if (r["recipe"], r["change"]) == (name, change)}
        if found:
            values, gains = list(found.values()), [found[s] - plain[s] for s in found if s in plain]
            spread = f"{stdev(values):.2%}" if len(values) > 1 else "-"
            each = ", ".join(f"{value:.2%}" for value in values)
            gain = ", ".join(f"{value:+.2%}" for value in gains)
            yield f"| {change} | {each} | {mean(values):.2%} | {spread} | {gain} |"


def main() -> int:
    """Make the runs that are missing, and print the tables."""
    p = argparse.ArgumentParser(description="Measure changes of recipes in short runs.")
    p.add_argument("data", help="CIFAR-10 as a zip of images")
    p.add_argument("--recipe", nargs="+", default=list(CHANGES), choices=list(CHANGES))
    p.add_argument("--epochs", type=int, default=12, help="of fast-cifar; finetune has its 10 (12)")
    p.add_argument("--seeds", type=int, default=3, help="random seeds (3)")
    p.add_argument("--part", type=float, default=1.0, help="of all images (1)")
    p.add_argument("--threads", type=int, default=1, help="threads (1)")
    p.add_argument("--out", type=Path, default=HERE.parent / "build" / "recipes.jsonl")
    a = p.parse_args()
    images = {
        "fast-cifar": lambda: pictures(a.data, round(5000 * a.part), round(3000 * a.part)),
        "finetune": lambda: turned(a.data, round(300 * a.part), round(1000 * a.part)),
    }
    given = {name: images[name]() for name in a.recipe}
    a.out.parent.mkdir(parents=True, exist_ok=True)
    done = lines(a.out) if a.out.is_file() else []
    have = {(run["recipe"], run["change"], run["seed"]) for run in done}
    every = [(n, c, s) for s in range(a.seeds) for n in a.recipe for c in CHANGES[n]]
    for name, change, seed in (one for one in every if one not in have):
        began = time.perf_counter()
        epochs = {"epochs": a.epochs} if name == "fast-cifar" else {}
        changes = CHANGES[name][change] | epochs | {"seed": seed}
        model = trained(name, changes, given[name], a.threads)
        run = {"recipe": name, "change": change, "seed": seed, "changes": changes}
        run |= {"top1": tr.evaluate(model, given[name][1]).top1}
        run |= {"seconds": round(time.perf_counter() - began)}
        done.append(run)
        with a.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(run) + "\n")
    for name in a.recipe:
        print("\n".join(["", *table(done, name)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
