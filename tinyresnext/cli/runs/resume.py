"""Going on with a run whose folder alone is named: what began it stands in its state."""

from __future__ import annotations

import argparse
import io
import json
import os
import shlex
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

from ...errors import FormatError, UsageError
from ...system.files import shown

__all__ = ["FOR_VAL", "complete", "origin"]

FOR_VAL = "--val-split is for --val: say which images with --val DATA"

_UNTYPED = object()
# Of each of these, one option at most is given: a new one takes the place of the recorded one.
_ONE_OF = (("arch", "depth", "blocks"), ("frozen_to", "all"), ("val", "val_part"))
_TEACHERS = "teacher"  # of which there may be several
_SEEN = (_TEACHERS, "model")  # whose actions look at the value before: None where there is none
_PATHS = {"data": "DATA", "val": "--val DATA", "model": "--init FILE"}
_LATER = "later"  # the commands that went on with it and changed options
_OF_ONE_COMMAND = ("data", "out", "resume", "mpi", "overfit", "dry_run")  # not kept from these


def origin(a: argparse.Namespace) -> dict[str, str]:
    """Return what the folder of a run records about the command that began it."""
    given = {name: getattr(a, name, None) for name in _PATHS}
    paths = {name: _absolute(path) for name, path in given.items() if path is not None}
    if teachers := getattr(a, _TEACHERS, None):
        paths[_TEACHERS] = json.dumps([_absolute(path) for path in teachers])
    later = {_LATER: text} if (text := getattr(a, _LATER, "")) else {}
    return {"command": shlex.join(["tinyresnext", *a.typed]), "place": os.getcwd()} | paths | later


def _absolute(path: str) -> str:
    """Return where a file is, whatever folder a command is typed in; names of models stay."""
    return os.path.abspath(path) if os.path.exists(path) else path


def complete(a: argparse.Namespace) -> argparse.Namespace:
    """Return the options of a run that begins; or of one that goes on, with what its folder knows.

    What is typed takes the place of what is recorded, now and later; `training` then refuses what
    must not change. ``--resume`` and ``--dry-run`` need no value: the data may stand behind them.

    Raises
    ------
    UsageError
        Something is missing, or there is no run in the folder.
    FormatError
        The folder's state cannot be used, or the images that it names are not there any more.
    """
    if isinstance(a.resume, str):
        if a.out is None or os.path.abspath(a.resume) == os.path.abspath(a.out):
            a.out, a.resume = a.resume, True
        elif a.data is None and not _is_run(a.resume):  # --resume DATA --out FOLDER
            a.data, a.resume = a.resume, True
        else:
            raise UsageError(f"--resume names {a.resume!r} and --out {a.out!r}; leave out --out")
    drawn = a.dry_run
    if isinstance(drawn, str) and a.data is None and not drawn.lower().endswith(".png"):
        from .recipe import DRAWN

        a.data, a.dry_run = drawn, DRAWN  # --dry-run DATA
    if tried := a.overfit or a.dry_run is not None:
        from ...training.trial.overfit import check_trial

        check_trial(a.overfit, a.dry_run is not None, bool(a.resume), processes=1)
    given = {"DATA": a.data, "--out": a.out or ("" if tried else None)}
    if missing := [name for name, value in given.items() if value is None and not a.resume]:
        raise UsageError(
            f"the following arguments are required: {', '.join(missing)}; or give --resume FOLDER "
            "to go on with the run in that folder"
        )
    if not a.resume:
        a.out = a.out or ""
        return a
    if a.out is None:
        raise UsageError("--resume needs the folder of the run: --resume FOLDER")
    return _recorded(a)


def _is_run(folder: str) -> bool:
    """Return whether a run can be resumed in a folder."""
    from ...training.record.folder import TrainingFolder

    return TrainingFolder(folder).state.is_file()


def _recorded(a: argparse.Namespace) -> argparse.Namespace:
    """Return the options that began the run, with what was typed later and now in their place."""
    from ...training.record.folder import TrainingFolder

    began = TrainingFolder(a.out).meta()["origin"]
    parser = argparse.ArgumentParser(add_help=False)
    a.add_options(parser)
    now = _typed(parser, a.typed[a.typed.index(a.command) + 1 :], a.out)
    if not began.keys() >= {"command", "place"}:
        if a.data is None:
            raise UsageError(
                f"the run in {shown(a.out)} was begun from Python, so no command is recorded: go "
                "on from there, with resume=True"
            )
        a.typed = _anew(a.typed, "out" in now)
        return a
    words = _words(began["command"], a)
    then = vars(_parsed(parser, words[2:], a.out))
    later = _texts(began.get(_LATER, ""), [])
    for command in later:
        then = _replaced(then, _kept(_typed(parser, _words(command, a)[2:], a.out)))
    if _kept(now):
        command = shlex.join(["tinyresnext", *a.typed[a.typed.index(a.command) :]])
        later = [*(other for other in later if other != command), command]
    now = _without(now, "data") | ({} if a.data is None else {"data": a.data})
    if "val_split" in now and then.get("val") is None and "val" not in now:
        raise UsageError(FOR_VAL)
    then = _replaced(then, now)
    for name, how in _PATHS.items():
        if then.get(name) is not None and name not in now:
            last = began.get(name, then[name])  # where it was when the run last went on
            then[name] = _found(last, began["place"], how, a, isfile=name == "model")
    if then.get(_TEACHERS) is not None and _TEACHERS not in now:
        last = _texts(began.get(_TEACHERS, ""), then[_TEACHERS])
        how = "--teacher FILE"
        then[_TEACHERS] = [_found(one, began["place"], how, a, isfile=True) for one in last]
    changed = {"typed": words[1:], "out": a.out, "resume": True, "mpi": a.mpi}
    changed[_LATER] = json.dumps(later) if later else ""
    changed |= {"dry_run": None, "overfit": False}  # no run has them; a forged state may
    return argparse.Namespace(**(vars(a) | then | changed))


def _anew(words: list[str], out: bool) -> list[str]:
    """Return the words that begin a run, of those that go on with it.

    Where ``--out`` is not among them, ``--resume`` names the folder; else it may name the images.
    """
    found = []
    for word in words:
        name, _, value = word.partition("=")
        if len(name) < len("--re") or not "--resume".startswith(name):  # argparse takes "--res"
            found.append(word)
        elif not out:
            found.append(f"--out={value}" if value else "--out")
        elif value:
            found.append(value)
    return found


def _replaced(then: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Return options with later ones in their place."""
    ended = [other for some in _ONE_OF if any(name in now for name in some) for other in some]
    ended += ["val_split"] if "val_part" in now else []
    return then | dict.fromkeys(ended) | now


def _kept(typed: dict[str, Any]) -> dict[str, Any]:
    """Return those of the typed options that a run goes on with the next time, too."""
    return {name: value for name, value in typed.items() if name not in _OF_ONE_COMMAND}


def _texts(recorded: str, others: list[str]) -> list[str]:
    """Return the texts that are recorded as a list, or others where there is no such list."""
    try:
        known = json.loads(recorded)
    except (ValueError, RecursionError):
        return others
    fine = isinstance(known, list) and all(isinstance(one, str) for one in known)
    return known if fine else others


def _words(command: str, a: argparse.Namespace) -> list[str]:
    """Return the words of a recorded command, if it is the one that is typed now."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = []
    if words[:1] != ["tinyresnext"] or len(words) < 2:
        raise FormatError(f"{shown(a.out)} records {command!r:.80}, which is no command of ours")
    if words[1] != a.command:
        raise UsageError(
            f"the run in {shown(a.out)} was begun by {words[1]!r:.40}: go on with "
            f"tinyresnext {shown(words[1])} --resume {shown(a.out)}"
        )
    return words


def _parsed(
    parser: argparse.ArgumentParser,
    words: list[str],
    out: str,
    known: argparse.Namespace | None = None,
) -> argparse.Namespace:
    """Return the options that a state records, beside those that are known."""
    said = io.StringIO()
    try:
        with redirect_stderr(said), redirect_stdout(said):
            return parser.parse_args(words, known)
    except SystemExit:
        raise FormatError(
            f"{shown(out)} records options that this version does not know "
            f"({said.getvalue().strip().rpartition(': ')[2]!r:.120}); give all options"
        ) from None


def _typed(parser: argparse.ArgumentParser, words: list[str], out: str) -> dict[str, Any]:
    """Return the options among some words, without those that have a default."""
    names = [*(action.dest for action in parser._actions), *parser._defaults]
    untyped = dict.fromkeys(names, _UNTYPED) | dict.fromkeys(_SEEN)
    found = vars(_parsed(parser, words, out, argparse.Namespace(**untyped)))
    return {
        name: value
        for name, value in found.items()
        if value is not _UNTYPED and not (name in _SEEN and value is None)
    }


def _without(typed: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the options without one of them: argparse sets a positional that is missing."""
    return {other: value for other, value in typed.items() if other != name}


def _found(name: str, place: str, how: str, a: argparse.Namespace, *, isfile: bool) -> str:
    """Return the path of what a run began with, as it was typed in that place."""
    path = os.path.join(place, name)
    if os.path.exists(path):
        return path
    if isfile and os.path.basename(name) == name and not name.endswith(".h5"):
        return name  # a model that was pulled
    raise FormatError(
        f"the run in {shown(a.out)} began with {shown(path)}, which is not there any more; say "
        f"where it is now: tinyresnext {a.command} {how} --resume {shown(a.out)}"
    )
