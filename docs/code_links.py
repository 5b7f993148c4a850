"""Make `file.py::name` in a page a link to that line of the code: from equation to line.

A small extension of Sphinx. The files that pages name become web pages of their own, with numbered
lines, so the links work without a network and always show the code of the same version.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from sphinx.application import Sphinx
from sphinx.util import logging

LOGGER = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[1]
NAMED = re.compile(r"([\w./-]+\.py)(?:::(\w+(?:\.\w+)?))?")


def found(path: str) -> Path | None:
    """Return the file that a page names: from the root, or from the package."""
    files = (base / path for base in (ROOT, ROOT / "tinyresnext"))
    return next((file for file in files if file.is_file()), None)


def defined(node: ast.stmt) -> set[str]:
    """Return the names that a statement defines: of a function, of a class, or of values."""
    targets = [*getattr(node, "targets", ()), *filter(None, [getattr(node, "target", None)])]
    parts = [part for target in targets for part in ast.walk(target)]
    return {getattr(node, "name", ""), *(part.id for part in parts if isinstance(part, ast.Name))}


def line(file: Path, name: str | None) -> int | None:
    """Return the line on which a function, class, method or value begins; None if it is not there.

    Without a name it is the first line of the file.
    """
    body: list[ast.stmt] = ast.parse(file.read_text("utf-8")).body
    at = 1
    for part in name.split(".") if name else ():
        node = next((node for node in body if part in defined(node)), None)
        if node is None:
            return None
        at, body = node.lineno, getattr(node, "body", [])
    return at


def link(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Replace the names of code in a page by links, and warn of one that is not in its file."""
    for node in list(doctree.findall(nodes.literal)):
        named = NAMED.fullmatch(node.astext())
        file = found(named[1]) if named else None
        if named is None or file is None or app.builder.format != "html":
            continue
        at = line(file, named[2])
        if at is None:
            LOGGER.warning("%s does not define %s", named[1], named[2], location=node)
            continue
        page = f"code/{file.relative_to(ROOT).as_posix()}"
        app.env.metadata[docname].setdefault("code", set()).add(page)
        target = app.builder.get_relative_uri(docname, page) + f"#line-{at}"
        reference = nodes.reference("", "", refuri=target)
        node.replace_self(reference)
        reference += node


def pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield a page for each file of code that another page leads to."""
    form = HtmlFormatter(linenos="inline", lineanchors="line", anchorlinenos=True)
    for page in sorted(set().union(*(one.get("code", ()) for one in app.env.metadata.values()))):
        name = page.removeprefix("code/")
        code = highlight((ROOT / name).read_text("utf-8"), PythonLexer(), form)
        body = f"<h1>{escape(name)}</h1>{code}"
        yield page, {"title": name, "body": body}, "page.html"


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the two steps: links while pages are written, and the pages that they lead to."""
    app.connect("doctree-resolved", link)
    app.connect("html-collect-pages", pages)
    return {"parallel_read_safe": True, "parallel_write_safe": False}
