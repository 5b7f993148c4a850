"""The files that the commands and examples in README and docs/ read, as small as they can be."""

from __future__ import annotations

import shutil
from pathlib import Path

import cases
import data_files

from tinyresnext import Preprocess, Spec, random_model, save
from tinyresnext.checkpoints import carried, export
from tinyresnext.checkpoints.imagenet import imagenet_labels
from tinyresnext.store.store import Stored

CAT = Path(__file__).parent / "data" / "chelsea.jpg"
# Like ResNeXt-50 it has four stages and ImageNet's classes; it is far smaller.
SPEC = Spec((1, 1, 1, 1), 4, 4)
PULLED = ("resnext50_32x4d.tv_in1k", "resnext101_32x8d.tv_in1k")


def write(folder: Path) -> None:
    """Write every file that a page names, and a folder ``home`` with a model that was pulled."""
    for name in ("tests/data/chelsea.jpg", "photo.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CAT, folder / name)
    weights(folder)
    own, imagenet = ("cat", "dog"), (imagenet_labels()[281], imagenet_labels()[1])
    data_files.write_files(folder / "photos", images(own, 12))
    data_files.write_files(folder / "flowers", images(("rose", "tulip"), 20))
    data_files.write_zip(folder / "photos.zip", split("test", images(own, 3)))
    for name in ("images.zip", "cifar.zip"):
        both = split("train", images(imagenet, 64)) | split("test", images(imagenet, 3))
        data_files.write_zip(folder / name, both)
    data_files.write_files(folder, listed())
    archive = folder / "cifar-10-python.tar.gz"
    archive.write_bytes(data_files.packed(data_files.tar(data_files.cifar10_python())))


def listed() -> dict[str, bytes]:
    """Return the files of published sets that have lists of their images."""
    lists = {
        "food-101/meta/train.txt": b"apple_pie/1\napple_pie/2\nwaffles/3\n",
        "food-101/meta/test.txt": b"waffles/4\n",
        "CUB_200_2011/images.txt": b"1 001.Albatross/a_1.jpg\n2 002.Auklet/b_2.jpg\n",
        "CUB_200_2011/train_test_split.txt": b"1 0\n2 1\n",
        "oxford-iiit-pet/annotations/trainval.txt": b"Abyssinian_1 1 1 1\nboxer_2 9 2 4\n",
        "oxford-iiit-pet/annotations/test.txt": b"#Image CLASS-ID SPECIES BREED\nboxer_3 9 2 4\n",
    }
    photos = {
        "food-101": ("apple_pie/1", "apple_pie/2", "waffles/3", "waffles/4"),
        "CUB_200_2011": ("001.Albatross/a_1", "002.Auklet/b_2"),
        "oxford-iiit-pet": ("Abyssinian_1", "boxer_2", "boxer_3"),
    }
    return lists | {
        f"{folder}/images/{name}.jpg": data_files.picture(1, kind="JPEG")
        for folder, names in photos.items()
        for name in names
    }


def weights(folder: Path) -> None:
    """Write models and checkpoints under the names that the pages have."""
    preprocess, names = Preprocess(72, 64), imagenet_labels()
    model = random_model(SPEC, device="reference", preprocess=preprocess, labels=names)
    save(model, folder / "resnext50_32x4d.h5")
    (folder / "home" / "models").mkdir(parents=True)
    for name in PULLED:
        shutil.copy(folder / "resnext50_32x4d.h5", folder / "home" / "models" / f"{name}.h5")
    stored = Stored(model.spec, model.params, preprocess, names, model.provenance)
    export.write_pth(folder / "any.pth", model.params, carried=carried.written(stored))
    hub = folder / "resnext50_32x4d.a1h_in1k"
    hub.mkdir()
    export.write_safetensors(
        hub / "model.safetensors", model.params, carried=carried.written(stored)
    )
    for digest in ("7cdf4587", "1a0047aa"):
        file = folder / f"resnext50_32x4d-{digest}.pth"
        file.write_bytes(cases.checkpoint(dict(model.params), legacy=True))


def images(classes: tuple[str, ...], count: int) -> dict[str, bytes]:
    """Return files of small images in a folder for each class."""
    return {
        f"{name}/{number}.png": data_files.picture(100 * place + number, 16)
        for place, name in enumerate(classes)
        for number in range(count)
    }


def split(name: str, files: dict[str, bytes]) -> dict[str, bytes]:
    """Return the same files in the folder of a split."""
    return {f"{name}/{path}": data for path, data in files.items()}
