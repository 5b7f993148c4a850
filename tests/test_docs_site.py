"""The documentation as web pages, in a browser and without a server or a network.

These tests need headless Chromium and the extra ``docs``: run them with ``-m browser``.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import browser
import pytest

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[1]
FOUND = "[...document.querySelectorAll('#search-results li a')].map(a => a.textContent)"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    pytest.importorskip("myst_nb")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs", "."]
    subprocess.run([*command, str(folder)], cwd=ROOT, check=True)
    return folder


@pytest.fixture
def page(site, tmp_path):
    program = browser.found()
    if program is None:
        pytest.skip(f"none of {', '.join(browser.NAMES)} is installed")
    with browser.browser(program, tmp_path) as opened:
        yield opened
        assert opened.problems == []
        assert all(url.startswith(("file:", "data:")) for url in opened.requests)


def wait(page, script: str):
    """Return the value of an expression as soon as it is true."""
    end = time.monotonic() + browser.PATIENCE
    while not (value := page.run(script)):
        assert time.monotonic() < end, script
        time.sleep(0.05)
    return value


@pytest.mark.parametrize(
    ("words", "title"), [("cardinality", "The paper"), ("fuzz", "Security"), ("finetune", "Python")]
)
def test_search_works_from_files(site, page, words, title):
    page.open(site / "search.html", f"?q={words}")
    wait(page, f"{FOUND}.some(found => found.startsWith('{title}'))")


def test_the_root_leads_to_the_start_page(site, page):
    page.open(site / "index.html")
    assert wait(page, "location.href.endsWith('docs/index.html') && document.title")


def test_formulas_are_drawn_without_a_network(site, page):
    page.open(site / "notebooks" / "1_split_transform_merge.html")
    assert page.run("document.querySelectorAll('math').length") > 5
    assert page.run("document.querySelector('math').getBoundingClientRect().height") > 5


SUMMED = "[...document.querySelectorAll('a code')].find(c => c.textContent.endsWith('::summed'))"
SHOWN = """(name => document.getElementById(name).parentElement.textContent.split('\\n')[
  name.split('-')[1] - 1])(location.hash.slice(1))"""


def test_an_equation_leads_to_its_line(site, page):
    page.open(site / "docs" / "paper.html")
    target = page.run(f"{SUMMED}.parentElement.getAttribute('href')")
    file, line = target.split("#")
    page.open(site / "docs" / file, f"#{line}")
    assert "def summed(" in page.run(SHOWN)
