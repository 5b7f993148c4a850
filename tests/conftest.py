"""Fixtures that all tests share."""

from __future__ import annotations

import atexit
import os
import platform
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest
from hdf5_cases import file_bytes

from tinyresnext.cli.main import main
from tinyresnext.ops import cpu, reference

BACKENDS = {"reference": reference, "cpu": cpu}
SEVERAL = pytest.StashKey()  # the emulated GPU that executes PTX, if that is asked for

if (
    "TINYRESNEXT_HOME" not in os.environ
):  # not the user's own cache; the processes that tests start share this one
    os.environ["TINYRESNEXT_HOME"] = tempfile.mkdtemp(prefix="tinyresnext-")
    atexit.register(shutil.rmtree, os.environ["TINYRESNEXT_HOME"], ignore_errors=True)

# A shell's background job ignores Ctrl-C, and so would the processes that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(
    params=[
        "reference",
        "cpu",
        pytest.param("emulated", marks=pytest.mark.device),
        pytest.param("on_gpu", marks=pytest.mark.gpu),
    ]
)
def ops(request):
    """Return each backend in turn; that of GPUs computes on an emulator, and on a GPU."""
    known = BACKENDS.get(request.param)
    return request.getfixturevalue(request.param) if known is None else known


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Run a command in an empty folder; return exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def command(*words):
        code = main([str(word) for word in words])
        return code, *capsys.readouterr()

    return command


@pytest.fixture(scope="session")
def emulated(request):
    """Return the backend of GPUs on an emulator, for NumPy arrays.

    ``TINYRESNEXT_EMULATOR`` says which: ``fibers`` (the default), with an order of the threads
    and a time of the copies if wanted (``fibers descending early``), which are skipped where no
    fibers run; or ``ptx`` with compute capabilities (``ptx 8.0 9.0``; see `capabilities`).
    """
    on_device = pytest.importorskip("on_device")
    from tinyresnext.ops import cuda

    kind, *more = os.environ.get("TINYRESNEXT_EMULATOR", "fibers").split()
    if kind == "ptx":
        from capabilities import Several

        machine = Several([tuple(map(int, one.split("."))) for one in more])
        request.config.stash[SEVERAL] = machine
        return on_device.OnDevice(cuda.backend(machine))
    assert kind == "fibers", f"TINYRESNEXT_EMULATOR begins with {kind!r}, expected fibers or ptx"
    from tinyresnext.emulator.fibers import FiberMachine
    from tinyresnext.errors import DeviceError

    try:
        machine = FiberMachine(*more)
    except DeviceError as error:
        if (sys.platform, platform.machine()) == ("linux", "x86_64"):  # where fibers have to run
            raise
        pytest.skip(str(error))
    return on_device.OnDevice(cuda.backend(machine))


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    """Call a test again for each compute capability for which a kernel of it is other PTX."""
    result = yield
    if machine := pyfuncitem.config.stash.get(SEVERAL, None):
        names = pyfuncitem._fixtureinfo.argnames
        given = {name: pyfuncitem.funcargs[name] for name in names}
        machine.again(lambda: pyfuncitem.obj(**given))
    return result


def pytest_exception_interact(node, call):
    """End this process when it has lost the GPU: every test after that would fail, too.

    The failure is reported by then. Where pytest-xdist runs the tests, it starts another process
    for the others.
    """
    from tinyresnext.errors import DeviceError

    error, lost = call.excinfo.value, "this process cannot use the GPU any more"
    if node.get_closest_marker("gpu") and isinstance(error, DeviceError) and lost in str(error):
        if "PYTEST_XDIST_WORKER" in os.environ:
            os._exit(1)
        pytest.exit(f"{node.nodeid} lost the GPU, and what comes after it did not run", 1)


def pytest_terminal_summary(terminalreporter, config):
    """Say how many kernels are the same PTX; add what ran to the file that `executed.py` reads."""
    if machine := config.stash.get(SEVERAL, None):
        terminalreporter.write("".join(f"{line}\n" for line in machine.said()))
        if path := os.environ.get("TINYRESNEXT_EXECUTED"):
            with open(path, "a", encoding="utf-8") as file:
                file.write("".join(f"{name}\n" for name in sorted(machine.executed)))


@pytest.fixture(scope="session")
def nvvm():
    """Skip where NVIDIA's compiler does not work, unless ``TINYRESNEXT_EMULATOR`` asks for it."""
    from tinyresnext.errors import DeviceError
    from tinyresnext.ops.cuda.elementwise import relu_kernel

    try:
        relu_kernel().ptx((8, 0))
    except DeviceError as error:
        if os.environ.get("TINYRESNEXT_EMULATOR", "").startswith("ptx"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def gpu():
    """Return the backend of the first GPU; new memory holds what is not a number.

    ``TINYRESNEXT_POISON=no`` leaves it as it is, for a tool that looks for what nobody wrote. With
    ``TINYRESNEXT_GPU=needed`` a GPU that cannot be used is an error: else it skips the tests.
    """
    from tinyresnext.errors import DeviceError
    from tinyresnext.ops import backend

    try:
        found = backend("cuda")
    except DeviceError as error:
        if os.environ.get("TINYRESNEXT_GPU") == "needed":
            raise
        pytest.skip(str(error))
    from on_device import poison

    if os.environ.get("TINYRESNEXT_POISON") != "no":
        poison(found.machine)
    return found


@pytest.fixture(scope="session")
def on_gpu(gpu):
    """Return the backend of the first GPU, for NumPy arrays."""
    from on_device import OnDevice

    return OnDevice(gpu)


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """Return a folder with ``images/`` and ``reference/``, which are too large for the repository.

    They hold photographs and full-size cases.
    """
    folder = os.environ.get("TINYRESNEXT_REFERENCE")
    if not folder:
        pytest.skip("set TINYRESNEXT_REFERENCE to the folder of full-size references to run this")
    return Path(folder)


# Model files


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> bytes:
    """Return the bytes of a good model file."""
    return file_bytes(tmp_path_factory.mktemp("store") / "good.h5")


@pytest.fixture(scope="module")
def narrow(tmp_path_factory) -> bytes:
    """Return the bytes of a good model file with kernels and matrices in half precision."""
    return file_bytes(tmp_path_factory.mktemp("store") / "narrow.h5", half=True)


@pytest.fixture
def path(tmp_path, good) -> Path:
    """Return a good model file, which the test damages."""
    path = tmp_path / "model.h5"
    path.write_bytes(good)
    return path


# Compiled kernels


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Use an empty cache."""
    monkeypatch.setenv("TINYRESNEXT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
