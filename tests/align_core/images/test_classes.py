"""Class names and indices of several image sets become the indices of one list of classes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align_core.errors import InputError
from align_core.images.classes import class_list, read_classes
from align_core.images.labels import RawLabels, as_indices


def named(*values: str, also: tuple[str, ...] = ()) -> RawLabels:
    """The labels of a folder: class names, some of which have no image."""
    return RawLabels(np.array(values, np.str_), tuple(sorted({*values, *also})))


def indexed(*values: int) -> RawLabels:
    return RawLabels(np.array(values, np.int64))


def ordered(names: str, *values: int) -> RawLabels:
    """The labels of a Parquet set with Hugging Face's ClassLabel."""
    return RawLabels(np.array(values, np.int64), tuple(names.split()), True)


def indices(sets: dict[str, RawLabels], classes: int, names: str = "") -> dict[str, list[int]]:
    known = class_list(sets, classes, tuple(names.split()) or None)
    return {role: known.indices(role, raw).tolist() for role, raw in sets.items()}


class TestAgreement:
    def test_a_class_that_one_set_lacks_shifts_no_other(self) -> None:
        sets = {"train": named("a", "b", "c", "d"), "test": named("a", "c", "d")}
        assert indices(sets, 4) == {"train": [0, 1, 2, 3], "test": [0, 2, 3]}

    def test_each_set_may_lack_another_class(self) -> None:
        assert indices({"train": named("b", "c"), "test": named("c", "a")}, 3) == {"train": [1, 2], "test": [2, 0]}

    def test_a_sub_folder_without_images_names_its_class(self) -> None:
        assert indices({"train": named("b", also=("a",)), "test": named("b")}, 2) == {"train": [1], "test": [1]}

    def test_names_that_are_integers_everywhere_are_indices(self) -> None:
        sets = {"train": named(*map(str, range(12))), "test": named("3", "11"), "validation": indexed(7)}
        assert indices(sets, 12) == {"train": list(range(12)), "test": [3, 11], "validation": [7]}

    def test_zeros_before_an_index_do_not_count(self) -> None:
        assert indices({"train": named("00", "01", "10"), "test": named("1")}, 11) == {"train": [0, 1, 10], "test": [1]}

    def test_one_word_makes_all_of_them_names(self) -> None:
        assert indices({"train": named("1", "10", "2"), "test": named("x", "2")}, 4)["test"] == [3, 2]

    def test_a_negative_number_is_a_name_beside_a_word_and_where_a_file_names_it(self) -> None:
        assert indices({"train": named("-1", "0", "x"), "test": named("0")}, 3)["train"] == [0, 1, 2]
        assert indices({"train": named("-1", "0"), "test": named("0")}, 2, "0 -1") == {"train": [1, 0], "test": [0]}

    def test_a_file_fixes_names_and_order(self) -> None:
        sets = {"train": named("cat", "dog"), "test": indexed(2, 0), "validation": named("0", "2")}
        assert indices(sets, 3, "dog bird cat") == {"train": [2, 0], "test": [2, 0], "validation": [0, 2]}

    def test_a_file_may_name_classes_by_numbers(self) -> None:
        assert indices({"test": named("1", "0")}, 2, "1 0") == {"test": [0, 1]}

    def test_the_order_of_class_label_is_kept(self) -> None:
        sets = {"train": ordered("dog bird cat", 0, 1, 2), "test": named("cat", "dog"), "validation": indexed(1)}
        assert indices(sets, 3) == {"train": [0, 1, 2], "test": [2, 0], "validation": [1]}

    def test_class_label_is_translated_by_a_file(self) -> None:
        assert indices({"test": ordered("dog bird cat", 0, 2)}, 3, "bird cat dog") == {"test": [2, 1]}


@pytest.mark.parametrize(
    ("sets", "classes", "names", "complaint"),
    [
        (
            {"train": named("cats", "dog"), "test": named("cat", "dog")}, 2, "",
            r"classes is 2, but the image sets name 3 classes: only data.train has `cats` \(did you mean `cat`\?\), "
            r"only data.test has `cat` \(did you mean `cats`\?\)",
        ),
        ({"train": named("a", "b"), "test": named("a", "b")}, 3, "", r"name 2 classes \(a, b\). Which index .* a file"),
        ({"train": named("a", "b", "c")}, 2, "", r"is 2, but the image sets name 3 classes \(a, b, c\)"),
        (
            {"train": named("cat", "dog"), "test": indexed(0, 1)}, 2, "",
            r"data.train has class names \(cat, dog\), and data.test has class indices.* give `data.classes` a file",
        ),
        ({"train": named("1", "01"), "test": named("0")}, 2, "", "`01` and `1` are the same index"),
        ({"train": named("0", "1", "-1")}, 3, "", "data.train: the class `-1` is a negative number.* a file"),
        ({"train": named("0", "1"), "test": named("-2", "0")}, 3, "", "data.test: the class `-2` is a negative"),
        ({"test": named("cats")}, 2, "cat dog", r"not in the file of data.classes: `cats` \(did you mean `cat`\?\)"),
        ({"test": ordered("a b", 1, 2)}, 2, "b a", "data.test: 1 labels, such as 2, have no name in the schema"),
        ({"train": ordered("a b", 1), "test": ordered("b a", 1)}, 2, "", "data.test are in another order"),
        ({"train": ordered("a b", 1), "test": ordered("a c", 1)}, 2, "", "data.train and data.test differ in b, c"),
        ({"test": ordered("a b", 1)}, 3, "", "data.classes is 3, but the schema of data.test names 2 classes"),
    ],
)  # fmt: skip
def test_sets_that_do_not_agree_are_refused(sets: Any, classes: int, names: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        indices(sets, classes, names)


def test_many_names_are_not_all_listed() -> None:
    with pytest.raises(InputError, match=r"name 100 classes \(n00, .*, n09 and 90 more\)") as refusal:
        indices({"train": named(*(f"n{number:02d}" for number in range(100)))}, 101)
    assert len(str(refusal.value)) < 400


class TestFile:
    def test_a_name_a_line(self, tmp_path: Path) -> None:
        (tmp_path / "classes.txt").write_bytes(b"\xef\xbb\xbfn01440764\r\ngreat white shark\n\n  \n")
        assert read_classes(tmp_path / "classes.txt") == ("n01440764", "great white shark")

    @pytest.mark.parametrize(
        ("content", "complaint"),
        [
            (b"a\nb\na\n", "line 3: the class 'a' is named in line 1 already"),
            (b"a\n\nb\n", "line 2: is empty"),
            (b"a\n", "names 1 classes; a classifier needs at least two"),
            (b"", "names 0 classes"),
            (b"\xff\xfe", "cannot be read as a list of class names"),
        ],
    )
    def test_a_file_that_is_refused(self, tmp_path: Path, content: bytes, complaint: str) -> None:
        (tmp_path / "classes.txt").write_bytes(content)
        with pytest.raises(InputError, match=complaint) as refusal:
            read_classes(tmp_path / "classes.txt")
        assert "classes.txt" in str(refusal.value)

    @pytest.mark.parametrize(("path", "complaint"), [(".", "a folder"), ("gone", "no such"), ("/dev/zero", "a device")])
    def test_what_is_no_file(self, tmp_path: Path, path: str, complaint: str) -> None:
        with pytest.raises(InputError, match=complaint):
            read_classes(tmp_path / path)


@pytest.mark.parametrize("value", [2**64 - 1, 2**63])
def test_labels_that_int64_cannot_hold_do_not_wrap_around(value: int) -> None:
    with pytest.raises(InputError, match=f"x.npz: image b has the label {value};"):
        as_indices(np.array([0, value], np.uint64), ["a", "b"], Path("x.npz"))
