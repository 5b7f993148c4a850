"""What the pages say of the code: links, names, commands and examples are those that exist."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import tinyresnext
from tinyresnext.cli.main import add_options, parse, parsers
from tinyresnext.network.resnext import blocks, parameters
from tinyresnext.network.spec import VARIANTS, variant

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(tinyresnext.__file__).parent
FOLDERS = (".", "docs", "docs/reference", "weights", "notebooks", "benchmarks", "tests/data")
PAGES = sorted(page for folder in FOLDERS for page in (ROOT / folder).glob("*.md"))
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s]*)\)")
DEFINED = re.compile(r"`([\w./-]+\.py)::(\w+(?:\.\w+)?)`")
PATH = re.compile(r"`([\w.-]+/(?:[\w.-]+/)*(?:[\w-]+\.(?:py|md|toml|svg|json|ipynb|txt))?)`")
PLACEHOLDER = re.compile(r"\b(DATE|NAME|CLASS|SPLIT|SYSTEM)\b")  # what stands for a name
ABOUT = {page: page.relative_to(ROOT).as_posix() for page in PAGES}


def prose(page: Path) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def code(page: Path, language: str) -> Iterator[str]:
    """Yield the blocks of code in a language."""
    pattern = rf"^```{language}(?: \w+)?\n(.*?)^```$"
    yield from re.findall(pattern, page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Return what GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=ABOUT.get)
def test_links_lead_somewhere(page):
    for target in LINK.findall(prose(page)):
        name, _, anchor = target.partition("#")
        found = page.parent / name if name else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


def defined(path: Path) -> set[str]:
    """Return the names that a module defines, and those of its classes with a dot."""
    found = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            inside = [part for part in node.body if isinstance(part, ast.FunctionDef)]
            found |= {f"{node.name}.{part.name}" for part in inside}
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {
                name.id for t in targets for name in ast.walk(t) if isinstance(name, ast.Name)
            }
    return found


@pytest.mark.parametrize("page", PAGES, ids=ABOUT.get)
def test_names_are_defined_where_a_page_says(page):
    for path, name in DEFINED.findall(prose(page)):
        assert (ROOT / path).exists(), path
        assert name in defined(ROOT / path), f"{path}::{name}"


@pytest.mark.parametrize("page", PAGES, ids=ABOUT.get)
def test_paths_exist(page):
    """A path is one from the root, from the package, or from the page's own folder."""
    for path in PATH.findall(prose(page)):
        known = PLACEHOLDER.search(path) or any(
            (base / path).exists() for base in (ROOT, PACKAGE, page.parent)
        )
        assert known, path


def test_the_paper_index_names_networks_that_exist():
    named = set(re.findall(r"`(resne(?:x)?t\d+_?\w*)`", prose(ROOT / "docs" / "paper.md")))
    assert len(named) > 10
    assert named <= set(VARIANTS)


def commands() -> Iterator[tuple[str, str]]:
    """Yield every command of the package in the pages, with the page it is on."""
    for page in PAGES:
        for block in code(page, "sh"):
            for line in block.replace("\\\n", "").splitlines():
                for part in line.split(" && "):
                    if part.startswith("tinyresnext "):
                        yield ABOUT[page], part.partition("  #")[0]


@pytest.mark.parametrize(("page", "command"), sorted(set(commands())))
def test_commands_are_understood(page, command):
    parse(shlex.split(command)[1:])


@pytest.mark.parametrize("page", PAGES, ids=ABOUT.get)
def test_examples_use_what_exists(page):
    for block in code(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = import_module(node.module)
                for alias in node.names:
                    name = f"{node.module}.{alias.name}"
                    assert hasattr(module, alias.name) or importlib.util.find_spec(name), name
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "tr":
                assert node.attr in dir(tinyresnext), node.attr


def options() -> dict[str, set[str]]:
    """Return the options of each command."""
    _, commands = parsers()
    for command in commands.values():
        add_options(command)
    return {
        name: {
            text for action in one._actions for text in action.option_strings if text[:2] == "--"
        }
        - {"--help"}
        for name, one in commands.items()
    }


def test_every_option_is_explained():
    text = (ROOT / "docs" / "command_line.md").read_text("utf-8")
    said = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", text)) - {"--help"}
    known = options()
    assert said == set().union(*known.values())
    assert all(f"`{name}`" in text or f"`tinyresnext {name}" in text for name in known)


@pytest.mark.parametrize("name", list(parsers()[1]))
def test_the_help_of_a_command_has_a_sentence_and_an_example(name, capsys):
    with pytest.raises(SystemExit):
        parse([name, "--help"])
    text = capsys.readouterr().out
    assert re.search(r"^[A-Z].+\.$", text, flags=re.MULTILINE)
    example = text.partition("\nexample:\n  ")[2]
    assert parse(shlex.split(example)[1:]).command == name


def figure():
    """Return the script that draws the block."""
    source = ROOT / "docs" / "figures" / "block.py"
    spec = importlib.util.spec_from_file_location("block", source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_drawing_is_what_its_script_makes():
    block = figure()
    assert block.drawing() == block.TARGET.read_text("utf-8"), "run docs/figures/block.py"


def test_the_drawing_has_the_numbers_of_the_network():
    block, spec = figure(), variant("resnext50_32x4d")
    drawn = list(blocks(spec))[1]
    assert (drawn.c_in, drawn.channels, drawn.c_out) == (256, block.GROUPED, block.CHANNELS)
    shapes = parameters(spec)
    weights = [shapes[f"{drawn.name}.conv{i}.weight"] for i in (1, 2, 3)]
    assert sum(int(np.prod(shape)) for shape in weights) == block.WEIGHTS


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.name)
def test_a_notebook_is_stored_as_one_run_left_it(path):
    """So its figures and the claims that are computed beside them are of the same numbers."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    counts = [cell["execution_count"] for cell in cells if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))


def test_the_notebook_about_cost_computes_what_it_claims():
    """Measured numbers differ from machine to machine: no sentence around them has one."""
    source = ROOT / "notebooks" / "3_cardinality_against_width.ipynb"
    cells = json.loads(source.read_text("utf-8"))["cells"]
    first = next(n for n, cell in enumerate(cells) if "measured(" in "".join(cell["source"]))
    shown = "".join(
        "".join(out["text"]) for cell in cells for out in cell.get("outputs", ()) if "text" in out
    )
    rows = re.findall(r"^ *(\d+ x +\d+d) +([\d.]+) +([\d.]+) +[\d.]+ +[\d.]+$", shown, re.MULTILINE)
    slower = [name for name, work, spent in rows if float(work) < 1 < float(spent)]
    said = re.search(r"less work than the dense 3x3 convolution, and more time: (.*)", shown)[1]
    assert len(rows) == 5
    assert said == (", ".join(slower) or "none")
    prose = " ".join("".join(c["source"]) for c in cells[first:] if c["cell_type"] == "markdown")
    assert not re.search(r"\d+(\.\d+)? (times|%)|about as fast|takes\s+\*longer", prose)


def test_the_reference_has_every_public_name():
    pages = "".join(page.read_text("utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))
    missing = [name for name in tinyresnext.__all__ if not re.search(rf"\b{name}\b", pages)]
    assert not missing


def test_one_version_is_said_everywhere():
    """In the package, at the top of the changelog, and in the citation."""
    changes = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text("utf-8"), re.MULTILINE)
    assert changes[1] == cited[1] == tinyresnext.__version__
