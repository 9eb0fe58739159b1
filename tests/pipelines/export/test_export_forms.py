"""Exported images as others read them: TransferAttack, torchattack, numpy, torch, Hugging Face, and ourselves."""

import csv
import errno
import json
import resource
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from exported_by_hand import IDS, images_by_hand, pixels_of
from PIL import Image

from align_core.images import ImageSetConfig, open_image_set
from pipelines.export.forms import FORMS
from pipelines.storage.store import Store

GREY_AND_COLOUR = pytest.mark.parametrize("channels", [1, 3])


def written(tmp_path: Path, form: str, **kwargs) -> tuple[Path, np.ndarray]:
    """Writes images in a form; returns where they are, and the stored pixels."""
    images = images_by_hand(tmp_path, **kwargs)
    FORMS[form].write(images, Store(str(tmp_path), "out"), "there")
    return tmp_path / "out" / "there", pixels_of(images)


@GREY_AND_COLOUR
def test_png_files_as_transferattack_reads_them(tmp_path: Path, channels: int) -> None:
    """Its loader takes `filename` and `label` from labels.csv, opens each file below the folder and makes it RGB."""
    folder, stored = written(tmp_path, "png", channels=channels)
    listed = pd.read_csv(folder / "labels.csv")
    assert listed["filename"].tolist() == ["bird/1.png", "cat/1.png", "cat/10.png", "cat/2.png", "dog, the 3rd.png"]
    assert listed["label"].tolist() == [0, 1, 2, 0, 1]
    assert listed["image_id"].tolist() == list(IDS)
    for name, pixels in zip(listed["filename"], stored, strict=True):
        with Image.open(folder / name) as picture:
            assert picture.format == "PNG"
            found = torch.from_numpy(np.array(picture.convert("RGB")).astype(np.float32) / 255).permute(2, 0, 1)
        assert torch.equal(found, (torch.tensor(pixels) / 255).expand(3, -1, -1))


def test_png_files_of_a_targeted_attack(tmp_path: Path) -> None:
    folder, _ = written(tmp_path, "png", targeted=True)
    listed = pd.read_csv(folder / "labels.csv")
    assert list(listed.columns) == ["filename", "label", "targeted_label", "image_id"]
    assert listed["targeted_label"].tolist() == [1, 2, 0, 1, 2]


def test_png_files_as_torchattack_reads_them(tmp_path: Path) -> None:
    """Its loader takes names and labels, counted from 1, from the file of NIPS'17, and images from another folder."""
    dataset = pytest.importorskip("torchattack.evaluate.dataset")
    folder, stored = written(tmp_path, "png", ids=[f"{number:04x}.png" for number in range(7)])
    with open(tmp_path / "images.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["ImageId", "URL", "x1", "y1", "x2", "y2", "TrueLabel", "TargetClass"])
        rows.writerows([f"{number:04x}", "", 0, 0, 1, 1, 1 + number % 3, 1] for number in range(7))
    loader = dataset.NIPSLoader(
        image_root=str(folder), image_csv=str(tmp_path / "images.csv"), transform=np.array, batch_size=7, num_workers=0
    )
    pixels, labels, names = next(iter(loader))
    np.testing.assert_array_equal(pixels.permute(0, 3, 1, 2).numpy(), stored)
    assert labels.tolist() == [0, 1, 2, 0, 1, 2, 0] and names[5] == "0005"


@pytest.mark.parametrize("form", ["png", "npz", "parquet"])
@GREY_AND_COLOUR
def test_exported_images_are_an_image_set_of_ours(tmp_path: Path, form: str, channels: int) -> None:
    path, stored = written(tmp_path, form, channels=channels, targeted=True)
    where = {"kind": form, "path": str(path)}
    if form == "png":
        where = {"kind": "folder", "path": str(path), "labels": str(path / "labels.csv")}
    images = open_image_set(ImageSetConfig(**where), 5, channels)
    ids, labels = images.listing()
    assert labels.tolist() == [0, 1, 2, 0, 1]
    assert form == "png" or ids == list(IDS)
    np.testing.assert_array_equal([images.read(image_id) for image_id in ids], stored)
    targeted = images.targeted()
    assert targeted is not None and targeted.values.tolist() == [1, 2, 0, 1, 2]


def test_png_files_with_the_names_of_their_classes(tmp_path: Path) -> None:
    path, _ = written(tmp_path, "png", class_names=("bird", "cat", "dog"))
    assert (path / "labels.csv").read_text().splitlines()[:2] == [
        "filename,label,image_id,class",
        "bird/1.png,0,bird/1.JPEG,bird",
    ]
    config = ImageSetConfig(kind="folder", path=str(path), labels=str(path / "labels.csv"), label_column="class")
    assert open_image_set(config, 5, 3).listing()[1].tolist() == ["bird", "cat", "dog", "bird", "cat"]


@GREY_AND_COLOUR
def test_an_npz_file_as_numpy_reads_it(tmp_path: Path, channels: int) -> None:
    path, stored = written(tmp_path, "npz", channels=channels)
    with np.load(path, allow_pickle=False) as arrays:
        assert set(arrays.files) == {"images", "labels", "ids"}
        assert arrays["images"].dtype == np.uint8
        np.testing.assert_array_equal(arrays["images"], stored.transpose(0, 2, 3, 1))
        assert arrays["labels"].tolist() == [0, 1, 2, 0, 1] and arrays["ids"].tolist() == list(IDS)


@GREY_AND_COLOUR
def test_a_tensor_as_robustbench_takes_it(tmp_path: Path, channels: int) -> None:
    path, stored = written(tmp_path, "robustbench", channels=channels)
    images_NCHW = torch.load(path, weights_only=True)
    assert images_NCHW.dtype == torch.float32 and images_NCHW.shape == (5, channels, 5, 5)
    assert float(images_NCHW.min()) == 0 and float(images_NCHW.max()) == 1
    np.testing.assert_array_equal((images_NCHW * 255).to(torch.uint8).numpy(), stored)  # without rounding


def test_parquet_as_hugging_face_has_it(tmp_path: Path) -> None:
    path, stored = written(tmp_path, "parquet", class_names=("bird", "cat", "dog"), targeted=True)
    file = pq.ParquetFile(path)
    classes = {"names": ["bird", "cat", "dog"], "_type": "ClassLabel"}
    assert json.loads(file.schema_arrow.metadata[b"huggingface"])["info"]["features"] == {
        "image": {"_type": "Image"},
        "label": classes,
        "image_id": {"dtype": "string", "_type": "Value"},
        "targeted_label": classes,
    }
    rows = file.read().to_pylist()
    assert [row["label"] for row in rows] == [0, 1, 2, 0, 1] and [row["image_id"] for row in rows] == list(IDS)
    assert rows[0]["image"]["path"] == "bird/1.png" and rows[0]["image"]["bytes"].startswith(b"\x89PNG")
    assert file.num_row_groups == 2  # one a chunk: memory need not hold all of them
    images = open_image_set(ImageSetConfig(kind="parquet", path=str(path)), 5, 3)
    assert images.labels().names == ("bird", "cat", "dog")
    np.testing.assert_array_equal(images.read("dog, the 3rd"), stored[4])


def test_parquet_as_the_package_datasets_reads_it(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    path, stored = written(tmp_path, "parquet", class_names=("bird", "cat", "dog"))
    found = datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache"))
    assert found.features["label"].names == ["bird", "cat", "dog"]
    assert isinstance(found.features["image"], datasets.Image)
    for row, pixels in zip(found, stored, strict=True):
        np.testing.assert_array_equal(np.asarray(row["image"]).transpose(2, 0, 1), pixels)


@pytest.mark.parametrize("form", list(FORMS))
def test_what_the_disk_says_and_where(tmp_path: Path, form: str) -> None:
    images, (_, most) = images_by_hand(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, most))  # a write of more than this fails, as on a full disk
    try:
        with pytest.raises(OSError, match=rf"File too large: '{tmp_path}/out/there") as found:
            FORMS[form].write(images, Store(str(tmp_path), "out"), "there")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert found.value.errno == errno.EFBIG


@pytest.mark.parametrize("form", list(FORMS))
def test_what_is_read_back_is_what_was_written(tmp_path: Path, form: str) -> None:
    """This is the check that every export makes: it must pass for good files, and see a single other pixel."""
    images, store = images_by_hand(tmp_path, targeted=True), Store(str(tmp_path), "out")
    FORMS[form].write(images, store, "there")
    chunks = list(zip(images.read(), FORMS[form].read(images, store, "there"), strict=True))
    assert [stored.differing(written) for stored, written in chunks] == [[], []]

    other = images_by_hand(tmp_path / "other", targeted=True)
    pixels = pixels_of(other).copy()
    pixels[4, 2, 4, 4] ^= 1
    table = pq.read_table(other.store.path(other.table.finished_file))
    changed = pa.FixedShapeTensorArray.from_numpy_ndarray(pixels)
    position = table.schema.get_field_index("image")
    other.store.delete(other.table.finished_file)
    for number, rows in enumerate(other.chunks):
        part = table.set_column(position, "image", changed).slice(rows.start, len(rows))
        other.table.write_chunk(other.store, number, part)
    other.table.finish(other.store, [3, 2])
    chunks = list(zip(other.read(), FORMS[form].read(other, store, "there"), strict=True))
    assert [stored.differing(written) for stored, written in chunks] == [[], [IDS[4]]]
