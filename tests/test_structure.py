"""The shape of the code: arrows point down only, and what must start fast imports little."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import tinyresnext

PACKAGE = Path(tinyresnext.__file__).parent
# From the bottom up; a module may import from its own level and from those below.
LEVELS = [
    {"errors", "home"},
    {"ops", "ops.checks", "ops.shapes"},
    {"ops.reference", "ops.cpu", "ops.with_torch"},
    {"count", "files", "hdf5", "image", "image_file", "peak", "plan", "resnext", "spec", "step", "store", "store_file", "tape"}
    | {"catalogue", "download", "torch7_resize", "transfer"}
    | {"augment", "dataset", "idx", "loader", "picture_files", "shipped", "tar"}
    | {"muon", "optimise", "recipes", "training_folder", "training_log", "training_state", "whiten"},
    {"bench", "checkpoints", "cifar_files", "classify", "convert", "data", "model", "pull", "report", "verify", "warm"}
    | {"confusion", "evaluation", "training", "training_run"},
    {"arguments", "cli", "cli_train", "cli_weights"},
    {"__init__", "__main__"},
]
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))


def dotted(path: Path) -> str:
    """ops.cpu.conv, or ops.cpu for the package itself."""
    name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    return name.removesuffix(".__init__")


def level(module: str) -> int:
    """The level of the longest name that covers the module."""
    found = [
        (len(name), i) for i, names in enumerate(LEVELS) for name in names if module == name or module.startswith(f"{name}.")
    ]
    assert found, f"{module} has no level: say in LEVELS where it belongs"
    return max(found)[1]


def imports(path: Path) -> set[str]:
    """The modules of the package that a file imports anywhere, but for type hints."""
    tree, found = ast.parse(path.read_text("utf-8")), set()
    hints = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    skipped = {id(inner) for node in hints for inner in ast.walk(node)}
    package = [*path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("tinyresnext.") for alias in node.names if alias.name.startswith("tinyresnext.")}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - node.level + 1] + (node.module or "").split(".")
            elif (node.module or "").split(".")[0] == "tinyresnext":
                base = node.module.split(".")[1:]
            else:
                continue
            base = [part for part in base if part]
            for alias in node.names:
                whole = PACKAGE.joinpath(*base, alias.name)
                is_module = whole.with_suffix(".py").exists() or (whole / "__init__.py").exists()
                found.add(".".join([*base, alias.name] if is_module else base))
    return {name for name in found if name}


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_imports_point_down(path):
    if dotted(path) in ("__init__", ""):
        return
    assert upward(dotted(path), imports(path)) == [], "what is imported here stands above"


def upward(module: str, imported: set[str]) -> list[str]:
    """What a module must not import."""
    return sorted(name for name in imported if level(name) > level(module))


def test_the_test_sees_an_upward_arrow():
    assert upward("plan", {"cli", "resnext", "ops.shapes"}) == ["cli"]
    assert upward("ops.cpu.conv", {"ops.shapes", "plan"}) == ["plan"]
    assert upward("ops.shapes", {"ops.reference"}) == ["ops.reference"]
    assert "store" in imports(PACKAGE / "model.py")
    assert "ops.shapes" in imports(PACKAGE / "plan.py")


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_files_are_read_in_one_sitting(path):
    assert len(path.read_text("utf-8").splitlines()) <= 380


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import tinyresnext", ["numba", "numpy", "h5py", "PIL"]),
        ("import tinyresnext.cli; tinyresnext.cli.parser().format_help()", ["numba", "numpy", "h5py", "PIL"]),
        ("import tinyresnext.store, tinyresnext.image, tinyresnext.convert", ["numba"]),
        ("import tinyresnext; tinyresnext.Model", ["numba"]),
        ("import tinyresnext.classify, tinyresnext.verify", ["h5py"]),
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
    # What a dataclass, a NamedTuple or a dict say of themselves unasked is no documentation.
    assert name in ("RECIPES", "VARIANTS") or (text and not text.startswith(f"{name}("))


@pytest.mark.parametrize("name", tinyresnext.__all__)
def test_public_names_are_no_modules(name):
    # Importing a module puts it into the package under its own name, over whatever else has that name.
    assert not (PACKAGE / f"{name}.py").exists()
    assert not (PACKAGE / name).exists()


def test_unknown_public_name():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = tinyresnext.nothing
    assert "Model" in dir(tinyresnext)
