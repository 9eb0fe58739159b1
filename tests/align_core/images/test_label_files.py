"""Label files in the forms of the field: a file of each, with labels and pixels that are known beforehand."""

import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_sets import folder_of, listed, noise, png
from scipy.io import savemat

from align_core.errors import InputError
from align_core.images import ImageSetConfig, open_image_set
from align_core.images.decoding import Pixels
from align_core.images.inspection import Inspection, inspect_images
from align_core.images.label_names import FROM_META_MAT
from align_core.images.manifest import Manifest, manifests_of

TENCH, GOLDFISH, SHARK, KITE = "n01440764", "n01443537", "n01484850", "n01608432"
SORTED = (TENCH, GOLDFISH, SHARK, KITE)
"""Four synsets of ImageNet in the order of the outputs of a network."""
DEVKIT = {1: KITE, 2: TENCH, 3: SHARK, 4: GOLDFISH}
"""What ILSVRC2012_ID would number them, in another order."""


class Files:
    """A folder of images beside label files. Every image differs from every other."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.folder, self.pixels = folder, dict[str, Pixels]()
        for seed, name in enumerate(names):
            self.pixels[name] = noise(8, 8, 3, seed=seed)
        folder_of(folder / "images", {name: png(pixels) for name, pixels in self.pixels.items()})

    def config(self, text: str, name: str = "labels.csv", **settings: Any) -> ImageSetConfig:
        (self.folder / name).write_text(text)
        if names := settings.pop("names", None):
            (self.folder / "synsets.csv").write_text(names)
            settings["label_names"] = str(self.folder / "synsets.csv")
        images, labels = self.folder / "images", self.folder / name
        return ImageSetConfig(kind="folder", path=str(images), labels=str(labels), **settings)

    def check_pixels(self, config: ImageSetConfig) -> None:
        """Each image is read under its own id, and is the one that was written."""
        image_set = open_image_set(config, 8)
        ids, _ = image_set.listing()
        assert ids == sorted(self.pixels)
        for name in ids:
            assert np.array_equal(image_set.read(name), self.pixels[name].transpose(2, 0, 1))


def devkit_csv() -> str:
    return "ILSVRC2012_ID,WNID\n" + "".join(f"{number},{name}\n" for number, name in DEVKIT.items())


def manifest(found: Inspection, classes: int = 4, names: tuple[str, ...] | None = None, **more: Any) -> Manifest:
    return manifests_of({"test": found}, 8, classes, names, **more)["test"]


def labels_of(config: ImageSetConfig, classes: int = 4, names: tuple[str, ...] | None = None) -> dict[str, int]:
    found = manifest(inspect_images(config, 8), classes, names)
    return dict(zip(found.ids, found.labels.tolist(), strict=True))


def test_transferattack_counts_from_0(tmp_path: Path) -> None:
    files = Files(tmp_path, "1.png", "2.png")
    config = files.config("filename,label,targeted_label\n2.png,3,0\n1.png,0,2\n")
    files.check_pixels(config)
    assert labels_of(config) == {"1.png": 0, "2.png": 3}
    found = manifest(inspect_images(config, 8), targeted=["test"])
    assert found.towards is not None and found.towards.tolist() == [2, 0]
    assert found.notes == ("labels.csv is read in the form of TransferAttack: classes are numbers from 0",)


NIPS = "ImageId,URL,TrueLabel,TargetClass,Author\na1,http://x/1.jpg,4,1,me\nb2,http://x/2.jpg,1,3,me\n"


class TestNips2017:
    def test_it_counts_from_1_and_names_no_suffix(self, tmp_path: Path) -> None:
        files = Files(tmp_path, "a1.png", "b2.png")
        config = files.config(NIPS, "images.csv")
        files.check_pixels(config)
        assert labels_of(config) == {"a1.png": 3, "b2.png": 0}
        found = manifest(inspect_images(config, 8), targeted=["test"])
        assert found.towards is not None and found.towards.tolist() == [0, 2]
        assert found.notes == ("images.csv is read in the form of NIPS 2017: classes are numbers from 1",)

    def test_networks_with_a_class_of_the_background(self, tmp_path: Path) -> None:
        config = Files(tmp_path, "a1.png", "b2.png").config(NIPS, first_class=0)
        assert labels_of(config, 5) == {"a1.png": 4, "b2.png": 1}

    def test_a_copy_that_counts_from_0(self, tmp_path: Path) -> None:
        config = Files(tmp_path, "a1.png").config("ImageId,TrueLabel,TargetClass\na1,0,1\n")
        with pytest.raises(InputError, match=r"labels.csv: image a1.png has the label 0, .* set `first_class: 0`"):
            listed(config)

    def test_another_column_keeps_the_form(self, tmp_path: Path) -> None:
        config = Files(tmp_path, "a1.jpg").config("file,TrueLabel\na1.jpg,4\n", image_column="file")
        assert labels_of(config) == {"a1.jpg": 3}
        both = Files(tmp_path, "a1.jpg").config(
            "file,TrueLabel\na1.jpg,4\n", image_column="file", label_column="TrueLabel"
        )
        assert labels_of(both) == {"a1.jpg": 3}

    @pytest.mark.parametrize("image", [None, "ImageId", "URL"])
    def test_the_classes_to_lead_to_as_labels_count_from_1_too(self, tmp_path: Path, image: str | None) -> None:
        config = Files(tmp_path, "a1.png", "b2.png").config(
            "ImageId,URL,TrueLabel,TargetClass\na1,a1.png,4,1\nb2,b2.png,1,3\n",
            label_column="TargetClass",
            image_column=image,
        )
        assert labels_of(config) == {"a1.png": 0, "b2.png": 2}

    def test_labels_of_another_column_are_not_beside_classes_that_count_from_1(self, tmp_path: Path) -> None:
        """Nothing says that both count alike."""
        text = "ImageId,TrueLabel,TargetClass,mine\na1,4,1,3\n"
        config = Files(tmp_path, "a1.png").config(text, label_column="mine")
        assert labels_of(config) == {"a1.png": 3} and open_image_set(config, 8).targeted() is None

    def test_two_images_of_one_name(self, tmp_path: Path) -> None:
        config = Files(tmp_path, "a1.png", "a1.jpg", "b2.png").config(NIPS)
        with pytest.raises(InputError, match=r"labels.csv, line 2: a1 may be a1.jpg or a1.png in .*; remove one"):
            listed(config)

    def test_a_class_that_is_no_number(self, tmp_path: Path) -> None:
        config = Files(tmp_path, "a1.png").config("ImageId,TrueLabel\na1,tench\n")
        with pytest.raises(InputError, match="line 2: the label 'tench' is no integer"):
            listed(config)


TA_BENCH = (
    "class_index,class,image_name\n"
    f"3,{KITE},ILSVRC2012_val_00000007.JPEG\n"
    f"0,{TENCH},ILSVRC2012_val_00000004.JPEG\n"
    f"1,{GOLDFISH},ILSVRC2012_val_00000009.JPEG\n"
    f"2,{SHARK},ILSVRC2012_val_00000005.JPEG\n"
)


@pytest.mark.parametrize("column", [None, "class"])
def test_ta_bench_has_an_index_and_a_synset(tmp_path: Path, column: str | None) -> None:
    files = Files(tmp_path, *(f"ILSVRC2012_val_0000000{number}.JPEG" for number in (4, 5, 7, 9)))
    config = files.config(TA_BENCH, "rand_5000.csv", label_column=column)
    files.check_pixels(config)
    assert list(labels_of(config).values()) == [0, 2, 3, 1]
    assert list(labels_of(config, names=SORTED).values()) == [0, 2, 3, 1]
    said = ["rand_5000.csv is read in the form of TA-Bench: classes are numbers from 0"]
    assert open_image_set(config, 8).notes() == ([] if column else said)


VALIDATION = [f"ILSVRC2012_val_0000000{line}.JPEG" for line in (1, 2, 3, 4)]


class TestImageNetValidation:
    def test_the_ground_truth_needs_the_synsets_of_its_numbers(self, tmp_path: Path) -> None:
        files = Files(tmp_path, *VALIDATION)
        config = files.config("3\n1\n2\n4\n", "truth.txt", names=devkit_csv())
        files.check_pixels(config)
        assert list(labels_of(config).values()) == [SORTED.index(DEVKIT[number]) for number in (3, 1, 2, 4)]
        assert open_image_set(config, 8).notes() == [
            "truth.txt is read in the form of ImageNet's validation images, a label a line, without a header: classes "
            "are numbers with the names in synsets.csv"
        ]

    def test_without_them_it_is_refused(self, tmp_path: Path) -> None:
        files = Files(tmp_path, *VALIDATION)
        for settings in ({}, {"first_class": 1}, {"first_class": 0}):
            with pytest.raises(InputError, match=r"truth.txt: holds numbers in an order of their own .* `label_names`"):
                listed(files.config("3\n1\n2\n4\n", "truth.txt", **settings))

    def test_all_classes_of_the_list_count_whether_or_not_they_have_an_image(self, tmp_path: Path) -> None:
        config = Files(tmp_path, *VALIDATION[:2]).config("1\n1\n", "truth.txt", names=devkit_csv())
        assert list(labels_of(config).values()) == [3, 3]

    def test_the_list_is_written_from_the_devkit_as_the_message_says(self, tmp_path: Path) -> None:
        fields = ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children")
        rows = [(number, name, "a word, another", "", 0) for number, name in DEVKIT.items()]
        rows.append((1001, "n00001740", "entity", "", 3))
        synsets = np.array(rows, dtype=[(field, object) for field in fields]).reshape(-1, 1)
        savemat(tmp_path / "meta.mat", {"synsets": synsets})
        (command,) = re.findall(r"python (-c \".*\") > synsets.csv", FROM_META_MAT)
        written = subprocess.run(
            [sys.executable, *shlex.split(command)], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout
        assert written == devkit_csv()

    def test_rows_of_inner_synsets_are_no_classes(self, tmp_path: Path) -> None:
        text = "ILSVRC2012_ID,WNID,num_children\n1,n01,0\n2,n02,0\n3,n03,2\n"
        config = Files(tmp_path, *VALIDATION[:2]).config("2\n1\n", "truth.txt", names=text)
        assert list(labels_of(config, 2).values()) == [1, 0]

    def test_a_synset_a_line(self, tmp_path: Path) -> None:
        config = Files(tmp_path, *VALIDATION).config(f"{SHARK}\n{KITE}\n{TENCH}\n{GOLDFISH}\n", "synsets.txt")
        assert list(labels_of(config).values()) == [2, 3, 0, 1]

    @pytest.mark.parametrize("end", ["", "\n", "\n\n"])
    def test_pairs_count_from_0(self, tmp_path: Path, end: str) -> None:
        files = Files(tmp_path, *VALIDATION[:2])
        config = files.config(f"{VALIDATION[1]} 0\n{VALIDATION[0]} 3{end}", "val.txt")
        files.check_pixels(config)
        assert labels_of(config) == {VALIDATION[0]: 3, VALIDATION[1]: 0}
        assert open_image_set(config, 8).notes() == [
            "val.txt is read in the form of a list of images and labels, without a header: classes are numbers from 0"
        ]

    def test_kaggle_has_synsets_with_boxes(self, tmp_path: Path) -> None:
        files = Files(tmp_path, *VALIDATION[:2])
        text = (
            "ImageId,PredictionString\n"
            f"ILSVRC2012_val_00000002,{KITE} 85 1 499 272 \n"
            f"ILSVRC2012_val_00000001,{TENCH} 1 2 3 4 {TENCH} 5 6 7 8\n"
        )
        config = files.config(text, "LOC_val_solution.csv")
        files.check_pixels(config)
        assert labels_of(config, names=SORTED) == {VALIDATION[0]: 0, VALIDATION[1]: 3}
        with pytest.raises(InputError, match=r"name 2 classes .* give `data.classes` a file with one class name per"):
            labels_of(config)
        said = "LOC_val_solution.csv is read in the form of ImageNet at Kaggle: classes are names"
        assert open_image_set(config, 8).notes() == [said]


class TestColumnsByName:
    TEXT = "image,category,kind,targeted_label\nx.png,1,cat,0\ny.png,2,dog,1\n"

    def test_of_images_and_labels(self, tmp_path: Path) -> None:
        files = Files(tmp_path, "x.png", "y.png")
        config = files.config(self.TEXT, image_column="image", label_column="category")
        files.check_pixels(config)
        assert listed(config) == (["x.png", "y.png"], [1, 2])
        assert listed(files.config(self.TEXT, image_column="image", label_column="kind"))[1] == ["cat", "dog"]

    def test_that_count_from_1(self, tmp_path: Path) -> None:
        files = Files(tmp_path, "x.png", "y.png")
        config = files.config(self.TEXT, image_column="image", label_column="category", first_class=1)
        assert labels_of(config) == {"x.png": 0, "y.png": 1}
        found = open_image_set(config, 8).targeted()
        assert found is not None and found.values.tolist() == [-1, 0]
        assert open_image_set(config, 8).notes() == [
            "labels.csv is read by its column `category`: classes are numbers from 1"
        ]

    @pytest.mark.parametrize(
        ("image", "label", "complaint"),
        [
            (
                "imag",
                "kind",
                "no column `imag`, which `image_column` names; there are: `image`, .*; did you mean 'image'",
            ),
            ("image", "knd", "no column `knd`, which `label_column` names; .*; did you mean 'kind'"),
            ("image", "wholly else", "no column `wholly else`, .* there are: `image`, `category`, `kind`, [^;]*$"),
            (None, None, "needs the columns `path` and `label`, .* there are: `image`, .* Name them as `image_column`"),
        ],
    )
    def test_that_there_are_not(self, tmp_path: Path, image: str | None, label: str | None, complaint: str) -> None:
        config = Files(tmp_path, "x.png").config(self.TEXT, image_column=image, label_column=label)
        with pytest.raises(InputError, match=complaint) as refusal:
            listed(config)
        assert "labels.csv: " in str(refusal.value)

    def test_of_a_file_without_a_header(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"val.txt: has no header, so that its columns have no names"):
            listed(Files(tmp_path, "x.png").config("x.png 1\n", "val.txt", image_column="image"))


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("val.txt", "x.png 0\nx.png 1\n", "val.txt, line 2: x.png is listed twice"),
        ("val.txt", "x.png 0\ny.png cat\n", "val.txt, line 2: the label 'cat' is no integer"),
        ("val.txt", "x.png 0\ny.png\n", "val.txt, line 2: the label '' is neither"),
        ("val.txt", "x.png 0\n../y.png 1\n", "val.txt, line 2: ../y.png leads out of"),
        ("val.txt", "x.png 0\n/y.png 1\n", "val.txt, line 2: /y.png leads out of"),
        ("val.txt", "gone.png 0\nlost.png 1\n", "none of the 2 images that it lists is in .*, such as gone.png; is"),
        ("truth.txt", "1\n2\n", "none of the 2 images that it lists is in .*, such as ILSVRC2012_val_00000001; is"),
        ("truth.txt", "1\n\n2\n", "truth.txt, line 2: the label '' is neither"),
        ("truth.txt", "1\n5\n", "truth.txt, line 2: the number 5 is not in .*synsets.csv"),
        ("truth.txt", "1\nl\n", "truth.txt, line 2: the label 'l' is no integer"),
        ("a.csv", "ImageId,PredictionString\nx,n01 1 2 3\n", "line 2: 'n01 1 2 3' is not one class with the four"),
        ("a.csv", "ImageId,PredictionString\nx,n01 1 2 3 4 n02 1 2 3 4\n", "is not one class with the four numbers"),
        ("a.csv", "ImageId,PredictionString\nx,\n", "line 2: '' is not one class"),
        ("a.csv", "path,label\n,0\n", "line 2: names no image"),
        ("a.csv", "", "the file is empty"),
        ("a.csv", "x.png,0\ny.png,1\n", "there are: `x.png`, `0`. Is its first line an image's"),
        ("a.csv", "path;label\nx.png;0\n", "there are: `path;label`. Put commas between the columns"),
        ("a.csv", "path,label\ny.png,0,\nmy, x.png,1\n",
         "a.csv, line 3: has 3 cells, and the header has 2; put quotes around a cell that holds a comma"),
        ("a.csv", "path,label,label\nx.png,0,1\n", "a.csv: has 2 columns `label`; rename all but one"),
    ],
)  # fmt: skip
def test_a_file_that_is_refused(tmp_path: Path, name: str, text: str, complaint: str) -> None:
    names = devkit_csv() if name == "truth.txt" else None
    with pytest.raises(InputError, match=complaint):
        listed(Files(tmp_path, "x.png", "y.png").config(text, name, names=names))


def test_a_ground_truth_that_ends_early(tmp_path: Path) -> None:
    config = Files(tmp_path, *VALIDATION).config("3\n1\n", "truth.txt", names=devkit_csv())
    with pytest.raises(InputError, match=r"truth.txt: ends after 2 lines, and .*images has an image .*_val_00000003"):
        listed(config)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("id,synset\n1,n01\n", "columns `ILSVRC2012_ID` and `WNID` or `number` and `name`; its columns are: `id`"),
        ("number,name\n1,a\n1,b\n", "line 3: the number 1 or the class 'b' is listed twice"),
        ("number,name\n1,a\n2,a\n", "line 3: the number 2 or the class 'a' is listed twice"),
        ("number,name\none,a\n", "line 2: 'one', 'a' are not the number of a class and its name"),
        ("number,name\n1,\n", "line 2: '1', '' are not"),
        ("number,name\n1,2\n", "line 2: '1', '2' are not"),
        ("number,name,name\n1,a,b\n", "has 2 columns `name`; rename all but one"),
        ("number,name\n", "lists no class below its header"),
    ],
)  # fmt: skip
def test_a_list_of_names_that_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as refusal:
        listed(Files(tmp_path, *VALIDATION[:1]).config("1\n", "truth.txt", names=text))
    assert "synsets.csv" in str(refusal.value)


def test_a_matlab_file_is_no_list_of_names(tmp_path: Path) -> None:
    config = Files(tmp_path, *VALIDATION[:1]).config("1\n", "truth.txt", label_names=str(tmp_path / "meta.mat"))
    with pytest.raises(InputError, match=r"meta.mat: is a file of MATLAB, .* scipy.io.loadmat"):
        listed(config)


def test_an_image_that_is_listed_and_not_there_is_named(tmp_path: Path) -> None:
    config = Files(tmp_path, "a1.png").config("ImageId,TrueLabel\na1,1\nb2,2\n")
    assert inspect_images(config, 8).unreadable == [("b2", "cannot be decoded (there is no such file)")]


@pytest.mark.parametrize(
    ("text", "settings", "complaint"),
    [
        ("path,label\nx.png,4\ny.png,1\n", {}, "x.png has label 4; .* data.test.first_class: 1, or if their order"),
        ("path,label\nx.png,4\ny.png,0\n", {}, "image x.png has label 4; is data.classes right"),
        ("path,label\nx.png,5\ny.png,1\n", {}, "image x.png has label 5; is data.classes right"),
        ("path,label\nx.png,5\ny.png,2\n", {"first_class": 1}, "image x.png has label 4; is data.classes right"),
        ("path,label\nx.png,4\ny.png,0\n", {"first_class": 1}, "image y.png has the label 0, .* `first_class: 0`"),
    ],
)  # fmt: skip
def test_labels_that_count_from_another_number(
    tmp_path: Path, text: str, settings: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        labels_of(Files(tmp_path, "x.png", "y.png").config(text, **settings))


def test_numbers_that_are_text_cannot_be_counted_from_1(tmp_path: Path) -> None:
    """There `first_class` would change nothing, and every label would be one off."""
    files = Files(tmp_path, "x.png", "y.png")
    np.savez(tmp_path / "a.npz", images=np.stack(list(files.pixels.values())), labels=np.array(["1", "2"]))
    pq.write_table(
        pa.table({"image": list(map(png, files.pixels.values())), "label": ["1", "2"]}), tmp_path / "a.parquet"
    )
    arrays = [ImageSetConfig(kind=kind, path=str(tmp_path / f"a.{kind}")) for kind in ("npz", "parquet")]
    for config in (*arrays, files.config("path,label\nx.png,1\ny.png,cat\n", limit=1)):
        with pytest.raises(
            InputError, match=r"its labels are text, .* store the number of a class as an integer in ev"
        ):
            labels_of(replace(config, first_class=1))
    for config in arrays:
        with pytest.raises(InputError, match=r"data.test.first_class: 1, and store them as integers, not as text"):
            labels_of(config, classes=2)


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "complaint"),
        [
            ({"kind": "npz", "image_column": "a"}, "`image_column` applies to kind `parquet`, and to kind `folder`"),
            ({"kind": "folder", "label_column": "a"}, "`label_column` applies to kind `parquet`, and to kind `folder`"),
            ({"kind": "folder", "labels": "l", "id_column": "a"}, "`id_column` applies to kind `parquet` only"),
            ({"kind": "parquet", "label_names": "a"}, "`label_names` applies to kind `folder` with `labels` only"),
            ({"kind": "folder", "first_class": 1}, "`first_class` applies to labels that are integers in a file"),
            ({"kind": "npz", "first_class": 2}, "`first_class` must be 0 or 1, not 2"),
            ({"kind": "npz", "first_class": True}, "first_class must be a whole number, not true"),
            ({"kind": "parquet", "label_column": ""}, "`label_column` is empty"),
            ({"kind": "parquet", "image_column": "a", "label_column": "a"}, "name the same column"),
            ({"kind": "parquet", "id_column": "image"}, "`id_column` names the column of the images or of their la"),
            ({"kind": "folder", "labels": "l", "label_names": "n", "first_class": 1}, "leave `first_class` out"),
        ],
    )  # fmt: skip
    def test_that_do_not_apply(self, settings: dict[str, Any], complaint: str) -> None:
        with pytest.raises(ValueError, match=complaint):
            ImageSetConfig(path="p", **settings)

    def test_that_are_absent_are_in_no_hash(self) -> None:
        assert list(ImageSetConfig(kind="npz", path="p").deciding) == [
            "kind", "path", "labels", "take", "limit", "sample", "sample_seed"
        ]  # fmt: skip
        assert ImageSetConfig(kind="npz", path="p", first_class=0).deciding["first_class"] == 0
