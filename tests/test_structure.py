"""The structure of the code: rooms in one order, imports that point down, and late imports."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tinyresnext

PACKAGE = Path(tinyresnext.__file__).parent
# From the top down. A room imports from itself and from the rooms after it in this list.
ROOMS = (
    "__main__",
    "cli",
    "bench",
    "explanation",
    "training",
    "inference",
    "hub",
    "checkpoints",
    "store",
    "data",
    "images",
    "network",
    "emulator",
    "ops",
    "formats",
    "system",
    "errors",
)
# The package root names what users import, and loads it late; it stands above the rooms.
ROOT = "tinyresnext"
MODULES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES, MOST_ENTRIES = 300, 10


def room(module: tuple[str, ...]) -> str:
    """Return the room of a module, given as the parts of its name below the package."""
    return module[0] if module else ROOT


def dotted(path: Path) -> str:
    """Return ops.cpu.head, or ops.cpu for the package itself."""
    return ".".join(parts(path)) or ROOT


def parts(path: Path) -> tuple[str, ...]:
    """Return the parts of a module's name below the package; none for the package root."""
    found = path.relative_to(PACKAGE).with_suffix("").parts
    return found[:-1] if found[-1] == "__init__" else found


def imports(path: Path) -> set[tuple[str, ...]]:
    """Return the modules of the package that a file imports anywhere, for type hints too."""
    package = parts(path) if path.name == "__init__.py" else parts(path)[:-1]
    found: set[tuple[str, ...]] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
            found |= {name[1:] for name in names if name[0] == ROOT}
        elif isinstance(node, ast.ImportFrom):
            base = tuple((node.module or "").split(".")) if node.module else ()
            if node.level:
                base = package[: len(package) - node.level + 1] + base
            elif base[:1] == (ROOT,):
                base = base[1:]
            else:
                continue
            found |= {module((*base, alias.name)) for alias in node.names}
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            found |= late(path, node)
    return found


def module(name: tuple[str, ...]) -> tuple[str, ...]:
    """Cut the name of something in a module down to the module."""
    whole = PACKAGE.joinpath(*name)
    return name if whole.is_dir() or whole.with_suffix(".py").exists() else name[:-1]


def late(path: Path, call: ast.Call) -> set[tuple[str, ...]]:
    """Return what `import_module` may import: text that begins with this package's own name."""
    own = parts(path) if path.name == "__init__.py" else parts(path)[:-1]
    name = call.args[0]
    text = "".join(
        str(part.value) if isinstance(part, ast.Constant) else "*"
        for part in (name.values if isinstance(name, ast.JoinedStr) else [name])
    )
    assert text.startswith((".", "*.", f"{ROOT}.")), f"{path} imports {ast.unparse(name)}"
    if text.startswith(f"{ROOT}."):
        return {module(tuple(text.split(".")[1:]))}
    return {own}  # `import_module(".name", __name__)`, or `f"{__name__}.name"`: inside this package


def upward(path: Path, imported: set[tuple[str, ...]]) -> list[str]:
    """Return what a file must not import: the package root, and rooms above its own."""
    if parts(path) == ():
        return []
    own = ROOMS.index(room(parts(path)))
    return sorted(
        ".".join(name) or ROOT
        for name in imported
        if room(name) == ROOT or ROOMS.index(room(name)) < own
    )


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_imports_point_down(path):
    assert upward(path, imports(path)) == [], "what is imported here is in a room above"


def test_every_room_has_a_place():
    entries = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if is_code(path)}
    assert entries == set(ROOMS), "say in ROOMS where a new room stands"


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        ("from ..cli.main import main", ["cli.main"]),
        ("def f():\n    from ..inference import model", ["inference.model"]),
        ("from .. import __version__", [ROOT]),
        ("import tinyresnext", [ROOT]),
        ("import tinyresnext.store.store", ["store.store"]),
        ("from tinyresnext.hub.catalogue import find", ["hub.catalogue"]),
        (
            "from importlib import import_module\nimport_module('tinyresnext.cli.main')",
            ["cli.main"],
        ),
        (
            "from ..ops import reference\nfrom ..errors import UsageError\nfrom .spec import Spec",
            [],
        ),
    ],
)
def test_the_test_sees_a_planted_import(planted, found, monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda *a: planted)
    path = PACKAGE / "network" / "planted.py"
    assert upward(path, imports(path)) == found


def is_code(path: Path) -> bool:
    """Return whether a path is a module or a package of modules."""
    return (path.suffix == ".py" and path.name != "__init__.py") or (path / "__init__.py").exists()


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_files_are_read_in_one_sitting(path):
    lines = path.read_text("utf-8").splitlines()
    assert len(lines) <= MOST_LINES
    assert max(map(len, lines), default=0) <= 100


@pytest.mark.parametrize(
    "folder", sorted(path.parent for path in MODULES if path.name == "__init__.py"), ids=str
)
def test_folders_are_seen_at_a_glance(folder):
    if folder != PACKAGE:
        assert len([path for path in folder.iterdir() if is_code(path)]) <= MOST_ENTRIES


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_says_what_it_is(name):
    if (PACKAGE / name).is_dir():
        text = (PACKAGE / name / "__init__.py").read_text("utf-8")
        assert ast.get_docstring(ast.parse(text))
        assert name in ("data", "ops") or len(text.splitlines()) <= 16  # both load names late


@pytest.mark.parametrize(
    "folder", sorted(path.parent for path in MODULES if path.name == "__init__.py"), ids=str
)
def test_a_folder_names_all_that_is_in_it(folder):
    if folder != PACKAGE:
        text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8"))) or ""
        named = set(re.findall(r"`(\w+)[`.]", text))
        assert {path.stem for path in folder.iterdir() if is_code(path)} <= named


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import tinyresnext", ["numba", "numpy", "h5py", "PIL"]),
        (
            "from tinyresnext.cli.main import add_options, parsers; all, commands = parsers(); "
            "[add_options(c) or c.format_help() for c in commands.values()]; all.format_help()",
            ["numba", "numpy", "h5py", "PIL"],
        ),
        (
            "import tinyresnext.store.store, tinyresnext.images.preprocess; "
            "import tinyresnext.checkpoints.convert",
            ["numba"],
        ),
        ("import tinyresnext; tinyresnext.Model", ["numba"]),
        (
            "import tinyresnext as tr; tr.data, tr.errors, tr.hub, tr.images, tr.network, tr.store",
            ["numba", "h5py", "PIL", "tinyresnext.data.open", "tinyresnext.ops.cpu"],
        ),
        ("import tinyresnext.inference.classify, tinyresnext.inference.verify", ["h5py"]),
        ("import tinyresnext.ops.cpu", ["numba.cuda"]),
    ],
)
def test_nothing_is_imported_early(code, absent):
    check = f"import sys; {code}; print([name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", tinyresnext.__all__)
def test_public_names_exist_and_are_documented(name):
    text = inspect.getdoc(getattr(tinyresnext, name))
    # The automatic docstring of a dataclass or a NamedTuple, or that of dict, does not count.
    assert name in ("RECIPES", "VARIANTS") or (text and not text.startswith(f"{name}("))


@pytest.mark.parametrize("name", tinyresnext.__all__)
def test_public_names_are_no_modules(name):
    # Importing a module puts it into the package under its own name, over whatever else has it.
    assert not (PACKAGE / f"{name}.py").exists()
    assert not (PACKAGE / name).exists()


def test_rooms_are_attributes_of_the_package():
    code = (
        "import tinyresnext as tr; from types import ModuleType as M; "
        f"rooms = [getattr(tr, name) for name in {ROOMS[3:-3]!r}]; "
        "print(all(isinstance(room, M) for room in rooms), "
        "tr.data.open_dataset.__name__, tr.ops.reference.__name__, tr.errors.UsageError.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [
        "True",
        "open_dataset",
        "tinyresnext.ops.reference",
        "UsageError",
    ]
    with pytest.raises(AttributeError, match="no attribute 'gpu'"):
        _ = tinyresnext.ops.gpu


def test_unknown_public_name():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = tinyresnext.nothing
    assert "Model" in dir(tinyresnext)
