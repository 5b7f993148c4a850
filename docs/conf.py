"""Settings of Sphinx for the documentation as web pages.

The pages are the Markdown files where they are in the repository, so that each reads the same on a
web site, in an editor and on GitHub. The source folder is therefore the root of the repository:

    python -m sphinx --fail-on-warning --keep-going -c docs . build/docs
"""

import sys
from pathlib import Path

from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

from tinyresnext import __version__

sys.path.insert(0, str(Path(__file__).parent))  # for `code_links`

project = "tinyresnext"
author = "The tinyresnext authors"
copyright = "the tinyresnext authors, Apache-2.0"
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "code_links",
]
root_doc = "docs/index"
include_patterns = [
    "*.md",
    "docs/*.md",
    "docs/reference/*.md",
    "notebooks/*.md",
    "notebooks/*.ipynb",
    "benchmarks/*.md",
    "weights/*.md",
    "tests/data/*.md",
    "tests/fuzz/*.md",
]
templates_path = ["_templates"]
html_additional_pages = {"index": "start.html"}  # the root of a site leads to the start page

nb_execution_mode = "off"  # the outputs are committed, as a run of notebooks/run.py left them
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3  # links to headings, as GitHub names them
suppress_warnings = ["myst.header"]  # a page may begin at a deeper heading

default_role = "code"  # docstrings are Markdown's neighbours: `x` is code
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_preprocess_types = False
autodoc_typehints = "none"  # the docstrings say types in words
autodoc_member_order = "bysource"

html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"tinyresnext {version}"
html_show_sourcelink = False
html_show_search_summary = False  # a summary is fetched, which browsers refuse for pages in files


def _math(translator: HTML5Translator, node: nodes.math | nodes.math_block) -> None:
    """Write a formula as MathML, which browsers draw themselves, without a network."""
    block = isinstance(node, nodes.math_block)
    translator.body.append(latex2mathml.tex2mathml(node.astext(), as_block=block))
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Register how formulas are written."""
    app.add_html_math_renderer("mathml", (_math, None), (_math, None))
