"""Run notebooks from top to bottom, each in its own kernel.

``python notebooks/run.py`` runs those that need nothing but the package, and fails if one fails;
``python notebooks/run.py NAME.ipynb`` runs others. With ``--write`` it stores the new outputs in
the notebooks.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

HERE = Path(__file__).resolve().parent
TIMEOUT = 600  # seconds for one cell, which may compile kernels beside other work
LARGEST = 300_000  # bytes of a notebook with its outputs: the repository keeps every version
COMPILER = {"9_the_same_on_a_gpu.ipynb"}  # what needs NVIDIA's compiler runs when it is named
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def run(path: Path) -> nbformat.NotebookNode:
    """Execute a notebook in an empty temporary directory, with the package of this checkout.

    Parameters
    ----------
    path : Path

    Returns
    -------
    NotebookNode
        The notebook with its new outputs.

    Raises
    ------
    CellExecutionError, CellTimeoutError, DeadKernelError
        A cell fails, takes too long, or ends the kernel.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        packages = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")]))
        # The outputs must not depend on a user's settings of IPython or matplotlib.
        inline = "module://matplotlib_inline.backend_inline"
        own = {
            "PYTHONPATH": packages,
            "IPYTHONDIR": folder,
            "MATPLOTLIBRC": os.devnull,
            "MPLBACKEND": inline,
            "TMPDIR": folder,  # a kernel that is ended while it cleans up leaves nothing behind
        }
        client = NotebookClient(
            notebook,
            timeout=TIMEOUT,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            extra_arguments=["--log-level=ERROR"],
            coalesce_streams=True,
            record_timing=False,
        )
        return client.execute(env=os.environ | own)


def keep(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Write the outputs into the notebook, without any trace of the machine that computed them.

    Raises
    ------
    ValueError
        The notebook is larger than `LARGEST`.
    """
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({})
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    text = nbformat.writes(notebook) + "\n"
    if len(text.encode()) > LARGEST:
        raise ValueError(
            f"{path.name} has {len(text.encode())} bytes with its outputs: "
            f"expected at most {LARGEST}"
        )
    path.write_text(text, "utf-8", newline="\n")


def main() -> int:
    """Run notebooks; return 0 if none failed and 1 otherwise."""
    every = sorted(path.name for path in HERE.glob("*.ipynb"))
    parser = argparse.ArgumentParser(description="Run notebooks from top to bottom.")
    parser.add_argument("names", nargs="*", metavar="NAME.ipynb", help="which notebooks")
    parser.add_argument("--write", action="store_true", help="store the outputs in the notebooks")
    asked, failed = parser.parse_args(), 0
    write, names = asked.write, asked.names or [name for name in every if name not in COMPILER]
    if unknown := [name for name in names if name not in every]:
        parser.error(f"there is no notebook {unknown[0]!r} here, only {', '.join(every)}")
    for path in (HERE / name for name in names):
        start = time.perf_counter()
        try:
            notebook = run(path)
            if write:
                keep(notebook, path)
        except (CellExecutionError, CellTimeoutError, DeadKernelError, ValueError) as error:
            failed += 1
            print(f"{path.name}: failed\n{error}", file=sys.stderr)
        else:
            print(f"{path.name}: {time.perf_counter() - start:.0f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
