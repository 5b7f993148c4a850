"""``train`` and ``finetune`` as a user types them: output, exit codes, and files after a kill."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import training_cases as small
from test_training import log_of, same

from tinyresnext import load
from tinyresnext.cli import main as cli
from tinyresnext.cli.runs.recipe import typed_recipe
from tinyresnext.data import open as opening
from tinyresnext.errors import UsageError
from tinyresnext.store import store
from tinyresnext.training.recipes import RECIPES, kinds, parts
from tinyresnext.training.recipes.recipe import PARTS, settings
from tinyresnext.training.record import state as training_state
from tinyresnext.training.record.folder import TrainingFolder
from tinyresnext.training.weights import size

NETWORK = [
    "--blocks",
    "1,1",
    "--cardinality",
    "2",
    "--width",
    "8",
    "--widen",
    "1",
    "--stem",
    "cifar",
    "--size",
    "8",
]
RECIPE = [
    "--epochs",
    "3",
    "--batch",
    "4",
    "--lr",
    "0.2",
    "--padding",
    "1",
    "--ema",
    "0.9",
    "--device",
    "reference",
]


FEW = "warning: only 9 steps, in which a network hardly learns: --epochs 134 gives 402\n"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    small.write_folder(folder)
    return folder


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Run a command in an empty directory; return exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments):
        try:
            code = cli.main([str(a) for a in arguments])
        except SystemExit as ended:
            code = ended.code
        return code, *capsys.readouterr()

    return command


def test_train_then_classify_then_finetune(run, data):
    train = [
        "train",
        data,
        *NETWORK,
        "--avg-down",
        *RECIPE,
        "--interpolation",
        "bicubic",
        "--val",
        data,
    ]
    train += ["--licence", "CC0-1.0", "--seed", "5", "--out", "red or dark"]
    said = f"tinyresnext: {data}, train: 12 images in 2 classes\n"
    said += f"tinyresnext: {data}, test: 12 images in 2 classes\n{FEW}"
    code, out, err = run(*train)
    assert (code, out, err[: len(said)]) == (0, "red or dark/model.h5\n", said)
    assert err.count("epoch ") == 3
    use = (
        r"tinyresnext: to use it: tinyresnext classify IMAGE --model 'red or dark/(model|best)\.h5'"
    )
    assert re.search(use + "\n$", err)
    model = load("red or dark/model.h5", "reference")
    assert (model.labels, model.spec.classes, model.spec.stem, model.preprocess.crop) == (
        ("dark", "red"),
        2,
        "cifar",
        8,
    )
    assert (model.spec.avg_down, model.preprocess.interpolation) == (True, "bicubic")
    assert model.provenance["licence"] == "CC0-1.0"
    assert model.provenance["command"] == shlex.join(["tinyresnext", *map(str, train)])
    assert json.loads(model.provenance["recipe"])["seed"] == 5
    assert "of 12 images" in model.provenance["accuracy"]
    code, out, _ = run(
        "classify",
        data / "test" / "red",
        "--model",
        "red or dark/model.h5",
        "--device",
        "reference",
    )
    assert (code, out.count("red\n") >= 6) == (0, True)
    tune = [
        "finetune",
        data,
        "--init",
        "red or dark/model.h5",
        "--frozen-to",
        "layer1",
        "--out",
        "tuned",
        "--half",
    ]
    assert run(*tune, "--epochs", 1, "--batch", 4, "--device", "reference")[0] == 0
    tuned = load("tuned/model.h5", "reference")
    assert (
        tuned.params["conv1.weight"] == model.params["conv1.weight"].astype("f2").astype("f4")
    ).all()
    code, out, _ = run("info", "tuned/model.h5")
    assert (code, "command       tinyresnext finetune" in out) == (0, True)


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (["--arch", "resnext99"], 2, "no architecture called 'resnext99'"),
        (["--arch", "resnext29_32x4d", "--width", "8"], 2, "leave out width"),
        (["--arch", "resnext29_32x4d", "--avg-down"], 2, "leave out avg_down"),
        (["--depth", "30"], 2, "9 n + 2 layers"),
        (["--depth", "29", "--stem", "deep"], 2, "--stem is deep"),
        ([], 2, "one of the arguments --arch --depth --blocks is required"),
        (["--blocks", "1,x"], 2, "'x' is not a whole number"),
        (["--depth", "11", "--recipe", "slow"], 2, "no recipe called 'slow'"),
        (["--depth", "11", "--lr", "-1"], 2, "lr is -1.0"),
        (["--depth", "11", "--momentum", "0"], 2, "nesterov"),
        (["--depth", "11", "--val-split", "x", "--val", "DATA"], 2, "x"),
        (["--depth", "11", "--batch", "4", "--resume"], 2, "leave out --resume"),
        (["--depth", "11", "--device", "tpu"], 4, "'tpu'"),
        (
            ["--depth", "11", "--batch", "13", "--device", "reference"],
            2,
            "12 images and a mini-batch 13",
        ),
    ],
)
def test_what_cannot_be(run, data, options, code, text):
    options = [data if option == "DATA" else option for option in options]
    found, out, err = run("train", data, "--out", "run", *options)
    assert (found, out) == (code, "")
    assert text in err
    assert not any(Path("run").glob("*"))


def test_finetune_has_no_options_for_what_the_model_has_already(run, data):
    for option in ("--whiten", "--zero-gamma", "--interpolation=bicubic"):
        code, out, err = run("finetune", data, "--out", "run", option)
        assert (code, out, "unrecognized arguments" in err) == (2, "", True)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("info --model m.h5", "here: tinyresnext info "),
        ("export m.h5 -o m.onnx", "here: tinyresnext export "),
        ("info m.h5 --colour", ""),
        ("train images --output run", "did you mean --out?"),
    ],
)
def test_a_file_behind_an_option_that_is_not_there(run, words, hint):
    code, _, err = run(*words.split())
    assert (code, hint in err, "unrecognized arguments" in err) == (2, True, True), err
    assert ("files are typed without an option" in err) == hint.startswith("here"), err


@pytest.mark.parametrize(
    ("words", "name", "found"),
    [
        ("classify a.jpg --top 3 b.jpg", "paths", ["a.jpg", "b.jpg"]),
        ("classify a --model m --mirror b --model n c", "paths", ["a", "b", "c"]),
        ("classify -- -a.jpg --top", "paths", ["-a.jpg", "--top"]),
        ("features a.jpg -o f.h5 b.jpg", "paths", ["a.jpg", "b.jpg"]),
        ("evaluate a b --split test c", "data", ["a", "b", "c"]),
        ("convert a.pth --half b.h5", "dst", "b.h5"),
        ("export a.h5 --fold a.onnx", "src", "a.h5"),
        ("export --fold a.onnx", "dst", "a.onnx"),
        ("cache warm --precision bfloat16 resnext50_32x4d", "pattern", "resnext50_32x4d"),
        ("train --depth 20 images --out run", "data", "images"),
    ],
)
def test_files_may_stand_behind_options(words, name, found):
    assert vars(cli.parse(words.split()))[name] == found


@pytest.mark.parametrize(
    ("words", "unknown"),
    [
        ("explain a.jpg -o p.html b.jpg", "b.jpg"),
        ("classify a.jpg --tops 3 b.jpg", "--tops"),
        ("classify a.jpg --json -- b.jpg", "b.jpg"),
    ],
)
def test_words_that_are_no_files_of_a_command(capsys, words, unknown):
    """Versions of Python show more or fewer of the words behind an option that is not there."""
    with pytest.raises(SystemExit):
        cli.parse(words.split())
    said = capsys.readouterr().err.partition("unrecognized arguments: ")[2]
    assert unknown in said


@pytest.mark.parametrize(
    ("words", "name", "found"),
    [
        ("train data --depth 20 --loss sigmoid", "head", "sigmoid"),
        ("finetune data --loss softmax", "head", "softmax"),
        ("train data --balance --depth 20", "balance", "weights"),
        ("train data --balance sampling", "balance", "sampling"),
        ("train data --balance none", "balance", "none"),
        ("train data", "balance", None),
        ("finetune data --balance", "balance", "weights"),
        ("convert a.pth --blur-pool", "blur_pool", "binomial"),
        ("convert a.pth --blur-pool --half a.h5", "blur_pool", "binomial"),
        ("convert a.pth --blur-pool average", "blur_pool", "average"),
        ("convert a.pth", "blur_pool", None),
    ],
)
def test_options_that_need_no_word_and_other_names(words, name, found):
    assert vars(cli.parse(words.split()))[name] == found


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("train --balance images.zip", "if it is DATA, give it before the option"),
        ("convert --blur-pool a.pth", "if it is SRC or DST.h5, give it before the option"),
    ],
)
def test_a_file_behind_an_option_that_needs_no_word(capsys, words, remedy):
    with pytest.raises(SystemExit):
        cli.parse(words.split())
    assert remedy in capsys.readouterr().err


def help_of(name):
    """What ``--help`` prints for a command."""
    _, commands = cli.parsers()
    cli.add_options(commands[name])
    return commands[name].format_help()


def flags(option, name):
    """What can be typed for a setting."""
    flag = option.flag or name.replace("_", "-")
    return [f"--{flag}", f"--no-{flag}"] if option.kind == kinds.Flag() else [f"--{flag}"]


def test_every_setting_of_a_recipe_has_an_option():
    train, finetune = help_of("train"), help_of("finetune")
    assert {name for name, _ in settings()} == set(RECIPES["fast-cifar"].to_json())
    for name, option in settings():
        for flag in flags(option, name):
            line = re.compile(rf"^  (--\S+, )?{flag}[ ,\n]", re.MULTILINE)
            assert line.search(train)
            assert bool(line.search(finetune)) != option.first_weights
        assert option.help in " ".join(train.split())
        assert option.first_weights != (option.help in " ".join(finetune.split()))


@dataclass(frozen=True)
class Focus(parts.Loss):
    """A loss with one more setting than ours."""

    focus: float = kinds.setting(1.0, kinds.Real(0, 5, "GAMMA"), "of a loss that is 100 % ours")


def test_a_new_setting_is_an_option_at_once(monkeypatch, capsys):
    monkeypatch.setitem(PARTS, "loss", Focus)
    monkeypatch.setitem(RECIPES, "fast-cifar", replace(RECIPES["fast-cifar"], loss=Focus()))
    for name in ("train", "finetune"):
        assert re.search("--focus GAMMA +of a loss that is 100 % ours", help_of(name))
    a = cli.parse(["train", "data", "--out", "run", "--depth", "11", "--focus", "2"])
    assert typed_recipe(a).loss == Focus(focus=2.0)
    assert typed_recipe(a).to_json()["focus"] == 2.0
    with pytest.raises(SystemExit):
        cli.parse(["train", "data", "--out", "run", "--depth", "11", "--focus", "6"])
    assert "focus is 6.0: expected a number from 0 to 5" in capsys.readouterr().err


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_can_be_typed(name):
    """Every setting as an option in place of another recipe's: the same recipe again."""
    other = next(other for other in RECIPES if other != name)
    words = ["--recipe", other]
    wanted = RECIPES[name]
    for setting, option in settings():
        value = wanted.to_json()[setting]
        if isinstance(value, bool):
            words.append(flags(option, setting)[not value])
        elif isinstance(value, list):
            words += [*flags(option, setting), ",".join(map(str, value))] if value else []
        else:
            words += [*flags(option, setting), str(value)]
    found = typed_recipe(cli.parse(["train", "data", "--out", "run", "--depth", "11", *words]))
    milestones = wanted.schedule.milestones or RECIPES[other].schedule.milestones
    assert found == wanted.changed({"milestones": milestones})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--epochs few", "epochs is 'few': expected a whole number from 1 to 100000"),
        ("--epochs 0", "epochs is 0: expected a whole number from 1 to 100000"),
        ("--padding 1.5", "padding is '1.5': expected a whole number from 0 to 1024"),
        ("--lr fast", "lr is 'fast': expected a number from 0 to 1000"),
        ("--lr nan", "lr is nan: expected a number from 0 to 1000"),
        ("--milestones 0.5,", "milestones are '0.5,': expected parts of the run"),
        ("--milestones 0.5,2", "milestones are (0.5, 2.0): expected parts of the run"),
        ("--milestones 0.7,0.5", "milestones are (0.7, 0.5): expected them in order"),
        ("--sides 20,x", "sides are '20,x': expected whole numbers of pixels"),
    ],
)
def test_values_of_a_recipe_that_cannot_be(options, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.parse(["train", "data", "--out", "run", "--depth", "11", *options.split()])
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err


def test_a_broken_first_picture_is_skipped_and_told_of_once(run, data, tmp_path, monkeypatch):
    """This holds where images are decoded when they are read, and over three epochs."""
    shutil.copytree(data, tmp_path / "data")
    first = tmp_path / "data" / "train" / "dark" / "0.png"
    first.write_bytes(first.read_bytes()[:50])
    monkeypatch.setattr(opening, "open_dataset", partial(opening.open_dataset, memory=0))
    code, _, err = run(
        "train", tmp_path / "data", *NETWORK, *RECIPE, "--broken", "skip", "--out", "run"
    )
    assert (code, err.count("skipped"), "0.png" in err) == (0, 1, True)


def test_data_that_are_not_there(run):
    code, out, err = run("train", "nowhere", "--depth", "11", "--out", "run")
    assert (code, out, "nowhere" in err) == (3, "", True)


SIGNALLED = """
import os, sys
from tinyresnext.cli.main import main
from tinyresnext.training.record.log import Log

left, line = list(range(int(sys.argv[1]))), Log.line

def counted(self, **values):
    line(self, **values)
    if left and not left.pop():
        os.kill(os.getpid(), int(sys.argv[2]))

Log.line = counted
sys.exit(main(sys.argv[3:]))
"""


def signalled(lines, number):
    """Return what runs a command that gets a signal as soon as its log has so many lines.

    From outside, on a busy machine, the signal could come when the run has ended.
    """
    return ["-c", SIGNALLED, str(lines), str(int(number))]


def start(data, out, *more, by=("-m", "tinyresnext")):
    """Start the command in another process."""
    arguments = [
        "train",
        str(data),
        *NETWORK,
        *RECIPE,
        "--epochs",
        "30",
        "--log-every",
        "1",
        "--out",
        str(out),
        *more,
    ]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *by, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def resumed(out):
    """Start a command that names nothing but the folder of the run."""
    words = [sys.executable, "-m", "tinyresnext", "train", "--resume", str(out)]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def found(data):
    """Return what the command says of the images that it found."""
    return f"tinyresnext: {data}, train: 12 images in 2 classes\n"


def few(data):
    """Return what the command says of the images, and of 90 steps."""
    return found(data) + FEW.replace("only 9 ", "only 90 ")


def use(out):
    """Return the last line that the command says."""
    return f"tinyresnext: to use it: tinyresnext classify IMAGE --model {out}/model.h5\n"


def without_epochs(text):
    """Return what was said without the line of each epoch."""
    return re.sub(r"^epoch \d+/\d+  .* images/s  loss .*\n", "", text, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """Return the result of a run that is not interrupted."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    process = start(data, out)
    assert without_epochs(process.communicate()[1]) == few(data) + use(out)
    return out


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_stop_and_resume(data, tmp_path, whole, number):
    process = start(data, tmp_path / "run", by=signalled(5, number))
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (130, "")
    assert err.count("the run ends when this step is done and the state is saved") == 1
    assert "stopped after step" in err
    assert f"this goes on from there: tinyresnext train --resume {tmp_path}/run\n" in err
    assert "Traceback" not in err
    so_far = load(tmp_path / "run" / "stopped.h5", "reference")
    assert f"the model so far in {tmp_path}/run/stopped.h5, and this" in err
    assert so_far.provenance["stopped"].startswith("after step ")
    assert "accuracy" not in so_far.provenance
    process = resumed(tmp_path / "run")
    out, err = process.communicate(timeout=120)
    said = found(data) + use(tmp_path / "run")
    assert (out, without_epochs(err)) == (f"{tmp_path}/run/model.h5\n", said)
    same(whole, tmp_path / "run")
    assert not (tmp_path / "run" / "stopped.h5").exists()


def killed(data, out, random_times):
    """Start the command once, kill it, and return the exit code."""
    process = start(data, out, *(["--resume"] if (out / "state.npz").exists() else []))
    try:
        process.wait(next(random_times))
    except subprocess.TimeoutExpired:
        process.kill()
    _, err = process.communicate()
    assert "Traceback" not in err or process.returncode == -signal.SIGKILL
    return process.returncode


def test_kill_once(data, tmp_path, whole):
    process = start(data, tmp_path / "run", by=signalled(9, signal.SIGKILL))
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    state = training_state.read(tmp_path / "run" / "state.npz")
    assert 1 <= state.epoch <= 30
    process = start(data, tmp_path / "run", "--resume")
    out, err = process.communicate(timeout=120)
    said = found(data) + use(tmp_path / "run")
    assert (out, without_epochs(err)) == (f"{tmp_path}/run/model.h5\n", said)
    same(whole, tmp_path / "run")


@pytest.mark.slow
def test_twenty_kills(data, tmp_path, whole):
    """A kill at any moment leaves a whole state, or none yet.

    The moments are random, from the first import to the last file.
    """
    out, chance = tmp_path / "run", random.Random(0)
    began = time.monotonic()
    start(data, tmp_path / "timed").communicate()
    length = time.monotonic() - began
    kills, epochs = 0, []
    while kills < 20:
        code = killed(data, out, iter([length * chance.uniform(0.1, 0.6)]))
        if code == 0:  # it came to its end: begin a new one
            same(whole, out)
            out = tmp_path / f"run{kills}"
            continue
        assert code == -signal.SIGKILL
        kills += 1
        if (out / "state.npz").exists():
            epochs.append(training_state.read(out / "state.npz").epoch)
            assert (out / "log.jsonl").exists() or epochs[-1] == 0
    process = start(data, out, *(["--resume"] if (out / "state.npz").exists() else []))
    assert process.communicate()[1].endswith(use(out))
    same(whole, out)
    assert not list(out.glob(".*.tmp"))
    assert len(set(epochs)) > 3  # they were not all killed at the same place
    assert len(log_of(out)) == 30 * 3 + 30


# --- few images, and runs that are named by their folder ------------------------------------------


def test_defaults_follow_the_number_of_images(run, data):
    """Each setting that is typed stays."""
    words = ["train", data, *NETWORK, "--out", "run", "--device", "reference"]
    code, _, err = run(*words, "--epochs", 1)
    assert (code, "for 12 images: --batch 12 --lr 0.01875 in place of 128, 0.2\n" in err) == (
        0,
        True,
    )
    recipe = json.loads(load("run/model.h5", "reference").provenance["recipe"])
    assert (recipe["batch"], recipe["epochs"], recipe["lr"]) == (12, 1, 0.2 * 12 / 128)
    again = ["--recipe", "fast-cifar", "--epochs", "1"]
    code, _, err = run(*words[:-4], "--out", "b", *again, "--device", "reference")
    assert (code, "12 images and a mini-batch 128" in err) == (2, True)


def test_a_rate_that_follows_a_typed_batch_is_said_with_it(capsys):
    a = cli.parse(["train", "data", "--depth", "11", "--batch", "4"])
    typed_recipe(a, small.pictures())
    assert "for 70 images and --batch 4: --lr 0.00625 in place of 0.2\n" in (
        capsys.readouterr().err
    )


def test_images_may_stand_behind_a_dry_run(run, data):
    """Its file has the ending of a picture, and images have not."""
    code, out, err = run("train", "--dry-run", data, *NETWORK, *RECIPE)
    assert (code, out.splitlines()[-1]) == (0, "dry-run.png"), err
    code, _, err = run("train", "--dry-run", "mine.png", *NETWORK, *RECIPE)
    assert (code, "arguments are required: DATA" in err) == (2, True)
    code, _, err = run("train", data, "--dry-run", data, *NETWORK, *RECIPE)
    assert (code, "does not end in .png" in err) == (2, True)


def test_part_of_the_images_is_held_out(run, data):
    words = ["train", data, *NETWORK, *RECIPE, "--val-part", "0.3", "--out", "run"]
    code, _, err = run(*words)
    assert (code, "4 of them are held out for validation, 8 are left\n" in err) == (0, True)
    assert [line["top1"] * 4 % 1 for line in log_of(Path("run"))] == [0, 0, 0]
    code, _, err = run(*words, "--val", data)
    assert (code, "--val and --val-part both say" in err) == (2, True)
    for part in ("0", "1", "nan"):
        code, _, err = run(*words[:-4], "--val-part", part, "--out", "b")
        assert (code, "expected a number such as 0.2" in err) == (2, True)


def test_which_part_is_validated_on(run, data, tmp_path):
    """The validation images; or the test images; or all images, but not one's own."""
    words = ["train", data, *NETWORK, *RECIPE, "--dry-run", "--val"]
    for splits, part in (
        (("test", "val"), "val"),
        (("val",), "val"),
        (("test",), "test"),
        ((), "all images"),
    ):
        other = tmp_path / "-".join(("other", *splits))
        for one in splits:
            shutil.copytree(Path(data) / "test", other / one)
        if splits:
            shutil.copytree(Path(data) / "train", other / "train")
        else:
            shutil.copytree(Path(data) / "test", other)
        code, _, err = run(*words, str(other))
        assert (code, f"{other}, {part}: 12 images" in err) == (0, True)
    words[1] = str(other)
    code, _, err = run(*words, f"{other}/")
    assert (code, "trained on all its images; hold some" in err) == (2, True)
    code, _, err = run(*words, str(other), "--val-split", "train")
    assert (code, f"{other}, train: 12 images" in err) == (0, True)


def test_a_run_without_validation_says_that_its_data_have_a_part_for_it(run, data, tmp_path):
    for part, said in (("valid", 1), ("test", 0)):
        own = tmp_path / f"data with {part}"
        shutil.copytree(Path(data) / "train", own / "train")
        shutil.copytree(Path(data) / "test", own / part)
        words = ["train", own, *NETWORK, *RECIPE, "--dry-run"]
        line = f"{own} has a part val, which is not used: with --val '{own}' the network"
        code, _, err = run(*words)
        assert (code, err.count(line)) == (0, said), err
        for more in (["--val", own], ["--val-part", "0.2"], ["--split", part]):
            code, _, err = run(*words, *more)
            assert (code, "which is not used" in err) == (0, False), err


def test_a_run_is_resumed_by_its_folder(run, data, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    shutil.copytree(data, "images")
    assert run("train", "images", *NETWORK, *RECIPE, "--val", "images", "--out", "../run")[0] == 0
    model = tmp_path / "run" / "model.h5"
    before = model.read_bytes()
    monkeypatch.chdir(tmp_path)
    resume = [
        ["--resume", "run"],
        ["here/images", "--resume", "run"],
        ["--resume", "here/images", "--out", "run"],
        ["--out", "run", "--resume"],
        ["--resume", "run", "--threads", "1", "--log-every", "1"],
    ]
    for words in resume:
        model.unlink()
        assert run("train", *words)[0] == 0, words
        assert model.read_bytes() == before, words
    shutil.move("here/images", "moved")
    code, out, err = run("train", "--resume", "run")
    assert (code, out) == (3, "")
    assert (
        "which is not there any more; say where it is now: tinyresnext train DATA --resume" in err
    )
    code, _, err = run("train", "moved", "--resume", "run")
    assert (code, "tinyresnext train --val DATA --resume run" in err) == (3, True)
    assert run("train", "moved", "--val", "moved", "--resume", "run")[0] == 0
    assert model.read_bytes() == before
    assert run("train", "--resume", "run")[0] == 0  # the folder has learnt where they are
    first = sorted(Path("moved/train").rglob("*.png"))[0]
    first.rename(first.with_name("another.png"))
    code, _, err = run("train", "--resume", "run")
    assert (code, "has images" in err) == (2, True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--milestones 0.5", "milestones would change nothing here: give schedule step, too"),
        ("--gamma 0.5", "gamma would change nothing here"),
        ("--schedule step", "the learning rate would never fall"),
        ("--ema-every 3", "ema_every would change nothing here: give ema"),
        ("--recipe torchvision-v1 --padding 4 --fill mean", "padding and fill would change"),
        ("--recipe torchvision-v1 --crop pad", "has a padding of 0"),
        ("--erase-count 3", "erase_count would change nothing here: give random-erase"),
        ("--padding 0 --fill mean", "fill would change nothing here: give padding"),
        ("--crop usual --padding 8 --size 96", "images of 96 pixels are not padded"),
        ("--head sigmoid --entropy softmax", "leave out --entropy softmax"),
        ("--val-split val", "--val-split is for --val"),
    ],
)
def test_what_would_change_nothing(run, data, options, words):
    code, out, err = run("train", data, *NETWORK, *options.split(), "--out", "no")
    assert (code, out, words in err) == (2, "", True), err


@pytest.mark.parametrize("words", [[], ["--recipe", "timm-a2", "--batch", "4"]])
def test_several_labels_have_no_softmax_cross_entropy(run, data, words):
    """Their head is a sigmoid, though none was typed."""
    names = [path.relative_to(data) for path in sorted(data.rglob("*.png"))]
    (data / "labels.csv").write_text("image,a,b\n" + "".join(f"{name},1,0\n" for name in names))
    typed = [*NETWORK, *words, "--entropy", "softmax", "--threshold", "0", "--out", "no"]
    try:
        code, out, err = run("train", str(data / "labels.csv"), *typed)
    finally:
        (data / "labels.csv").unlink()
    assert (code, out, "leave out --entropy softmax" in err) == (2, "", True), err


def test_idle_settings_of_a_named_recipe_are_no_mistake(run, data):
    words = ["--recipe", "torchvision-v1", "--schedule", "cosine", "--dry-run"]
    assert run("train", data, *NETWORK, *words, "--batch", "4", "--gamma", "0.1")[0] == 0


def test_what_is_typed_later_stays(run, data, tmp_path, monkeypatch):
    """A run that is resumed once more does not fall back to the options that it began with."""
    monkeypatch.chdir(tmp_path)
    begin = [str(data), *NETWORK, *RECIPE, "--val-part", "0.25", "--licence", "first"]
    assert run("train", *begin, "--out", "run")[0] == 0
    assert run("train", "--resume", "run", "--licence", "it's second", "--log-every", "3")[0] == 0
    assert run("train", "--resume", "run", "--half")[0] == 0
    found = {}

    def instead(*args, **options):
        found.update(options)
        raise UsageError("seen")

    monkeypatch.setattr("tinyresnext.training.train.train", instead)

    def last(*words):
        assert run("train", "--resume", "run", *words)[0] == 2
        return found["provenance"]["licence"], found["log_every"], found["half"]

    assert last() == ("it's second", 3, True)
    assert last("--log-every", "5") == ("it's second", 5, True)
    assert last() == ("it's second", 3, True)  # what was refused is not kept
    assert shlex.split(found["provenance"]["command"])[-2:] == ["--out", "run"]


def test_what_is_typed_later_holds_for_every_model_of_the_run(run, data):
    words = ["train", data, *NETWORK, *RECIPE, "--val-part", "0.25", "--out", "run"]
    assert run(*words)[0] == 0
    folder = TrainingFolder("run")
    shutil.copy(folder.best, "before.h5")
    shutil.copy(folder.best, "run/stopped.h5")  # as a run that is killed later leaves it
    code, _, err = run("train", "--resume", "run", "--licence", "MIT")
    assert (code, "run/best.h5 is written anew" in err) == (0, True), err
    best, before = load(folder.best, "reference"), load("before.h5", "reference")
    assert best.provenance == {**before.provenance, "licence": "MIT"}
    assert load(folder.model, "reference").provenance["licence"] == "MIT"
    for name, value in before.params.items():
        assert value.tobytes() == best.params[name].tobytes(), name
    code, _, err = run("train", "--resume", "run", "--half")
    assert (code, "run/best.h5 is written anew" in err) == (0, True), err
    assert store.said_of(folder.best) == (best.provenance, True)
    written = folder.best.read_bytes()
    code, _, err = run("train", "--resume", "run")
    assert (code, "anew" in err, folder.best.read_bytes() == written) == (0, False, True), err
    folder.best.write_bytes(written[:1000])
    code, _, err = run("train", "--resume", "run")
    assert (code, "warning: this model stays as it is" in err) == (0, True), err


def test_the_later_of_two_commands_counts(run, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("train", str(data), *NETWORK, *RECIPE, "--out", "run")[0] == 0
    for licence in ("a", "b", "a"):
        assert run("train", "--resume", "run", "--licence", licence)[0] == 0
    assert run("train", "--resume", "run")[0] == 0  # nothing is typed, and nothing recorded
    origin = TrainingFolder("run").meta()["origin"]
    later = [f"tinyresnext train --resume run --licence {licence}" for licence in "ba"]
    assert json.loads(origin["later"]) == later


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--resume", "nowhere"], "there is no nowhere/state.npz to resume"),
        (["--resume", "run", "--out", "other", "DATA"], "--resume names 'run' and --out 'other'"),
        (["--resume"], "--resume needs the folder of the run"),
        (["--out", "run"], "required: DATA; or give --resume FOLDER"),
        (["DATA"], "required: --out; or give --resume FOLDER"),
        (["--resume", "run", "--lr", "3"], "has lr 0.2, and not 3.0"),
        (["--resume", "run", "--depth", "11"], "has network"),
        (["--resume", "run", "--val-part", "0.2"], "has images"),
    ],
)
def test_what_cannot_be_resumed(run, data, words, text):
    state = training_state.new(small.SPEC, small.RECIPE, np.zeros(size(small.SPEC), np.float32))
    Path("run").mkdir()
    training_state.write("run/state.npz", state)
    if any(word.startswith("has ") for word in [text]):
        shutil.rmtree("run")
        assert run("train", data, *NETWORK, *RECIPE, "--out", "run")[0] == 0
    words = [data if word == "DATA" else word for word in words]
    code, out, err = run("train", *words)
    assert (code, out, text in err) == (2, "", True), err


@pytest.mark.parametrize(
    ("command", "code", "text"),
    [
        ("", 3, "is no command of ours"),
        ("rm -rf /", 3, "is no command of ours"),
        ("tinyresnext 'train", 3, "is no command of ours"),
        ("tinyresnext finetune x --out run", 2, "go on with tinyresnext finetune --resume run"),
        ("tinyresnext train x --help", 3, "does not know ('--help')"),
        ("tinyresnext train x --epochs 0", 3, "expected a whole number"),
        ("tinyresnext train x --depth 11 --out elsewhere", 3, "place/x', which is not there"),
    ],
)
def test_a_recorded_command_is_not_trusted(run, command, code, text):
    """It is read by the parser of the command line, and nothing else is done with it."""
    state = training_state.new(small.SPEC, small.RECIPE, np.zeros(size(small.SPEC), np.float32))
    state.origin = {"command": command, "place": "the\nplace"}
    Path("run").mkdir()
    training_state.write("run/state.npz", state)
    found, out, err = run("train", "--resume", "run")
    assert (found, out, text in err) == (code, "", True), err
    assert sorted(path.name for path in Path().iterdir()) == ["run"]
    state.origin = {}
    training_state.write("run/state.npz", state)
    found, _, err = run("train", "--resume", "run")
    assert (found, "begun from Python" in err) == (2, True)


def test_a_recorded_trial_is_not_repeated(run, data, tmp_path, monkeypatch):
    """No run begins with one: who forges a state would have a picture written where it says."""
    monkeypatch.chdir(tmp_path)
    assert run("train", str(data), *NETWORK, *RECIPE, "--out", "run")[0] == 0
    state = training_state.read("run/state.npz")
    state.origin = state.origin | {"command": f"{state.origin['command']} --dry-run elsewhere.png"}
    training_state.write("run/state.npz", state)
    assert run("train", "--resume", "run")[0] == 0
    assert not Path("elsewhere.png").exists()


@pytest.mark.parametrize(
    ("words", "began"),
    [
        (["DATA", "--resume", "run"], ["DATA", "--out", "run"]),
        (["--resume=run", "DATA"], ["--out=run", "DATA"]),
        (["DATA", "--out", "run", "--resume"], ["DATA", "--out", "run"]),
        (["--res", "DATA", "--out", "run"], ["DATA", "--out", "run"]),
        (["--resume=DATA", "--out=run"], ["DATA", "--out=run"]),
    ],
)
def test_a_run_that_was_begun_from_python_records_a_command_that_works(
    run, data, monkeypatch, words, began
):
    state = training_state.new(small.SPEC, small.RECIPE, np.zeros(size(small.SPEC), np.float32))
    Path("run").mkdir()
    training_state.write("run/state.npz", state)
    found = {}

    def instead(*args, **options):
        found.update(options)
        raise UsageError("seen")

    monkeypatch.setattr("tinyresnext.training.train.train", instead)
    words, began = ([w.replace("DATA", str(data)) for w in some] for some in (words, began))
    assert run("train", *words, *NETWORK)[0] == 2
    wanted = ["tinyresnext", "train", *began, *NETWORK]
    assert found["resume"] is True
    assert shlex.split(found["origin"]["command"]) == wanted
    assert shlex.split(found["provenance"]["command"]) == wanted


def test_early_stopping_and_overfitting_as_they_are_typed(run, data):
    words = ["train", data, *NETWORK, *RECIPE]
    code, out, err = run(*words, "--val", data, "--patience", "1", "--epochs", "90", "--out", "run")
    assert (code, out) == (0, "run/model.h5\n")
    assert re.search(r"ended after epoch \d+ of 90: 1 in a row were no better", err)
    again = ["train", "--resume", "run"]
    if "--model run/best.h5" in err:
        Path("run/best.h5").unlink()
        code, out, err = run(*again)
    assert (code, out, "--model run/model.h5" in err) == (0, "run/model.h5\n", True), err
    code, out, err = run(*words, "--overfit")
    assert (code, out.startswith("learnt by heart: a mini-batch of 4 images in ")) == (0, True), err
    code, out, err = run(*words, "--overfit", "--lr", "0")
    assert (code, out, "was not learnt by heart" in err) == (1, "", True)
    code, out, err = run(*words, "--auto-augment", "ra", "--dry-run")
    assert (code, out.splitlines()[-1]) == (0, "dry-run.png"), err
    first, second, *_ = out.splitlines()
    assert (first.startswith("recipe fast-cifar: ours, "), "--auto-augment" in second) == (1, 1)
    Path("mine.png").write_bytes(b"a picture")
    for name, told in (("mine.png", "exists"), ("mine.zip", ".png"), ("no/such.png", "cannot")):
        code, _, err = run(*words, "--dry-run", name)
        assert (code, told in err) == (2, True), err
        assert "--force" not in err  # there is no such option here
    assert Path("mine.png").read_bytes() == b"a picture"
    code, _, err = run(*words, "--dry-run")
    assert (code, err.count("exists"), err.count("dry-run.png is written over")) == (0, 0, 1), err
    for name in ("dry-run.png", "mine.png"):
        Path(name).unlink()
    code, _, err = run("train", "--overfit", "--resume", "run")
    assert (code, "leave out --resume" in err) == (2, True)
    assert sorted(path.name for path in Path().iterdir()) == ["run"]


def test_the_state_of_a_run_is_no_model_and_no_folder(run, data):
    """People who come from elsewhere give the file where others take a model, or a folder."""
    assert run("train", data, *NETWORK, *RECIPE, "--out", "run")[0] == 0
    state = "run/state.npz"
    code, _, err = run("train", "--resume", state)
    assert (code, "give the folder: --resume run\n" in err) == (
        2,
        True,
    )
    known = "`tinyresnext train --resume FOLDER` (finetune, if that began it) goes on"
    code, _, err = run("finetune", data, "--init", state, "--out", "other")
    assert (code, known in err) == (3, True), err
    code, _, err = run("convert", state)
    assert (code, known in err) == (3, True), err
    code, _, err = run("train", "--resume", "run", "--epochs", "4")
    assert (code, "or train run/model.h5 further (finetune --init)" in err) == (2, True), err


def test_the_folder_of_a_run_is_no_model_and_no_second_folder(run, data):
    words = ["train", data, *NETWORK, *RECIPE, "--val-part", "0.25"]
    assert run(*words, "--out", "run")[0] == 0
    known = "run is a folder, and a model is a file in it; name it: run/best.h5, run/model.h5"
    for words in (["finetune", data, "--init", "run", "--out", "other"], ["info", "run"]):
        code, _, err = run(*words)
        assert (code, known in err) == (3, True), err
    code, _, err = run("train", "--resume", "run", "--out", "other")
    assert (code, "'run' and --out 'other'; leave out --out" in err) == (2, True), err
    assert run("train", "--resume", "run", "--out", "./run")[0] == 0
    code, _, err = run("train", "--resume", "run", "--head", "sigmoid")
    known = (
        "has network {'classes': 2, 'head': 'as usual'}, and not {'classes': 1, 'head': 'sigmoid'}"
    )
    assert (code, known in err) == (2, True), err


def test_a_table_with_a_single_1_in_each_row_is_trained_and_evaluated_for_classes(run, data):
    images = [f"test/{name}/{i}.png" for name in ("dark", "red") for i in range(6)]
    rows = [f"{image},{int('dark' in image)},{int('red' in image)}" for image in images]
    shutil.copytree(data, "data")
    Path("data/_classes.csv").write_text("\n".join(["image,dark,red", *rows]) + "\n")
    words = ["train", "data/_classes.csv", *NETWORK, *RECIPE, "--head", "softmax"]
    code, _, err = run(*words, "--val-part", "0.2", "--out", "run")
    assert code == 0, err
    assert "2 of them are held out" in err  # one of each class
    assert "no validation image" not in err
    assert load("run/model.h5", "reference").spec.head == "softmax"
    words = ["evaluate", "data/_classes.csv", "--model", "run/model.h5", "--device", "reference"]
    code, out, err = run(*words, "--json")
    assert (code, json.loads(out)["pictures"]) == (0, 12), err
