"""Images that occur twice: all are named, and left out where that is asked for."""

import re
from dataclasses import replace

import numpy as np
import pytest

from align_core.errors import InputError
from align_core.images.duplicates import OnDuplicate, without_duplicates
from align_core.images.manifest import Manifest


def manifest(contents: str, labels: str = "", start: str = "") -> Manifest:
    """A set with an image per letter; equal letters are equal images. Images are numbered after `start`."""
    ids = [f"{start}{number}" for number in range(len(contents))]
    given = np.array([int(label) for label in labels or "0" * len(contents)])
    return Manifest(
        ids=ids, labels=given, contents=list(contents), originals=list(contents), unreadable=[], shape=(3, 8, 8)
    )


class TestStop:
    def test_images_in_two_sets_are_all_named(self) -> None:
        sets = {"train": manifest("abc", start="t"), "validation": manifest("xc", start="v"), "test": manifest("ba")}
        with pytest.raises(InputError) as refusal:
            without_duplicates(sets)
        said = str(refusal.value)
        assert "data.train and data.test overlap: 2 images in both, pixel for pixel (t1 is 0; t0 is 1)" in said
        assert "data.train and data.validation overlap: 1 image in both, pixel for pixel (t2 is v1)" in said
        assert "data.on_duplicate: skip" in said

    def test_files_of_several_splits_are_named_as_the_cause(self) -> None:
        note = "files of several splits (test, train) are used as one image set; give a file, or a folder, of one"
        train = replace(manifest("abc"), notes=("1 image is enlarged", note))
        with pytest.raises(InputError, match=rf"must be disjoint: in data.train, {re.escape(note)}$"):
            without_duplicates({"train": train, "validation": manifest("x"), "test": manifest("ba")})

    def test_the_list_is_bounded_and_the_count_exact(self) -> None:
        many = "".join(map(chr, range(1000, 1400)))
        with pytest.raises(InputError, match=r"overlap: 400 images in both.*; and 380 more\)") as refusal:
            without_duplicates({"train": manifest(many), "test": manifest(many)})
        assert len(str(refusal.value)) < 800

    def test_two_labels_of_one_image(self) -> None:
        with pytest.raises(
            InputError, match=r"data.train: 3 images have different labels.*\(2 has 1, 0 0; 3 has 0, 0 0"
        ):
            without_duplicates({"train": manifest("axaa", "0110"), "test": manifest("b")})

    def test_one_label_of_two_images_is_only_said(self) -> None:
        kept = without_duplicates({"train": manifest("axaa"), "test": manifest("b")})
        assert len(kept["train"]) == 4
        assert kept["train"].notes == (
            "2 images are in the set already, pixel for pixel, and counted again (2 is 0; 3 is 0)",
        )
        assert kept["test"].notes == ()

    @pytest.mark.parametrize("on_duplicate", ["stop", "skip"])
    def test_notes_name_the_first_and_the_manifest_has_all(self, on_duplicate: OnDuplicate) -> None:
        train = without_duplicates({"train": manifest("a" * 31), "test": manifest("b")}, on_duplicate)["train"]
        (note,) = train.notes
        assert "20 is 0; and 10 more)" in note
        assert train.duplicates == tuple(f"{number} is 0" for number in range(1, 31))

    def test_nothing_changes_without_duplicates(self) -> None:
        sets = {"train": manifest("abc"), "test": manifest("xy")}
        assert {role: kept.digest for role, kept in without_duplicates(sets).items()} == {
            role: kept.digest for role, kept in sets.items()
        }


class TestSkip:
    def test_test_images_come_before_validation_images_and_these_before_training_images(self) -> None:
        sets = {"train": manifest("abcd"), "validation": manifest("bcx"), "test": manifest("cy")}
        kept = without_duplicates(sets, "skip")
        assert {role: "".join(one.contents) for role, one in kept.items()} == {
            "train": "ad", "validation": "bx", "test": "cy",
        }  # fmt: skip
        assert list(kept) == ["train", "validation", "test"]
        assert kept["train"].ids == ["0", "3"]
        assert kept["train"].notes == (
            "1 image is in data.test as well, pixel for pixel, and left out here (2 is 0)",
            "1 image is in data.validation as well, pixel for pixel, and left out here (1 is 0)",
        )
        assert kept["train"].duplicates == ("2 is 0 of data.test", "1 is 0 of data.validation")

    def test_within_a_set(self) -> None:
        kept = without_duplicates({"train": manifest("abacbd", "001110"), "test": manifest("xx")}, "skip")
        assert kept["train"].ids == ["3", "5"]  # a and b have two labels each
        assert kept["test"].ids == ["0"]
        assert kept["train"].duplicates == ("2 is 0", "4 is 1") and kept["test"].duplicates == ("1 is 0",)
        assert "4 images are in the set with different labels" in kept["train"].notes[0]
        assert "1 image is in the set already, pixel for pixel, and left out (1 is 0)" in kept["test"].notes[0]

    def test_an_image_of_two_labels_may_still_be_a_training_image(self) -> None:
        kept = without_duplicates({"train": manifest("ab"), "test": manifest("aax", "010")}, "skip")
        assert (kept["train"].contents, kept["test"].contents) == (["a", "b"], ["x"])

    @pytest.mark.parametrize(
        "sets", [{"train": manifest("ab"), "test": manifest("abc")}, {"test": manifest("aa", "01")}]
    )
    def test_a_set_of_which_nothing_is_left(self, sets: dict[str, Manifest]) -> None:
        with pytest.raises(InputError, match="no image is left when duplicates are left out"):
            without_duplicates(sets, "skip")
