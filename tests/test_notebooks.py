"""What the notebooks' own code does: where it finds files, and that it holds when it runs twice."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

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
