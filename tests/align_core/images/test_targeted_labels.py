"""The column of classes to lead to: read as labels are, from every kind of image set, and refused where it is wrong."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from align_core.errors import InputError
from align_core.images import ImageSetConfig
from align_core.images.inspection import Inspection, inspect_images
from align_core.images.manifest import Manifest, manifests_of

NAMES = ("bird", "cat", "dog")
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)


def folder_with(folder: Path, text: str, labels: str = "labels.csv") -> ImageSetConfig:
    """Four pictures, and a CSV file of this text."""
    for number, pixels in enumerate(IMAGES):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / labels).write_text(text)
    return ImageSetConfig(kind="folder", path=str(folder), labels=str(folder / labels))


def npz_with(folder: Path, labels: Any, targeted: Any) -> ImageSetConfig:
    np.savez(folder / "a.npz", images=IMAGES, labels=np.array(labels), targeted_labels=np.array(targeted))
    return ImageSetConfig(kind="npz", path=str(folder / "a.npz"))


def parquet_with(folder: Path, targeted: pa.Array, labels: Sequence[int] = (0, 1, 2, 0)) -> ImageSetConfig:
    pixels = np.ascontiguousarray(IMAGES.transpose(0, 3, 1, 2))
    columns = {
        "image": pa.FixedShapeTensorArray.from_numpy_ndarray(pixels),
        "label": pa.array(labels),
        "targeted_label": targeted,
        "image_id": ["d", "c", "b", "a"],
    }
    pq.write_table(pa.table(columns), folder / "a.parquet")
    return ImageSetConfig(kind="parquet", path=str(folder / "a.parquet"))


def manifest(found: Inspection, names: tuple[str, ...] | None = None) -> Manifest:
    return manifests_of({"test": found}, 8, 3, names, targeted=["test"])["test"]


def towards(config: ImageSetConfig, names: tuple[str, ...] | None = None) -> list[int]:
    found = manifest(inspect_images(config, 8), names).towards
    assert found is not None and found.dtype == np.int64
    return found.tolist()


def test_the_header_of_nips_2017(tmp_path: Path) -> None:
    text = "filename,label,targeted_label\n2.png,2,0\n0.png,0,1\n1.png,1,2\n"
    assert towards(folder_with(tmp_path, text)) == [1, 2, 0]


def test_class_names_in_a_csv_file(tmp_path: Path) -> None:
    text = "path,label,targeted_label\n0.png,dog,cat\n1.png,cat,bird\n2.png,bird,dog\n"
    config = folder_with(tmp_path, text)
    assert towards(config) == [1, 0, 2]
    assert towards(config, ("dog", "cat", "bird")) == [1, 2, 0]


def test_an_npz_file(tmp_path: Path) -> None:
    assert towards(npz_with(tmp_path, [0, 1, 2, 0], np.array([2, 2, 1, 1], np.uint8))) == [2, 2, 1, 1]
    assert towards(npz_with(tmp_path, ["cat", "dog", "bird", "cat"], ["dog", "cat", "cat", "bird"])) == [2, 1, 1, 0]


def test_a_parquet_file_in_the_order_of_its_ids(tmp_path: Path) -> None:
    assert towards(parquet_with(tmp_path, pa.array([1, 2, 0, 2]))) == [2, 0, 2, 1]
    assert towards(parquet_with(tmp_path, pa.array(["cat", "dog", "bird", "dog"])), NAMES) == [2, 0, 2, 1]


def test_a_selection_keeps_each_image_s_own_class(tmp_path: Path) -> None:
    npz_with(tmp_path, [0, 1, 2, 0], [2, 0, 1, 1])
    chosen = ImageSetConfig(kind="npz", path=str(tmp_path / "a.npz"), take=(1, 3))
    found = manifest(inspect_images(chosen, 8))
    assert found.towards is not None and found.towards.tolist() == [0, 1]
    kept = found.without([0]).towards
    assert kept is not None and kept.tolist() == [1]


@pytest.mark.parametrize("last", ["", "cat"])
def test_numbers_count_from_1_whatever_images_that_are_not_selected_have(tmp_path: Path, last: str) -> None:
    """A cell that is no number makes the column text, in which numbers still count as the labels do."""
    text = f"path,label,targeted_label\n0.png,1,2\n1.png,2,1\n2.png,3,{last}\n"
    found = manifest(inspect_images(replace(folder_with(tmp_path, text), first_class=1, limit=2), 8))
    assert found.towards is not None and found.towards.tolist() == [1, 0]
    npz = replace(npz_with(tmp_path, [1, 2, 3, 1], ["2", "1", "cat", "3"]), first_class=1, limit=2)
    parquet = parquet_with(tmp_path, pa.array(["2", "3", "1", "2"]), labels=[1, 2, 3, 1])
    assert towards(npz) == [1, 0]
    assert towards(replace(parquet, first_class=1)) == [1, 0, 2, 1]


def test_a_number_without_a_name_is_no_index(tmp_path: Path) -> None:
    (tmp_path / "names.csv").write_text("number,name\n1,cat\n2,dog\n3,bird\n")
    config = folder_with(tmp_path, "path,label,targeted_label\n0.png,1,0\n1.png,2,0\n2.png,3,1\n")
    with pytest.raises(InputError, match=r"data.test: names 1 classes .* `0, which is not in .*names.csv`"):
        manifest(inspect_images(replace(config, label_names=str(tmp_path / "names.csv"), limit=1), 8))


def test_the_column_changes_its_own_hash_alone(tmp_path: Path) -> None:
    one, other = (
        manifest(inspect_images(npz_with(tmp_path, [0, 1, 2, 0], targeted), 8))
        for targeted in ([1, 2, 0, 1], [1, 2, 0, 2])
    )
    assert one.digest == other.digest
    assert one.digest_of_towards != other.digest_of_towards


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("path,label\n0.png,0\n", "this image set says nothing of classes to lead to; add a column `targeted_label`"),
        ("path,label,targeted_label\n0.png,0,\n1.png,1,2\n", "1 images have no `targeted_label`, such as 0.png"),
        ("path,label,targeted_label\n0.png,0,1\n1.png,1\n", "1 images have no `targeted_label`, such as 1.png"),
        ("path,label,targeted_label\n0.png,0,4\n", "lie outside 0 to 2: image 0.png is to be led to 4$"),
        (
            "path,label,targeted_label\n0.png,1,3\n1.png,2,1\n",
            "to be led to 3; if labels and these count from 1, set data.te",
        ),
        ("path,label,targeted_label\n0.png,0,-1\n", "have no `targeted_label`, such as 0.png"),
        ("path,label,targeted_label\n0.png,0,0\n", "of 1 images is their own label, such as 0.png \\(0\\)"),
        ("path,label,targeted_label\n0.png,0,cat\n", "'cat' is a name, and the labels are class indices"),
        ("path,label,targeted_label\n0.png,a,b\n1.png,b,c\n2.png,c,d\n", "`d`.* \\(in `targeted_label`\\)"),
        ("path,label,targeted_label\n0.png,a,b\n1.png,b,b\n2.png,c,a\n", "is their own label, such as 1.png \\(b\\)"),
    ],
)
def test_a_column_that_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    config = folder_with(tmp_path, text)
    found = inspect_images(config, 8)
    manifests_of({"test": found}, 8, 3)  # where no attack asks for the column, it need not be right
    with pytest.raises(InputError, match=complaint) as refusal:
        manifest(found)
    assert str(refusal.value).startswith("data.test: ")


def test_cells_that_are_null_in_a_parquet_file(tmp_path: Path) -> None:
    for column in (pa.array([1, 2, None, 2]), pa.array(["1", "2", None, "2"])):
        found = inspect_images(parquet_with(tmp_path, column), 8)
        assert len(found) == 4
        with pytest.raises(InputError, match="1 images have no `targeted_label`, such as b"):
            manifest(found)


def test_an_array_of_another_length_or_type(tmp_path: Path) -> None:
    for targeted in ([0, 1], [0.5, 1.5, 2.5, 0.5]):
        with pytest.raises(InputError, match="`targeted_labels` must be 4 integers or names"):
            inspect_images(npz_with(tmp_path, [0, 1, 2, 0], targeted), 8)


def test_a_parquet_column_of_another_type(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the column `targeted_label` must hold integers or class names, not double"):
        inspect_images(parquet_with(tmp_path, pa.array([0.5, 1.5, 2.5, 0.5])), 8)
