"""Where compiled kernels are kept: in a place that is the user's own, or nowhere."""

from __future__ import annotations

import io
import os
import shutil
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numba
import pytest
from cache_use import run, stored, times, use

from tinyresnext.ops.cpu.runtime import cache
from tinyresnext.ops.cpu.runtime import kernel as kernels
from tinyresnext.system.home import folder

pytestmark = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")
PYCACHE = shutil.ignore_patterns("__pycache__")
POSIX = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX permissions")


@POSIX
def test_private(home):
    use(times(3))
    for path in [home, *home.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


@POSIX
@pytest.mark.parametrize("which", ["home", "kernels", "folder"])
def test_a_folder_that_others_can_write_to_is_not_used(home, which):
    use(times(3))
    (path,) = stored(home)
    {"home": home, "kernels": home / "kernels", "folder": path.parent}[which].chmod(0o777)
    before = path.stat().st_mtime_ns
    for _ in range(2):
        assert use(times(3)) == (0, 1)
    assert path.stat().st_mtime_ns == before  # nothing is written either
    assert "others can write to" in cache.problem()
    assert "chmod go-w" in cache.problem()


@POSIX
def test_a_file_that_others_can_write_to_is_not_used(home):
    use(times(3))
    (path,) = stored(home)
    path.chmod(0o666)
    assert use(times(3)) == (0, 1)
    assert path.stat().st_mode & 0o077 == 0  # it was made anew


@POSIX
def test_somebody_elses_folder_is_not_used(home, monkeypatch):
    use(times(3))
    somebody = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: somebody)
    assert use(times(3)) == (0, 1)


@POSIX
def test_a_link_in_place_of_the_folder_is_not_used(home, tmp_path):
    use(times(3))
    (home / "kernels").rename(tmp_path / "elsewhere")
    (home / "kernels").symlink_to(tmp_path / "elsewhere")
    assert use(times(3)) == (0, 1)
    assert cache.clear() == 0


@POSIX
@pytest.mark.parametrize("order", ["a model first", "kernels first"])
def test_folders_of_models_leave_the_kernels_theirs(home, order):
    """Where files of the user's are for the group, too, as under the umask 002."""
    before = os.umask(0o002)
    try:
        for made in range(2):
            if (made == 0) == (order == "a model first"):
                folder(home / "downloads")
                folder(home / "downloads" / "one")
            else:
                use(times(3))
    finally:
        os.umask(before)
    assert cache.problem() is None
    assert use(times(3)) == (1, 0)
    for path in [home, *home.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


@POSIX
def test_a_link_in_the_place_of_the_home_is_followed(tmp_path, monkeypatch):
    """As installations have it: ``current`` leads to the folder of the newest version."""
    (tmp_path / "releases").mkdir()
    (tmp_path / "current").symlink_to(tmp_path / "releases" / "7", target_is_directory=True)
    monkeypatch.setenv("TINYRESNEXT_HOME", str(tmp_path / "current"))
    assert use(times(3)) == (0, 1)
    assert use(times(3)) == (1, 0)
    assert cache.problem() is None
    [kept] = cache.kept()
    assert (kept.current, kept.folder.parents[1]) == (True, tmp_path / "releases" / "7")
    (tmp_path / "releases" / "7").chmod(0o777)
    assert use(times(3)) == (0, 1)
    assert str(tmp_path / "releases" / "7") in cache.problem()


@pytest.mark.parametrize("what", ["file", "under a file", "null device", "NUL in the name"])
def test_a_home_that_cannot_be(what, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    places = {
        "file": tmp_path / "file",
        "under a file": tmp_path / "file" / "home",
        "null device": os.devnull,
    }
    if what == "NUL in the name":
        monkeypatch.setattr(cache, "home", lambda: Path("a\0b"))
    else:
        monkeypatch.setenv("TINYRESNEXT_HOME", str(places[what]))
    assert use(times(3)) == (0, 1)
    assert use(times(3)) == (0, 1)
    assert cache.problem()
    assert cache.kept() == []
    assert cache.clear() == 0
    assert (tmp_path / "file").read_text() == "mine"


def refuse(*_, **__):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("moment", ["folder", "open", "write", "replace"])
def test_a_full_disk(home, monkeypatch, moment):
    if moment == "folder":
        monkeypatch.setattr(Path, "mkdir", refuse)
    elif moment == "replace":
        monkeypatch.setattr(os, "replace", refuse)
    else:
        original = open

        def limited(path, mode="r", **options):
            if "x" not in mode:
                return original(path, mode, **options)
            if moment == "open":
                refuse()
            file = original(path, mode, **options)
            file.write(b"half")
            file.close()
            full = io.BytesIO()
            full.write = refuse
            return full

        monkeypatch.setattr(cache, "open", limited, raising=False)
    assert use(times(3)) == (0, 1)
    assert use(times(3)) == (0, 1)
    assert stored(home) == []
    monkeypatch.undo()
    monkeypatch.setenv("TINYRESNEXT_HOME", str(home))
    assert use(times(3)) == (0, 1)
    assert use(times(3)) == (1, 0)


@POSIX
def test_a_read_only_folder_is_read(home):
    use(times(3))
    (path,) = stored(home)
    path.parent.chmod(0o500)
    if os.access(path.parent, os.W_OK):
        pytest.skip("root may write anywhere")
    assert use(times(3)) == (1, 0)
    assert use(times(4), 4) == (0, 1)
    path.write_bytes(b"damaged")
    assert use(times(3)) == use(times(3)) == (0, 1)
    assert "cannot be written to" in cache.problem()
    path.parent.chmod(0o700)


@pytest.mark.slow
def test_cleared_at_any_moment(home):
    """One thread clears all the time, and the kernels keep coming."""
    stop, failed = threading.Event(), []

    def sweep():
        while not stop.is_set():
            try:
                cache.kept()
                cache.clear()
            except BaseException as error:
                failed.append(error)

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    try:
        for _ in range(30):
            use(times(3))
    finally:
        stop.set()
        sweeper.join()
    assert failed == []


def test_clear_takes_only_what_is_ours(home):
    use(times(3))
    (path,) = stored(home)
    old = home / "kernels" / f"0.0.1-{'0' * 20}"
    old.mkdir()
    (old / "a.kernel").write_bytes(b"12345")
    (old / ".b.tmp").write_bytes(b"1")  # a process was killed here
    (path.parent / "notes.txt").write_text("keep me")
    (home / "models").mkdir()
    (home / "models" / "a.kernel").write_text("keep me")
    size = path.stat().st_size
    assert [(kept.files, kept.bytes, kept.current) for kept in cache.kept()] == [
        (2, 6, False),
        (1 + 0, size, True),
    ]
    (path.parent / ".c.tmp").write_bytes(b"12")
    assert cache.clear(others=True) == 6 + 2
    assert {p.name for p in stored(home)} == {path.name, "notes.txt", "a.kernel"}
    assert not old.exists()
    old.mkdir()
    (old / "a.kernel").write_bytes(b"12345")
    assert cache.clear() == size + 5
    assert {p.name for p in stored(home)} == {"notes.txt", "a.kernel"}
    assert not old.exists()


PLACES = {
    "ours": ("linux", {"TINYRESNEXT_HOME": "/ours", "XDG_CACHE_HOME": "/x"}, "/ours"),
    "XDG": ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/tinyresnext"),
    "XDG, relative": ("linux", {"XDG_CACHE_HOME": "x"}, "/home/me/.cache/tinyresnext"),
    "Linux": ("linux", {}, "/home/me/.cache/tinyresnext"),
    "macOS": ("darwin", {"XDG_CACHE_HOME": "/x"}, "/home/me/Library/Caches/tinyresnext"),
    "Windows": ("win32", {"LOCALAPPDATA": "/local"}, "/local/tinyresnext"),
    "Windows without": ("win32", {}, "/home/me/AppData/Local/tinyresnext"),
}


@pytest.mark.skipif(sys.platform == "win32", reason="the paths are POSIX's")
@pytest.mark.parametrize("case", PLACES)
def test_home(case, monkeypatch):
    platform, environment, expected = PLACES[case]
    for name in ("TINYRESNEXT_HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/me"))
    assert cache.home() == Path(expected)


def test_no_home(monkeypatch):
    for name in ("TINYRESNEXT_HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)

    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    assert cache.home() is None
    assert cache.folder() is None
    assert use(times(3)) == (0, 1)


@pytest.mark.parametrize(
    "gone",
    [
        "compiler.CompileResult",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in (
                "registry.cpu_target",
                "caching.NullCache",
                "ccallback.CFunc",
                "compiler.CompileResult._rebuild",
                "compiler.CompileResult._reduce",
                "bytecode.FunctionIdentity",
                "sigutils.normalize_signature",
            )
        ),
    ],
)
def test_another_numba(home, gone):
    """Without what the cache needs of Numba, everything is compiled; Numba's own use is kept."""
    owner, _, name = gone.rpartition(".")
    code = f"""
        import numpy as np, numba.core.ccallback
        from numba.core import caching, ccallback, compiler, bytecode, registry, sigutils

        class Without:
            def __getattr__(self, name):
                if name == {name!r}:
                    raise AttributeError(name)
                return getattr(self.real, name)

        if {owner!r} == "compiler.CompileResult":
            delattr({owner}, {name!r})
        elif {owner!r} == "caching":
            del caching.NullCache
        else:  # only our modules look these up through numba.core
            instead = Without()
            instead.real = {owner}
            setattr(numba.core, {owner!r}, instead)
        from tinyresnext.ops import cpu
        from tinyresnext.ops.cpu.runtime.kernel import c_kernel
        made = c_kernel("float64(float64)")(lambda x: x + 1)
        print(cpu.softmax(np.zeros((1, 2), np.float32)), made.ctypes(1))
    """
    for _ in range(2):
        done = run(code)
        assert (done.returncode, done.stdout) == (0, "[[0.5 0.5]] 2.0\n"), done.stderr


def test_a_numba_that_counts_in_another_way(home, monkeypatch):
    """Names in code that several processes compile could then be the same: nothing is kept."""
    without = SimpleNamespace(FunctionIdentity=type("FunctionIdentity", (), {}))
    other = SimpleNamespace(**{**vars(kernels.core), "bytecode": without})
    kernels._number_apart.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(kernels, "core", other)
        for _ in range(2):
            assert use(times(3)) == (0, 1)
    assert stored(home) == []
    assert use(times(3)) == (0, 1)
    assert use(times(3)) == (1, 0)


def test_code_of_sources_that_changed_is_not_kept(tmp_path, home):
    """What was imported is compiled, and the file says something else by then."""
    package = tmp_path / "copy" / "tinyresnext"
    shutil.copytree(Path(cache.__file__).parents[3], package, ignore=PYCACHE)
    code = f"""
        import sys
        from pathlib import Path
        sys.path.insert(0, {str(package.parent)!r})
        import numpy as np
        from tinyresnext.ops import cpu
        from tinyresnext.ops.cpu import elementwise

        file = Path(elementwise.__file__)
        assert file.is_relative_to({str(package)!r})
        before = file.read_bytes()
        file.write_bytes(before + b"# edited")
        cpu.relu(np.ones(3, np.float32))
        file.write_bytes(before)
        cpu.add(np.ones(3, np.float32), np.ones(3, np.float32))
    """
    done = run(code)
    assert done.returncode == 0, done.stderr
    kept = [path.name for path in stored(home)]
    assert any("_add" in name for name in kept)
    assert not any("_relu" in name for name in kept)
