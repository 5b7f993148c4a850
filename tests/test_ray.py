"""`Predictor` in Ray Data's `map_batches`, as it is: the rows that it has in this process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_files import picture, write_files

import tinyresnext as tr

pytestmark = [
    pytest.mark.slow,
    # Of Ray itself: it does not wait for the processes that it ends.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
pytest.importorskip("ray")
SAME = 1e-5  # NumPy multiplies mini-batches of another size in another order


@pytest.fixture(scope="module")
def data():
    """Return Ray's module of data sets, with two processes that compute."""
    import ray

    start(
        ray,
        num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False,
        object_store_memory=100 << 20,
        runtime_env={"env_vars": {"PYTHONPATH": str(Path(tr.__file__).parents[1])}},
    )  # fmt: skip
    yield ray.data
    ray.shutdown()


def start(ray, **how) -> None:
    """Start Ray, which gives itself 30 seconds; on a busy machine it gets more than one chance."""
    for left in range(4, -1, -1):
        try:
            ray.init(**how)
            return
        except Exception as error:
            ray.shutdown()
            if not left or "timed out during startup" not in str(error):
                raise


@pytest.fixture
def paths(tmp_path):
    files = {f"{i}.png": picture(i) for i in range(6)} | {"9.png": b"\x89PNG\r\n\x1a\n"}
    folder = write_files(tmp_path / "photos", files)
    return sorted(map(str, folder.iterdir()))


@pytest.mark.parametrize("read", ["paths", "files"])
def test_map_batches_has_the_same_rows(data, paths, read):
    predictor = tr.Predictor(device="reference", top=2)
    expected = predictor({"path": np.array(paths)})
    if read == "paths":
        images = data.from_items([{"path": path} for path in paths])
    else:
        images = data.read_binary_files(paths, include_paths=True)
    rows = sorted(images.map_batches(predictor, batch_size=3).take_all(), key=lambda r: r["path"])
    assert [row["path"] for row in rows] == paths
    assert [bool(row["error"]) for row in rows] == [False] * 6 + [True]
    for name in (f"{field}{rank}" for field in ("label", "index") for rank in "12"):
        assert [row[name] for row in rows] == expected[name].tolist()
    for name in ("probability1", "probability2"):
        found = [row[name] for row in rows]
        np.testing.assert_allclose(found, expected[name], rtol=0, atol=SAME)
