"""Train the bundled model by one command: those of its card, one after the other.

::

    python weights/train.py cifar10-jpeg.zip --out trained
    python weights/train.py cifar10-jpeg.zip --out trained --device cuda

Each command is shown before it runs, in the folder that ``--out`` names; at the end the model is
evaluated on the test images. The same words again leave out what is done, and resume a training
that was stopped or killed. The folder gets a copy of the images, and ``steps.json``, which says
what is done; other commands than those that began there, or other images, are refused.

A GPU trains in float32, on as many threads of the processor as it likes, so for one the options
``--precision bfloat16`` and ``--threads`` are left out. Nothing but its precision tells the second
teacher from the first, so there it has another seed. No GPU has run this so far.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import shlex
import shutil
import sys
import zipfile
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path

from tinyresnext.cli.main import main as command
from tinyresnext.errors import UsageError
from tinyresnext.training.record.folder import TrainingFolder

IMAGES = "cifar10-jpeg.zip"
TEACHER = f"tinyresnext train {IMAGES} --arch resnext20_2x64d --recipe muon-cifar"
CARD = (
    f"{TEACHER} --val {IMAGES} --threads 2 --out t1 --half",
    f"{TEACHER} --precision bfloat16 --threads 2 --out t2 --half",
    f"python -m zipfile -e {IMAGES} cifar10",
    "tinyresnext quantise t1/model.h5 --images cifar10/train -o t1.int8.h5",
    "tinyresnext quantise t2/model.h5 --images cifar10/train -o t2.int8.h5",
    f"tinyresnext train {IMAGES} --arch resnext20_8x32d --recipe muon-cifar --epochs 36 "
    "--precision bfloat16 --teacher t1.int8.h5 --teacher t2.int8.h5 --temperature 2 --threads 2 "
    "--out a8 --licence Apache-2.0 --half --log-every 65",
    "tinyresnext quantise a8/model.h5 --images cifar10/train -o t3.int8.h5",
    f"tinyresnext train {IMAGES} --arch resnext20_16x16d --recipe muon-cifar --epochs 36 "
    "--precision bfloat16 --teacher t3.int8.h5 --temperature 2 --threads 2 "
    "--out c16 --licence Apache-2.0 --half --log-every 65",
)
EVALUATION = f"tinyresnext evaluate {IMAGES} --split test --model c16/model.h5"
STEPS = "steps.json"
INTERRUPTED = 130


def main(argv: Sequence[str]) -> int:
    """Run the commands; return the exit code of the last one that ran."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "data", type=Path, help="a zip file with train/CLASS/ and test/CLASS/, as the card says"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, metavar="N", help="in place of the card's")
    parser.add_argument("--out", type=Path, default=Path("trained"), metavar="FOLDER")
    parser.add_argument("--epochs", type=int, metavar="N", help="of each training, to try it")
    a = parser.parse_args(argv)
    try:
        return train(a.data, a.out, commands(a.device, a.threads, a.epochs))
    except UsageError as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED


# --- the commands ---------------------------------------------------------------------------------


def commands(
    device: str = "cpu", threads: int | None = None, epochs: int | None = None
) -> list[list[str]]:
    """Return the words of all commands; for the processor they are the card's to the letter."""
    return [adapted(line, device, threads, epochs) for line in (*CARD, EVALUATION)]


def adapted(line: str, device: str, threads: int | None, epochs: int | None) -> list[str]:
    """Return the words of a command for a device."""
    words = shlex.split(line)
    if words[0] != "tinyresnext":
        return words
    if device != "cpu":
        if words[1] == "train" and value(words, "--out") == "t2":
            words = changed(words, "--seed", "1")
        words = changed(changed(words, "--precision", None), "--threads", None)
        words = changed(words, "--device", device)
    if threads is not None:
        words = changed(words, "--threads", str(threads))
    if epochs is not None and words[1] == "train":
        words = changed(words, "--epochs", str(epochs))
    return words


def value(words: list[str], option: str) -> str:
    """Return the word behind an option."""
    return words[words.index(option) + 1]


def changed(words: list[str], option: str, now: str | None) -> list[str]:
    """Return the words with another value of an option, or without it."""
    if option in words:
        at = words.index(option)
        words = words[:at] + words[at + 2 :]
    return words if now is None else [*words, option, now]


# --- running them ---------------------------------------------------------------------------------


def train(data: Path, out: Path, todo: list[list[str]]) -> int:
    """Run in a folder what is not done there; the last command is no step and always runs."""
    done = begun(data, out, todo)
    with chdir(out):
        for number, words in enumerate(todo):
            if number < done:
                print(f"done before: {shlex.join(words)}", flush=True)
                continue
            if code := ran(words):
                again = "the same command goes on from here" if code == INTERRUPTED else ""
                print(f"ended with exit code {code}. {again}".strip(), file=sys.stderr)
                return code
            noted(todo, min(number + 1, len(todo) - 1))
    return 0


def begun(data: Path, out: Path, todo: list[list[str]]) -> int:
    """Return how many steps are done in a folder, which gets the images at its beginning.

    Raises
    ------
    UsageError
        The images are no such zip file, or the folder has something else in it.
    """
    checked(data)
    steps, images = out / STEPS, out / IMAGES
    if not steps.exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UsageError(f"{out} is there and has no {STEPS}: give a new folder with --out")
        out.mkdir(parents=True, exist_ok=True)
        with chdir(out):
            noted(todo, 0)
    known = json.loads(steps.read_text("utf-8"))
    if known["commands"] != [shlex.join(words) for words in todo]:
        raise UsageError(
            f"{out} was begun with other options; its commands are in {steps}: give the same "
            "options, or a new folder with --out"
        )
    if not images.exists():
        copy = images.with_suffix(".new")
        shutil.copyfile(data, copy)
        copy.replace(images)
    if not filecmp.cmp(data, images, shallow=False):
        raise UsageError(
            f"{data} differs from {images}, with which the training began: give that one, or a new "
            "folder with --out"
        )
    return int(known["done"])


def checked(data: Path) -> None:
    """Refuse what is no zip file with images to train on and to test."""
    what = "expected a zip file with train/CLASS/ and test/CLASS/, as the model's card says"
    if not data.is_file() or not zipfile.is_zipfile(data):
        raise UsageError(f"{data} is {'no zip file' if data.exists() else 'not there'}, {what}")
    with zipfile.ZipFile(data) as archive:
        found = {name.partition("/")[0] for name in archive.namelist()}
    if not found >= {"train", "test"}:
        raise UsageError(f"{data} has {', '.join(sorted(found)) or 'nothing'} in it, {what}")


def noted(todo: list[list[str]], done: int) -> None:
    """Write how many steps are done, in the folder that is the current one."""
    text = json.dumps({"commands": [shlex.join(words) for words in todo], "done": done}, indent=1)
    new = Path(STEPS).with_suffix(".new")
    new.write_text(text + "\n", "utf-8")
    new.replace(STEPS)


def ran(words: list[str]) -> int:
    """Run a command whose step is not done; what it may have left half done is taken up or away."""
    if words[0] != "tinyresnext":  # python -m zipfile -e ARCHIVE FOLDER
        shutil.rmtree(words[-1], ignore_errors=True)
        print(f"$ {shlex.join(words)}", flush=True)
        zipfile.main(words[3:])
        return 0
    if words[1] == "quantise":
        Path(value(words, "-o")).unlink(missing_ok=True)
    if words[1] == "train" and TrainingFolder(folder := value(words, "--out")).state.exists():
        words = ["tinyresnext", "train", "--resume", folder]
    print(f"$ {shlex.join(words)}", flush=True)
    return command(words[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
