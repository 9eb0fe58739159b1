"""Image sets in npz files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damaged_files import damage
from image_sets import listed, manifest_of, noise, npz

from align_core.errors import InputError
from align_core.images import ImageSetConfig, open_image_set
from align_core.images.inspection import inspect_images


class TestNpz:
    def test_colour_images_by_row(self, tmp_path: Path) -> None:
        images = noise(3, 8, 8, 3)
        config = npz(tmp_path / "a.npz", images, np.array([2, 0, 1], dtype=np.int32))
        assert listed(config) == (["00000", "00001", "00002"], [2, 0, 1])
        assert np.array_equal(open_image_set(config, 8).read("00001"), images[1].transpose(2, 0, 1))

    @pytest.mark.parametrize("shape", [(2, 8, 8), (2, 8, 8, 1)])
    def test_grey_images_keep_one_channel(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        images = noise(*shape)
        config = npz(tmp_path / "a.npz", images, [0, 1])
        assert np.array_equal(open_image_set(config, 8).read("00001"), images[1].reshape(1, 8, 8))

    def test_ids_of_a_large_set_sort_as_its_rows(self, tmp_path: Path) -> None:
        ids, labels = listed(npz(tmp_path / "a.npz", np.zeros((100_001, 1, 1), np.uint8), np.arange(100_001)), 1)
        assert ids[0] == "000000" and ids[-1] == "100000"
        assert ids == sorted(ids) and labels == list(range(100_001))

    @pytest.mark.parametrize(
        ("images", "labels", "complaint"),
        [
            (np.zeros((2, 8, 8, 3)), [0, 1], "uint8 NHWC"),
            (np.zeros((2, 3, 8, 8), np.uint8), [0, 1], "uint8 NHWC"),
            (np.zeros((2, 8, 8, 3), np.uint8), [0, 1, 2], "2 integers"),
            (np.zeros((2, 8, 8, 3), np.uint8), [0.0, 1.0], "2 integers"),
            # numpy stores objects as pickles
            (np.array([{}, {}]), [0, 1], "npz .`images` holds Python objects, .*; save it as uint8"),
            (np.zeros((2, 8, 8, 3), np.uint8), np.array([0, None]), "`labels` holds .*; save it as integers or text"),
        ],
        ids=["float", "channels first", "too many labels", "float labels", "objects", "objects as labels"],
    )
    def test_arrays_that_are_no_image_set(self, tmp_path: Path, images: Any, labels: Any, complaint: str) -> None:
        with pytest.raises(InputError, match=complaint) as refusal:
            listed(npz(tmp_path / "bad.npz", images, labels))
        assert "bad.npz" in str(refusal.value)

    def test_labels_may_be_names(self, tmp_path: Path) -> None:
        config = npz(tmp_path / "a.npz", noise(3, 8, 8), np.array(["dog", "cat", "dog"]))
        assert listed(config)[1] == ["dog", "cat", "dog"]
        assert open_image_set(config, 8).labels().names == ("cat", "dog")

    @pytest.mark.parametrize(
        ("images", "labels", "complaint"),
        [
            (noise(2, 8, 8), np.array([1, 2**64 - 1], np.uint64), f"image 00001 has the label {2**64 - 1};"),
            (noise(2, 8, 8), np.array(["cat", ""]), "image 00001 has no label"),
            (noise(2, 8, 8), np.array([b"cat", b"dog"]), "2 integers or names"),
            (noise(2, 8, 8), np.array([True, False]), "2 integers or names"),
            (np.zeros((2, 0, 8, 3), np.uint8), [0, 1], "its images have no pixels"),
        ],
        ids=["beyond int64", "no name", "bytes", "booleans", "no pixels"],
    )
    def test_labels_and_images_that_are_refused(self, tmp_path: Path, images: Any, labels: Any, complaint: str) -> None:
        with pytest.raises(InputError, match=complaint) as refusal:
            listed(npz(tmp_path / "bad.npz", images, labels))
        assert "bad.npz" in str(refusal.value)

    @pytest.mark.parametrize("kept", [0, 10, 300, -10])
    def test_truncated(self, tmp_path: Path, kept: int) -> None:
        config = npz(tmp_path / "cut.npz", noise(2, 8, 8, 3), [0, 1])
        (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:kept])
        with pytest.raises(InputError, match=r"cut\.npz: cannot be read as npz"):
            listed(config)

    def test_a_single_array_is_no_npz(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", noise(2, 8, 8))
        with pytest.raises(InputError, match=r"a\.npy: cannot be read as npz \(it is no zip archive\)"):
            listed(ImageSetConfig(kind="npz", path=str(tmp_path / "a.npy")))

    def test_damaged_compression(self, tmp_path: Path) -> None:
        np.savez_compressed(tmp_path / "a.npz", images=noise(2, 8, 8), labels=[0, 1])
        content = bytearray((tmp_path / "a.npz").read_bytes())
        content[60:70] = b"\xff" * 10
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(InputError, match=r"a\.npz: cannot be read as npz"):
            listed(ImageSetConfig(kind="npz", path=str(tmp_path / "a.npz")))

    @pytest.mark.parametrize("name", ["images", "labels", "ids"])
    def test_one_bit_that_is_another(self, tmp_path: Path, name: str) -> None:
        """Of the images, which are mapped into memory, as of what is read by numpy."""
        arrays = {"images": noise(3, 8, 8), "labels": np.array([7, 8, 9]), "ids": np.array(["a", "b", "c"])}
        np.savez(tmp_path / "a.npz", **arrays)
        config = ImageSetConfig(kind="npz", path=str(tmp_path / "a.npz"))
        inspect_images(config, 8)
        damage(tmp_path / "a.npz", arrays[name].tobytes())
        with pytest.raises(InputError, match=r"a\.npz: its content is damaged \(CRC-32\): fetch it again"):
            inspect_images(config, 8)

    def test_missing_array(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", images=noise(2, 8, 8), y=np.arange(2))
        with pytest.raises(InputError, match=r"the arrays `images` and `labels`, and there are: `images`, `y`$"):
            listed(ImageSetConfig(kind="npz", path=str(tmp_path / "a.npz")))

    def test_uncompressed_images_stay_on_the_disk_until_they_are_read(self, tmp_path: Path) -> None:
        images = noise(3, 8, 8, 3)
        for save, is_mapped in ((np.savez, True), (np.savez_compressed, False)):
            save(tmp_path / "a.npz", labels=np.arange(3), images=images)
            found = open_image_set(ImageSetConfig(kind="npz", path=str(tmp_path / "a.npz")), 8)
            assert isinstance(found.arrays[0], np.memmap) == is_mapped
            assert np.array_equal(found.read("00002"), images[2].transpose(2, 0, 1))

    def test_ids_of_the_file_name_its_images_and_order_them(self, tmp_path: Path) -> None:
        images, ids = noise(3, 8, 8, 3), np.array(["cat/2.png", "bird/1.JPEG", "cat/10.png"])
        plain = {"images": images, "labels": np.array([2, 0, 1]), "targeted_labels": np.array([0, 1, 2])}
        np.savez(tmp_path / "a.npz", ids=ids, **plain)
        config = ImageSetConfig(kind="npz", path=str(tmp_path / "a.npz"))
        found = open_image_set(config, 8)
        assert listed(config) == (["bird/1.JPEG", "cat/10.png", "cat/2.png"], [0, 1, 2])
        assert found.targeted().values.tolist() == [1, 2, 0]
        np.testing.assert_array_equal(found.read("cat/10.png"), images[2].transpose(2, 0, 1))
        assert found.encoded("cat/2.png").endswith(images[0].tobytes())
        assert found.notes() == ["its images have the ids in the array `ids`, and their order"]
        manifest = manifest_of(config, classes=3)
        assert manifest.ids == ["bird/1.JPEG", "cat/10.png", "cat/2.png"]
        np.savez(tmp_path / "a.npz", **plain)
        assert manifest_of(config, classes=3).digest != manifest.digest

    @pytest.mark.parametrize(
        ("ids", "complaint"),
        [
            (["a", "b"], "`ids` must be 3 texts, one for each image, not <U1 \\(2,\\); give this array another name"),
            ([1, 2, 3], "`ids` must be 3 texts"),
            ([b"a", b"b", b"c"], "`ids` must be 3 texts"),
            ([["a"], ["b"], ["c"]], "`ids` must be 3 texts"),
            (["a", "b", "a"], "the id 'a' occurs twice in `ids`, in rows 0 and 2"),
        ],
        ids=["too few", "numbers", "bytes", "a table", "twice"],
    )
    def test_ids_that_are_refused(self, tmp_path: Path, ids: Any, complaint: str) -> None:
        np.savez(tmp_path / "bad.npz", images=noise(3, 8, 8), labels=[0, 1, 2], ids=ids)
        with pytest.raises(InputError, match=complaint) as refusal:
            listed(ImageSetConfig(kind="npz", path=str(tmp_path / "bad.npz")))
        assert "bad.npz" in str(refusal.value)

    def test_in_whatever_order_they_lie_there(self, tmp_path: Path) -> None:
        images = np.asfortranarray(noise(3, 8, 8, 3))
        config = npz(tmp_path / "a.npz", images, [0, 1, 2])
        assert np.array_equal(open_image_set(config, 8).read("00001"), images[1].transpose(2, 0, 1))
