"""Write a model's card, its curve, and its example in the README, from a run's log and evaluation.

::

    tinyresnext evaluate DATA --split test --model weights/NAME.h5 --json > test.json
    python weights/card.py weights/NAME.h5 RUN/log.jsonl test.json "tinyresnext train DATA ..."

writes ``weights/NAME.md`` and ``weights/NAME.svg``, and puts the prediction for the photograph that
the README classifies between its ``<!-- prediction -->`` markers. The model file itself gets the
accuracy of the evaluation, since a run without validation images knows none. No number is typed by
hand: after a new training, run this script again.

A model that had teachers has a command for each step that made them, and for each of them
``--teacher FILE.h5 EVALUATION.json``, in the order in which they taught. With ``--aim 0.92``, the
card says by how much such an accuracy was missed.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from curve import drawn  # beside this file, as the next
from photographs import SHOWN, answers, described

from tinyresnext import load
from tinyresnext.cli.output.report import architecture
from tinyresnext.inference.model import Model
from tinyresnext.store import store

HOME = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- prediction -->\n```\n", "```\n<!-- /prediction -->"

CARD = Path(__file__).with_suffix(".txt")  # with places for what is known

TAUGHT = """The last command trains the model, and those before it make what taught it. Beside the
labels it learned from the probabilities of its teachers below, of several from their mean
(distillation), at temperature {temperature:g}: that is {weight:.0%} of the loss. The hours are
those of the last command."""

EACH_EPOCH = """where the curve has a line for them, they were
evaluated after each epoch, and the model is that of the last epoch"""

AT_THE_END = "they were evaluated after the last epoch"

SHORT = """

The aim was at least {aim:.0%} of the test images, and {short:.1f} points are missing.
`benchmarks/LOG.md` says what was tried, what it would take, and what is left to try."""

MEASURES = ("top1", "top5", "loss", "confidence", "calibration_error")

SMALLER = """ While training uses smaller images (`sides`), full-size images are new to the network,
and its accuracy on them is lower."""


def main(argv: Sequence[str]) -> int:
    """Write the card, the curve and the README's example."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path, help="the .h5 file")
    parser.add_argument("log", type=Path, help="log.jsonl of the run")
    parser.add_argument("evaluation", type=Path, help="`evaluate --json`")
    parser.add_argument("commands", nargs="+", help="what made it; the last command trained it")
    parser.add_argument(
        "--teacher",
        nargs=2,
        type=Path,
        action="append",
        default=[],
        metavar=("FILE", "JSON"),
        help="a model that taught it, and its `evaluate --json`; once for each",
    )
    parser.add_argument(
        "--aim", type=float, default=0.0, metavar="PART", help="what was to be right, from 0 to 1"
    )
    parser.add_argument("--readme", type=Path, default=HOME / "README.md")
    a = parser.parse_args(argv)
    lines = [json.loads(line) for line in a.log.read_text("utf-8").splitlines()]
    log = [line for line in lines if "epochs" in line]  # the other lines are about single steps
    evaluation = json.loads(a.evaluation.read_text("utf-8"))
    if not log or not {*MEASURES, "confusion"} <= evaluation.keys():
        raise SystemExit(
            f"{a.log} has no line of an epoch, "
            f"or {a.evaluation} is not what `evaluate --json` prints"
        )
    model = load(a.model)
    made = how(model, a.commands, a.teacher)
    state(a.model, evaluation)
    curve, card = a.model.with_suffix(".svg"), a.model.with_suffix(".md")
    curve.write_text(drawn(log), "utf-8")
    card.write_text(written(a.model, model, log, evaluation, a.commands, made, a.aim), "utf-8")
    readme = a.readme.read_text("utf-8")
    a.readme.write_text(put(readme, prediction(model, SHOWN)), "utf-8")
    for path in (curve, card, a.readme):
        print(path)
    return 0


def state(path: Path, evaluation: dict) -> None:
    """Write the accuracy into the model file, if it says another or none; weights stay."""
    stored, report = store.read(path), store.check(path)
    says = f"{evaluation['top1']:.2%} top-1 of {evaluation['pictures']:,} images"
    if stored.provenance.get("accuracy") != says:
        provenance = stored.provenance | {"accuracy": says}
        store.write(path, stored._replace(provenance=provenance), half=_half(report))


def _half(report: store.Report) -> bool:
    """Return whether the kernels are stored in half precision."""
    return "half precision" in str(report)


def how(model: Model, commands: Sequence[str], teachers: Sequence[tuple[Path, Path]]) -> str:
    """Return what the card says between the commands and how long they took: a few paragraphs."""
    recipe, parts = json.loads(model.provenance.get("recipe", "{}")), []
    recorded = model.provenance.get("command", commands[-1])
    if recorded not in commands:
        parts.append(f"The file has the last one as it was typed:\n\n```sh\n{recorded}\n```")
    known = [store.check(file).digests.model for file, _ in teachers]
    taught = re.findall(r"model sha256 (\w+)", model.provenance.get("teacher", ""))
    if known != taught:
        raise SystemExit(f"the model was taught by {taught}, and --teacher names {known}")
    if teachers:
        weight, temperature = recipe["teacher_weight"], recipe["temperature"]
        parts.append(TAUGHT.format(weight=weight, temperature=temperature))
        rows = ["| teacher | what it is | trained in | top-1 on the test images | sha256 |"]
        parts.append("\n".join([*rows, "|---|---|---|---|---|", *map(_teacher, teachers, known)]))
    rows = ["| recipe | |", "|---|---|"]
    parts.append("\n".join([*rows, *(f"| {key} | {value} |" for key, value in recipe.items())]))
    return "\n\n".join(parts)


def _teacher(files: tuple[Path, Path], sha256: str) -> str:
    """Return the row of one teacher: its file and its evaluation."""
    found, evaluation = load(files[0]), json.loads(files[1].read_text("utf-8"))
    says = found.provenance
    what = found.spec.name + (f", quantised {says['quantised']}" if "quantised" in says else "")
    precision = json.loads(says.get("recipe", "{}")).get("precision", "float32")
    top1 = f"{evaluation['top1']:.2%} of {evaluation['pictures']:,}"
    return f"| `{files[0].name}` | {what} | {precision} | {top1} | `{sha256}` |"


def written(
    path: Path,
    model: Model,
    log: Sequence[dict],
    evaluation: dict,
    commands: Sequence[str],
    made: str,
    aim: float,
) -> str:
    """Return the text of the card; ``made`` is what `how` returns, ``aim`` a top-1 accuracy."""
    report, size = store.check(path), path.stat().st_size
    recipe = json.loads(model.provenance.get("recipe", "{}"))
    tried = any("top1" in line for line in log)
    few = sorted({round(i * (len(log) - 1) / 9) for i in range(10)})
    return CARD.read_text("utf-8").format(
        name=path.stem,
        architecture="\n".join(
            f"    {line}" for line in architecture(model.spec, model.preprocess.crop).splitlines()
        ),
        file=path.name,
        megabytes=size / 1e6,
        stored="kernels in half precision" if _half(report) else "in single precision",
        sha256=report.digests.model if report.digests else "",
        prepared=model.preprocess.described(),
        labels=", ".join(model.labels),
        classes=len(model.labels),
        side=model.preprocess.crop,
        count=evaluation["pictures"],
        **{name: evaluation[name] for name in MEASURES},
        leaning=_leaning(evaluation, recipe),
        short=_short(evaluation["top1"], aim),
        commands="\n".join(commands),
        made=made,
        hours=len(log) * sorted(line["seconds"] for line in log)[len(log) // 2] / 3600,
        epochs=len(log),
        speed=sorted(line["images_per_second"] for line in log)[len(log) // 2],
        smaller=SMALLER if recipe.get("sides") else "",
        curve=path.with_suffix(".svg").name,
        tried=EACH_EPOCH if tried else AT_THE_END,
        log="\n".join([*_heading(tried), *(_epoch(log[i]) for i in few)]),
        accuracy=_accuracy(evaluation["classes"]),
        mistakes=_mistakes(evaluation),
        photographs=described(answers(model), model.labels),
    )


def _heading(tried: bool) -> list[str]:
    """Return the first two lines of the table of epochs."""
    names = ["epoch", "learning rate", "training loss", "training accuracy"]
    names += ["top-1 on the images of `--val`"] if tried else []
    return ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]


def _epoch(line: dict) -> str:
    """Return the row of one epoch."""
    cells = [
        str(line["epoch"]),
        f"{line['learning_rate']:.4g}",
        f"{line['loss']:.4f}",
        f"{line['accuracy']:.2%}",
    ]
    return "| " + " | ".join([*cells, *([f"{line['top1']:.2%}"] if "top1" in line else [])]) + " |"


def _accuracy(classes: Sequence[dict]) -> str:
    """Return the table of classes, with their number of images and accuracies."""
    seen = [one for one in classes if one["pictures"]]
    rows = [
        f"| {one['name']} | {one['pictures']:,} | {one['top1']:.2%} | {one['top5']:.2%} |"
        for one in seen
    ]
    return "\n".join(["| class | images | top-1 | top-5 |", "|---|---|---|---|", *rows])


def _mistakes(evaluation: dict, most: int = 6) -> str:
    """Return the most frequent mistakes."""
    names = [one["name"] for one in evaluation["classes"]]
    pairs = [
        (count, truth, answer)
        for truth, row in zip(names, evaluation["confusion"], strict=True)
        for answer, count in zip(names, row, strict=True)
        if truth != answer and count
    ]
    often = sorted(pairs, key=lambda pair: -pair[0])[:most]
    return ", ".join(f"{truth} taken for {answer} {count:,}x" for count, truth, answer in often)


def _short(top1: float, aim: float) -> str:
    """Return by how much the aim was missed; nothing if it was not."""
    return SHORT.format(aim=aim, short=100 * (aim - top1)) if top1 < aim else ""


def _leaning(evaluation: dict, recipe: dict) -> str:
    """Return on which side of the accuracy the mean probability is."""
    if evaluation["confidence"] >= evaluation["top1"]:
        return "it is right less often than its probabilities say."
    smoothed = ", as smoothed labels teach it" if recipe.get("smoothing") else ""
    return f"it is right more often than its probabilities say{smoothed}."


def prediction(model: Model, path: str) -> str:
    """Return what ``classify`` prints."""
    [guesses] = model.predict(str(HOME / path))
    return (
        "\n".join([path, *(f"  {guess.probability:6.1%}  {guess.label}" for guess in guesses)])
        + "\n"
    )


def put(text: str, words: str) -> str:
    """Return the README with new words between its markers."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"the README has no {BEGIN.splitlines()[0]} with a block of code after it")
    return f"{before}{BEGIN}{words}{END}{after}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
