"""What the notebooks' own code does: where it finds files, and that it holds when it runs twice."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tinyresnext.ops import reference

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = {int(path.name.split("_")[0]): path for path in (ROOT / "notebooks").glob("*.ipynb")}


def cells(number: int) -> list[dict[str, Any]]:
    """Return the cells with code of a notebook."""
    every = json.loads(NOTEBOOKS[number].read_text("utf-8"))["cells"]
    return [cell for cell in every if cell["cell_type"] == "code"]


def statements(number: int, begins: str) -> list[ast.stmt]:
    """Return the statements of the cell that has a line which begins so."""
    sources = ["".join(cell["source"]) for cell in cells(number)]
    (source,) = [one for one in sources if re.search(rf"^{re.escape(begins)}", one, re.MULTILINE)]
    return ast.parse(source).body


def run(body: list[ast.stmt], names: dict[str, Any]) -> dict[str, Any]:
    """Execute statements with these names, and return the names that there are then."""
    exec(compile(ast.Module(body, []), "notebook", "exec"), names)
    return names


def finding(number: int, package: Path) -> dict[str, Any]:
    """Execute what finds the repository's files, with a package that stands there."""
    body = statements(number, "ROOTS = ")
    first = next(n for n, one in enumerate(body) if ast.unparse(one).startswith("ROOTS"))
    last = next(n for n, one in enumerate(body) if n > first and isinstance(one, ast.If))
    tr = SimpleNamespace(__file__=str(package / "tinyresnext" / "__init__.py"))
    return run(body[first : last + 1], {"Path": Path, "tr": tr, "json": json})


FILES = {1: "CAT", 3: "RESULTS", 4: "LADDER", 8: "DATA", 10: "DATA"}


@pytest.mark.parametrize(("number", "name"), FILES.items())
def test_files_are_found_beside_the_package_and_around_the_notebook(
    number, name, tmp_path, monkeypatch
):
    for package, here in ((ROOT, tmp_path), (tmp_path, ROOT), (tmp_path, ROOT / "notebooks")):
        monkeypatch.chdir(here)
        assert finding(number, package)[name].is_relative_to(ROOT)


@pytest.mark.parametrize("number", FILES)
def test_a_notebook_outside_the_repository_says_what_it_lacks(
    number, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    if number == 3:  # only its last section needs them
        assert finding(number, tmp_path)["runs"] == []
        assert "benchmarks/results/cardinality is not here" in capsys.readouterr().out
    else:
        with pytest.raises(FileNotFoundError, match="clone the repository, and open this notebook"):
            finding(number, tmp_path)


def test_the_page_of_the_notebooks_says_which_of_them_read_files():
    said = (ROOT / "notebooks" / "README.md").read_text("utf-8")
    readers = [n for n in sorted(NOTEBOOKS) if any("ROOTS" in str(c["source"]) for c in cells(n))]
    assert readers == sorted(FILES)
    assert "Notebooks 1, 4, 8 and 10, and section 7 of notebook 3, read files" in said


def functions(number: int, *wanted: str) -> list[ast.stmt]:
    """Return functions that the cells of a notebook define."""
    every = [ast.parse("".join(cell["source"])).body for cell in cells(number)]
    defined = [one for body in every for one in body if isinstance(one, ast.FunctionDef)]
    return [one for one in defined if one.name in wanted]


def test_the_notebook_of_the_tool_stops_where_a_command_fails(tmp_path, capsys):
    def ended(command, **settings):
        return subprocess.CompletedProcess(command, code, f"{tmp_path}/assumed.h5\n", "")

    programs = SimpleNamespace(run=ended)
    names = {"sys": sys, "os": os, "subprocess": programs, "DATA": Path("data"), "WORK": tmp_path}
    command = run(functions(8, "tinyresnext"), names)["tinyresnext"]
    code = 0
    command("convert")
    assert capsys.readouterr().out == "assumed.h5\n"
    code = 2
    with pytest.raises(subprocess.CalledProcessError):
        command("convert")


def test_the_notebook_of_the_tool_runs_twice_in_one_folder(tmp_path, monkeypatch):
    """Its images are written anew, and each training has a folder of its own; none is here."""
    monkeypatch.chdir(tmp_path)
    work = tmp_path / "work"
    work.mkdir()
    outs = []
    tr = SimpleNamespace(
        recipe=lambda *_, **__: None, finetune=lambda *given, **_: outs.append(given[3])
    )
    names = {
        "Path": Path, "WORK": work, "np": np, "shutil": shutil, "tempfile": tempfile, "tr": tr,
        "model": None, "PHOTOGRAPHS": {"grey": Image.new("RGB", (120, 90))},
    }  # fmt: skip
    run(functions(8, "cut", "write", "taught"), names)
    for count in (3, 2):
        names["write"]("squares", "train", (0.0, 0.6), count, seed=0)
        names["taught"](None)
        assert len(list((work / "squares").rglob("*.png"))) == count
    assert len({Path(out) for out in outs if Path(out).is_relative_to(work)}) == 2
    assert list(tmp_path.iterdir()) == [work]


def test_every_file_of_the_notebook_of_the_tool_is_in_its_own_folder():
    sources = "\n".join("".join(cell["source"]) for cell in cells(8))
    files = re.findall(r"(?:(\w+) / )?[\"'][\w/]+\.(?:h5|safetensors|txt|png)[\"']", sources)
    assert set(files) == {"WORK"}
    assert sources.count('tinyresnext("convert"') == sources.count('"--force")') == 2


def rungs() -> dict[str, Any]:
    """Return the lists of the ladder by their names."""
    body = ast.parse((ROOT / "benchmarks" / "ladder" / "__main__.py").read_text("utf-8")).body
    lists = [one for one in body if ast.unparse(one).startswith(("POINTWISE =", "GROUPED ="))]
    return run(lists, {})


def test_the_ladder_shows_the_rungs_that_it_climbs():
    """The stored outputs are of the rungs that its cells take now; the last is the package's."""
    asked: list[list[str]] = []
    names = {
        "ladder": SimpleNamespace(**rungs()),
        "climb": lambda names, layer: asked.append(list(names)),
        "pointwise": None, "grouped": None, "draw": print, "steps": print,
    }  # fmt: skip
    shown = []
    for cell in cells(4):
        body = ast.parse("".join(cell["source"])).body
        if any(re.match(r"\w+ = climb", ast.unparse(one)) for one in body):
            run([one for one in body if not isinstance(one, ast.FunctionDef)], names)
            printed = "".join("".join(out.get("text", "")) for out in cell["outputs"])
            shown.append(re.findall(r"^(\w+) +[\d.]+ GFLOP/s", printed, re.MULTILINE))
    assert asked == shown
    assert [each[-1] for each in asked] == ["both_last_cpu"] * 2


def test_the_notebook_about_bits_rounds_to_as_many_as_it_is_told():
    as_int8 = run(functions(10, "as_int8"), {"np": np})["as_int8"]
    values, scale = np.linspace(-5, 5, 1001, dtype=np.float32), 2.0**-6
    for signed in (False, True):
        eight = reference.quantise(values, scale=scale, signed=signed)
        assert np.array_equal(as_int8(values, scale, signed), eight * np.float32(scale))
    assert set(as_int8(values, 2.0**-4, False, bits=6) * 16) == set(range(64))
    six = as_int8(values, 4 / 31, True, bits=6)
    assert len(set(six)) == 63
    assert six.max() == -six.min() == np.float32(31) * np.float32(4 / 31)
