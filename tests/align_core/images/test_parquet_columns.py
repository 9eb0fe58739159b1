"""Parquet files as Hugging Face's data sets have them: columns of other names, ClassLabel, shards; what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_sets import listed, noise, png

from align_core.errors import InputError
from align_core.images import ImageSetConfig, open_image_set
from align_core.images.inspection import inspect_images
from align_core.images.manifest import manifests_of

PIXELS = noise(4, 8, 8, 3)
FINE = ("bird", "cat", "dog")


def table(**other: Any) -> pa.Table:
    """Columns of CIFAR-100, with the metadata in which ClassLabel has its names."""
    images = [{"bytes": png(pixels), "path": f"{row}.png"} for row, pixels in enumerate(PIXELS)]
    columns = {"img": images, "fine_label": [2, 0, 1, 2], "coarse_label": [1, 0, 0, 1], "key": ["d", "a", "c", "b"]}
    features = {
        "img": {"_type": "Image"},
        "fine_label": {"names": list(FINE), "_type": "ClassLabel"},
        "key": {"dtype": "string", "_type": "Value"},
    }
    written = pa.table(columns | other)
    return written.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def config(path: Path, **settings: Any) -> ImageSetConfig:
    return ImageSetConfig(kind="parquet", path=str(path), **settings)


CIFAR = {"image_column": "img", "label_column": "fine_label"}


def write(path: Path, **other: Any) -> Path:
    pq.write_table(table(**other), path)
    return path


def test_columns_of_other_names(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet")
    image_set = open_image_set(config(path, **CIFAR), 8)
    ids, labels = image_set.listing()
    assert (ids, labels.tolist()) == (["00000", "00001", "00002", "00003"], [2, 0, 1, 2])
    assert (image_set.labels().names, image_set.labels().is_ordered) == (FINE, True)
    for row, image_id in enumerate(ids):
        assert np.array_equal(image_set.read(image_id), PIXELS[row].transpose(2, 0, 1))
    coarse = open_image_set(config(path, image_column="img", label_column="coarse_label"), 8)
    assert coarse.labels().names == ()
    assert coarse.labels().values.tolist() == [1, 0, 0, 1]


def test_a_column_of_ids(tmp_path: Path) -> None:
    image_set = open_image_set(config(write(tmp_path / "a.parquet"), id_column="key", **CIFAR), 8)
    ids, labels = image_set.listing()
    assert (ids, labels.tolist()) == (["a", "b", "c", "d"], [0, 2, 1, 2])
    for image_id, row in (("a", 1), ("b", 3), ("c", 2), ("d", 0)):
        assert np.array_equal(image_set.read(image_id), PIXELS[row].transpose(2, 0, 1))


def test_names_of_class_label_go_by_a_file_of_classes(tmp_path: Path) -> None:
    found = inspect_images(config(write(tmp_path / "a.parquet"), **CIFAR), 8)
    assert manifests_of({"test": found}, 8, 3)["test"].labels.tolist() == [2, 0, 1, 2]
    other = manifests_of({"test": found}, 8, 3, ("dog", "cat", "bird"))
    assert other["test"].labels.tolist() == [0, 2, 1, 0]


@pytest.mark.parametrize("first", [0, 1])
def test_the_number_of_the_first_class(tmp_path: Path, first: int) -> None:
    numbers = {"coarse_label": [2, 1, None, 2], "targeted_label": [1, 2, 1, None]}
    path = write(tmp_path / "a.parquet", **numbers)
    settings = {"image_column": "img", "label_column": "coarse_label", "first_class": first}
    image_set = open_image_set(config(path, **settings), 8)
    assert [label for row, label in enumerate(image_set.listing()[1]) if row != 2] == [2 - first, 1 - first, 2 - first]
    assert list(image_set.left_out().refused.values()) == ["its `coarse_label` is null"]
    targeted = image_set.targeted()
    assert targeted is not None and targeted.values.tolist() == [1 - first, 2 - first, 1 - first, -1]


def test_labels_below_the_first_class(tmp_path: Path) -> None:
    wrong = config(write(tmp_path / "a.parquet"), image_column="img", label_column="coarse_label", first_class=1)
    with pytest.raises(InputError, match="image 00001 has the label 0, where the first class has the number 1"):
        listed(wrong)


def test_the_first_class_of_named_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the schema names the class of each integer in `fine_label`; leave"):
        open_image_set(config(write(tmp_path / "a.parquet"), first_class=1, **CIFAR), 8).labels()


def test_labels_that_count_from_1_are_told_how_to_mend_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", coarse_label=[1, 2, 2, 1])
    found = inspect_images(config(path, image_column="img", label_column="coarse_label"), 8)
    with pytest.raises(InputError, match=r"label 2; .* if these count from 1, set data.train.first_class: 1; is"):
        manifests_of({"train": found}, 8, 2)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (
            {},
            r"needs the columns `image` and `label` in every file, and here `image` and `label` are missing; its "
            r"columns are: `img`, `fine_label`, `coarse_label`, `key`. Name those that hold images and labels as "
            r"`image_column` \(perhaps 'img'\) and `label_column` \(perhaps 'fine_label'\)$",
        ),
        ({"image_column": "img"}, r"and here `label` is missing; .* as `label_column` \(perhaps 'fine_label'\)$"),
        ({"image_column": "imgs"}, "has no column `imgs`, which `image_column` names; .*; did you mean 'img'?"),
        ({**CIFAR, "id_column": "x"}, "has no column `x`, which `id_column` names; its columns are: `img`, [^?]*$"),
        ({"image_column": "key", "label_column": "fine_label"}, "`key` must hold encoded bytes, .* not string"),
        ({"image_column": "fine_label", "label_column": "key"}, "`fine_label` must hold encoded bytes, .* not int64"),
        ({"image_column": "img", "label_column": "soft"}, "`soft` must hold integers or class names, not list"),
        ({"image_column": "img", "label_column": "share"}, "`share` must hold integers or class .* not double"),
        ({**CIFAR, "id_column": "share"}, "the column `share` must hold text or integers, not double"),
        ({**CIFAR, "id_column": "twice"}, "the `twice` 'a' occurs twice, in rows 0 and 2"),
    ],
)  # fmt: skip
def test_columns_that_are_refused(tmp_path: Path, settings: dict[str, Any], complaint: str) -> None:
    more = {"soft": [[0.5, 0.5]] * 4, "share": [0.5] * 4, "twice": ["a", "b", "a", "c"]} if len(settings) > 1 else {}
    with pytest.raises(InputError, match=complaint) as refusal:
        listed(config(write(tmp_path / "a.parquet", **more), **settings))
    assert "a.parquet: " in str(refusal.value)


@pytest.mark.parametrize("name", ["img", "fine_label", "key"])
def test_a_column_that_stands_twice(tmp_path: Path, name: str) -> None:
    once = table()
    twice = once.append_column(name, once[name])
    pq.write_table(twice, tmp_path / "a.parquet")
    with pytest.raises(InputError, match=f"a.parquet: has 2 columns `{name}`; rename all but one"):
        inspect_images(config(tmp_path / "a.parquet", **CIFAR, id_column="key"), 8)


def test_shards_of_other_types(tmp_path: Path) -> None:
    """Integers of other sizes are the same numbers; numbers and names are not."""
    write(tmp_path / "1.parquet")
    write(tmp_path / "2.parquet", fine_label=pa.array([0, 1, 2, 0], pa.int8()))
    assert open_image_set(config(tmp_path, **CIFAR), 8).listing()[1].tolist() == [2, 0, 1, 2, 0, 1, 2, 0]
    names = pa.array(["a", "b", "c", "a"])
    for other, kind in ((names, "string"), (names.dictionary_encode(), "dictionary<values=string.*>")):
        write(tmp_path / "2.parquet", fine_label=other)
        said = rf"2\.parquet: the column `fine_label` holds {kind}, and in .*1\.parquet it holds int64; write it as one"
        with pytest.raises(InputError, match=said):
            open_image_set(config(tmp_path, **CIFAR), 8).listing()
    write(tmp_path / "2.parquet", key=[1, 2, 3, 4])
    with pytest.raises(InputError, match=r"2\.parquet: the column `key` holds int64, and in .*1\.parquet it holds str"):
        open_image_set(config(tmp_path, **CIFAR, id_column="key"), 8).listing()


def test_a_shard_that_ends_early_is_named(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"train-0000{number}-of-00003.parquet")
    cut = tmp_path / "train-00001-of-00003.parquet"
    for content in (cut.read_bytes()[:-1], cut.read_bytes()[:100], b""):
        cut.write_bytes(content)
        with pytest.raises(InputError, match=r"00001-of-00003.parquet: cannot be read as Parquet .* fetch it again"):
            listed(config(tmp_path, **CIFAR))


def test_a_shard_that_is_missing_and_a_split_too_many_are_said(tmp_path: Path) -> None:
    names = [f"train-0000{number}-of-00003.parquet" for number in range(3)]
    for name in names:
        write(tmp_path / name)
    assert inspect_images(config(tmp_path, **CIFAR), 8).notes == []
    (tmp_path / names[1]).unlink()
    write(tmp_path / "test-00000-of-00001.parquet")
    assert inspect_images(config(tmp_path, **CIFAR), 8).notes == [
        "2 of the 3 files train-*-of-00003.parquet are there: the others' images are missing",
        "files of several splits (test, train) are used as one image set; give a file, or a folder, of one",
    ]
    assert inspect_images(config(tmp_path / names[0], **CIFAR), 8).notes == []


def test_a_picture_that_is_elsewhere(tmp_path: Path) -> None:
    images = pa.array([{"bytes": None, "path": "0.png"}] * 4, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    found = inspect_images(config(write(tmp_path / "a.parquet", img=images), **CIFAR), 8)
    assert found.unreadable[0] == (
        "00000",
        "its `bytes` are null, and the file that its `path` names is not read (0.png)",
    )
