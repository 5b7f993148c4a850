"""Measure in short runs whether a change helps our own recipes, `fast-cifar` and `finetune`.

``python benchmarks/recipes.py cifar10-jpeg.zip`` trains by each recipe as it is, and with one
change at a time, for several random seeds. All images are training images of CIFAR-10; those that
judge a run are others than those that it learns from. A seed draws both, so the spread over the
seeds has everything that chance decides. There are three jobs:

* `fast-cifar`: a network of 11 layers learns from the beginning, from 9,600 images in 4 epochs,
  which are 300 steps.
* `other-classes`, for `finetune`: the same network, which has learnt the first five classes, learns
  the other five from 400 images. The first part is done once, by the recipe ``--begin``, and kept
  beside ``--out``, which has the runs of one such model.
* `upside-down`, for `finetune`: the bundled model, from 300 images, learns whether an image is
  upright or upside down. It has seen all training images, but never this question.

Finished runs are lines of ``--out``; the same command makes those that are missing, a seed of all
changes before the next seed, and prints a table. ``--job`` and ``--change`` take some only.
Seeds that chose a change cannot judge it: ``--chosen-by 0`` leaves seed 0 out of its mean gain.
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
FIRST = 5  # so many classes are learnt before the job `other-classes`
CONSTANT = {"lowest": 0.01, "constant": 0.1}
FAST: dict[str, dict[str, Any]] = {
    "as it is": {},
    "without clipping": {"clip": "none", "clip_at": 0.0},
    "ema 0.98": {"ema": 0.98},
    "cosine, its last tenth constant": {"schedule": "cosine"} | CONSTANT,
    "random erasing": {"erase": 0.25, "erase_with": "pixel"},
    "ta_wide": {"policy": "ta_wide"},
}
FINETUNE: dict[str, dict[str, Any]] = {
    "as it is": {},
    "lr 0.03": {"lr": 0.03},
    "lr 0.1": {"lr": 0.1},
    "layer decay 0.75": {"layer_decay": 0.75},
    "AdamW, lr 0.001": {"optimiser": "adamw", "nesterov": False, "lr": 0.001},
    "Muon 0.02": {"muon": 0.02},
    "Muon 0.05": {"muon": 0.05},
    "clip norm 1": {"clip": "norm", "clip_at": 1.0},
    "warm-up 0.2": {"warmup": 0.2},
    "last tenth constant": CONSTANT,
    "ema 0.98": {"ema": 0.98},
    "smoothing 0.1": {"smoothing": 0.1},
    "mixup 0.2": {"mixup": 0.2},
    "CutMix 1": {"cutmix": 1.0},
    "ta_wide": {"policy": "ta_wide"},
    "drop-out 0.2": {"dropout": 0.2},
    "stochastic depth 0.1": {"drop_path": 0.1},
    "resized crops": {"crop": "resized"},
}
CHANGES = {"fast-cifar": FAST, "other-classes": FINETUNE, "upside-down": FINETUNE}
COUNTS = {"fast-cifar": (9600, 3000), "other-classes": (400, 1500), "upside-down": (300, 1000)}
Images = tuple[Dataset, Dataset]  # to learn from, and to judge by
Run = dict[str, Any]


def in_memory(whole: Dataset, numbers: np.ndarray) -> Dataset:
    """Return some of the images, decoded once."""
    pixels = np.stack([whole.picture(i) for i in numbers.tolist()])
    return replace(some_of(whole, numbers), pixels=pixels, read=pixels.__getitem__)


def drawn(whole: Dataset, job: str, seed: int) -> Images:
    """Return the images of a run and those that judge it."""
    later = np.flatnonzero(whole.labels >= (FIRST if job == "other-classes" else 0))
    chosen = np.random.default_rng(seed).permutation(later)
    count, judging = COUNTS[job]
    found = [in_memory(whole, n) for n in (chosen[:count], chosen[count : count + judging])]
    asked = {"other-classes": others, "upside-down": turned}.get(job, lambda images: images)
    return asked(found[0]), asked(found[1])


def others(images: Dataset) -> Dataset:
    """Return images of the last classes with labels from 0."""
    return replace(images, labels=images.labels - FIRST, classes=images.classes[FIRST:])


def turned(images: Dataset) -> Dataset:
    """Return the images with each second one upside down, which is what labels say."""
    images.pixels[1::2] = images.pixels[1::2, ::-1].copy()
    labels = np.arange(len(images)) % 2
    return replace(images, labels=labels, classes=("upright", "upside down"))


def learn_first(whole: Dataset, name: str, folder: Path, threads: int) -> None:
    """Train the model of the first classes by the recipe of that name, if it is not there."""
    if (folder / "model.h5").is_file():
        return
    early = np.random.default_rng(0).permutation(np.flatnonzero(whole.labels < FIRST))
    images, kept = in_memory(whole, early[:10_000]), in_memory(whole, early[10_000:12_000])
    known = [replace(some, classes=whole.classes[:FIRST]) for some in (images, kept)]
    recipe = tr.recipe(name, epochs=6)
    model = tr.train(replace(SPEC, classes=FIRST), known[0], recipe, folder, threads=threads)
    print(f"the first classes: {tr.evaluate(model, known[1]).top1:.2%}", flush=True)


def trained(job: str, changes: dict[str, Any], images: Dataset, begin: Path, threads: int):
    """Return a model that a recipe with some changes has trained, from the model in a file."""
    recipe = tr.recipe("fast-cifar" if job == "fast-cifar" else "finetune", **changes)
    with TemporaryDirectory() as folder:
        if job == "fast-cifar":
            return tr.train(SPEC, images, recipe, folder, threads=threads)
        model = tr.load(begin / "model.h5" if job == "other-classes" else None, threads=threads)
        return tr.finetune(model, images, recipe, folder, threads=threads)


def table(done: list[Run], job: str, chose: list[int]) -> Iterator[str]:
    """Yield the lines of a table: accuracy of each seed, and the gain over the same seed."""
    by = {(run["change"], run["seed"]): run["top1"] for run in done if run["job"] == job}
    yield f"| `{job}` | accuracy, each seed | gain with the same seed | mean, other seeds |"
    yield "|---|---|---|---|"
    for change in CHANGES[job]:
        seeds = sorted(seed for name, seed in by if name == change)
        gains = {s: by[change, s] - by["as it is", s] for s in seeds if ("as it is", s) in by}
        judging = [100 * gain for seed, gain in gains.items() if seed not in chose]
        error = stdev(judging) / len(judging) ** 0.5 if len(judging) > 1 else float("nan")
        each = ", ".join(f"{by[change, seed]:.1%}" for seed in seeds)
        gained = ", ".join(f"{100 * gain:+.1f}" for gain in gains.values())
        total = f"{mean(judging):+.2f} +- {error:.2f}" if judging else ""
        if seeds:
            yield f"| {change} | {each} | {gained} | {total} |"


def main() -> int:
    """Make the runs that are missing, and print the tables."""
    p = argparse.ArgumentParser(description="Measure changes of recipes in short runs.")
    p.add_argument("data", help="CIFAR-10 as a zip of images")
    p.add_argument("--job", nargs="+", default=list(CHANGES), choices=list(CHANGES))
    p.add_argument("--change", nargs="+", help="some changes only; the recipe as it is comes first")
    p.add_argument("--epochs", type=int, default=4, help="of fast-cifar; finetune has its 10 (4)")
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="random seeds (0 1 2)")
    p.add_argument("--begin", default="muon-cifar", help="what trains the first classes")
    p.add_argument("--chosen-by", type=int, nargs="*", default=[0], help="seeds that chose (0)")
    p.add_argument("--threads", type=int, default=1, help="threads (1)")
    p.add_argument("--out", type=Path, default=HERE.parent / "build" / "recipes.jsonl")
    a = p.parse_args()
    whole = tr.data.open_dataset(a.data, "train", memory=0)  # only what is drawn is decoded
    begin = a.out.parent / f"first-classes-{a.begin}"
    a.out.parent.mkdir(parents=True, exist_ok=True)
    if "other-classes" in a.job:
        learn_first(whole, a.begin, begin, a.threads)
    done = [json.loads(s) for s in a.out.read_text("utf-8").splitlines()] if a.out.exists() else []
    have = {(run["job"], run["change"], run["seed"]) for run in done}
    for job, seed in ((j, s) for s in a.seeds for j in a.job):
        wanted = [c for c in CHANGES[job] if c in {"as it is", *(a.change or CHANGES[job])}]
        missing = [change for change in wanted if (job, change, seed) not in have]
        images = drawn(whole, job, seed) if missing else None
        for change in missing:
            began = time.process_time()
            epochs = {"epochs": a.epochs} if job == "fast-cifar" else {}
            changes = CHANGES[job][change] | epochs | {"seed": seed}
            model = trained(job, changes, images[0], begin, a.threads)
            run = {"job": job, "change": change, "seed": seed, "changes": changes}
            run |= {"top1": tr.evaluate(model, images[1]).top1}
            run |= {"processor_seconds": round(time.process_time() - began)}
            done.append(run)
            with a.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(run) + "\n")
    for job in a.job:
        print("\n".join(["", *table(done, job, a.chosen_by)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
