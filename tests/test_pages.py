"""README and the pages in docs/ as they stand: each command is run, and each example.

A word behind the language of a block says what is not run here: ``network`` and ``GPU`` need more
than this computer, ``minutes`` takes too long, and ``slow`` is run by the long tests. The sentence
before such a block tells the reader the same. Options are parsed in every block. What needs
NVIDIA's compiler, ``python compiler``, is run by `test_emulator_ptx`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import page_inputs
import pytest

from tinyresnext.cli import main as cli
from tinyresnext.data import open_dataset
from tinyresnext.hub import catalogue

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_RUN = ("network", "minutes", "GPU", "compiler")
BLOCK = re.compile(r"^```(sh|python)(?: (\w+))?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
OWN = "tinyresnext "
OTHER = re.compile(r"([A-Z_]+=\S+ |[A-Z_]+='[^']*' )?(python3?|\.|pip|dask) ")  # in what is not run


class Block(NamedTuple):
    """A block of code in a page: its language, its word, its text, and what stands before it."""

    language: str
    word: str
    text: str
    before: str


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of commands and of Python, in order."""
    text = page.read_text("utf-8")
    for found in BLOCK.finditer(text):
        before = text[: found.start()].rstrip().rpartition("\n\n")[2]
        yield Block(found[1], found[2] or "", found[3], before)


def commands(block: Block) -> list[str]:
    """Return the commands of a block: one a line, or several with ``&&`` between them."""
    lines = block.text.replace("\\\n", "").splitlines()
    return [part.strip() for line in lines for part in line.split("&&") if part.strip()]


def run(page: Path, words: tuple[str, ...]) -> int:
    """Run the blocks with these words, in order; the examples of a page share their names."""
    names, count = {}, 0
    for block in blocks(page):
        if block.word not in words:
            continue
        count += 1
        if block.language == "python":
            exec(compile(block.text, page.name, "exec"), names)
            continue
        for command in commands(block):
            assert cli.main(shlex.split(command)[1:]) == 0, command
    return count


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """Return a folder with the files that the pages name."""
    folder = tmp_path_factory.mktemp("pages")
    page_inputs.write(folder)
    return folder


@pytest.fixture
def scratch(written, tmp_path, monkeypatch) -> Path:
    """Change to a folder of links to these files, with a model that was pulled."""
    for path in written.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(catalogue, "home", lambda: tmp_path / "home")
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_runs_as_it_stands(page, scratch):
    run(page, ("",))


def test_the_tables_of_published_sets_are_data_sets(scratch):
    run(ROOT / "docs" / "training.md", ("",))
    found = {}
    for table in sorted(scratch.glob("*/table.csv")):
        for split in ("train", "test"):
            data = open_dataset(table, split, warn=print)
            found[table.parent.name, split] = [data.classes[label] for label in data.labels]
    assert found == {
        ("CUB_200_2011", "train"): ["002.Auklet"],
        ("CUB_200_2011", "test"): ["001.Albatross"],
        ("food-101", "train"): ["apple_pie", "apple_pie", "waffles"],
        ("food-101", "test"): ["waffles"],
        ("oxford-iiit-pet", "train"): ["Abyssinian", "boxer"],
        ("oxford-iiit-pet", "test"): ["boxer"],
    }


LONGER = [page for page in PAGES if any(block.word == "slow" for block in blocks(page))]


@pytest.mark.slow
@pytest.mark.parametrize("page", LONGER, ids=lambda page: page.name)
def test_a_page_runs_with_what_takes_longer(page, scratch):
    run(page, ("", "slow"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_not_run_is_said_before_it(page):
    for block in blocks(page):
        assert block.word in ("", "slow", *NOT_RUN)
        if block.word in NOT_RUN:
            assert re.search(rf"\b{block.word}\b", block.before), block.text
        for command in commands(block) if block.language == "sh" else ():
            command = re.sub(r"^mpiexec -n \d+ ", "", command)
            if command.startswith(OWN):
                cli.parse(shlex.split(command)[1:])
            else:
                assert block.word in NOT_RUN, command
                assert OTHER.match(command), command


def test_most_of_the_pages_are_run():
    words = [block.word for page in PAGES for block in blocks(page)]
    assert sum(word not in NOT_RUN for word in words) > sum(word in NOT_RUN for word in words)
