"""Image sets in Parquet files."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_sets import listed, noise, parquet, png, read_only_image

from align_core.errors import InputError
from align_core.images import ImageSetConfig, open_image_set
from align_core.images.decoding import BadImage, Pixels


def tensors(images_NCHW: Pixels) -> pa.Array:
    return pa.FixedShapeTensorArray.from_numpy_ndarray(images_NCHW)


class TestParquet:
    images = noise(5, 3, 8, 8)

    def columns(self, layout: str) -> pa.Array:
        encoded = [png(image.transpose(1, 2, 0)) for image in self.images]
        if layout == "struct":
            return pa.array([{"bytes": content, "path": "x.png"} for content in encoded])
        return tensors(self.images) if layout == "tensor" else pa.array(encoded)

    @pytest.mark.parametrize("layout", ["bytes", "struct", "tensor"])
    def test_layouts(self, tmp_path: Path, layout: str) -> None:
        config = parquet(tmp_path / "a.parquet", image=self.columns(layout), label=[4, 3, 2, 1, 0])
        assert listed(config) == ([f"0000{row}" for row in range(5)], [4, 3, 2, 1, 0])
        image_set = open_image_set(config, 8)
        for row in (3, 0, 4):
            assert np.array_equal(image_set.read(f"0000{row}"), self.images[row])

    @pytest.mark.parametrize("layout", ["bytes", "struct", "tensor"])
    def test_several_files_and_row_groups_are_one_set(self, tmp_path: Path, layout: str) -> None:
        table = pa.table({"image": self.columns(layout), "label": [0, 1, 2, 3, 4]})
        (tmp_path / "part").mkdir()
        pq.write_table(table.slice(0, 3), tmp_path / "part/0.parquet", row_group_size=2)
        pq.write_table(table.slice(3, 0), tmp_path / "part/1.parquet")
        pq.write_table(table.slice(3), tmp_path / "part/2.parquet", row_group_size=1)
        config = ImageSetConfig(kind="parquet", path=str(tmp_path))
        ids, labels = listed(config)
        assert labels == [0, 1, 2, 3, 4]
        image_set = open_image_set(config, 8)
        for position in (4, 1, 3, 0, 2):
            assert np.array_equal(image_set.read(ids[position]), self.images[position])
        assert [file.name for file in image_set.files()] == ["0.parquet", "1.parquet", "2.parquet"]

    def test_own_ids_are_sorted_with_their_labels_and_images(self, tmp_path: Path) -> None:
        names = ["e", "c", "a", "d", "b"]
        config = parquet(tmp_path / "a.parquet", image=self.columns("bytes"), label=[0, 1, 2, 3, 4], image_id=names)
        assert listed(config) == (["a", "b", "c", "d", "e"], [2, 4, 1, 3, 0])
        assert np.array_equal(open_image_set(config, 8).read("b"), self.images[4])

    def test_tensors_are_fitted_to_size_as_pictures_are(self, tmp_path: Path) -> None:
        images = noise(1, 3, 11, 17)
        as_tensor = parquet(tmp_path / "t.parquet", image=tensors(images), label=[0])
        as_picture = parquet(tmp_path / "p.parquet", image=[png(images[0].transpose(1, 2, 0))], label=[0])
        assert np.array_equal(read_only_image(as_tensor), read_only_image(as_picture))

    def test_grey_tensors_keep_one_channel(self, tmp_path: Path) -> None:
        image = noise(1, 1, 8, 8)
        assert np.array_equal(
            read_only_image(parquet(tmp_path / "a.parquet", image=tensors(image), label=[0])), image[0]
        )

    @pytest.mark.parametrize(
        "image",
        [tensors(noise(1, 2, 9, 9)), tensors(noise(1, 4, 9, 9)), tensors(np.zeros((1, 3, 9, 9), np.float32))],
        ids=["two channels", "four channels", "float"],
    )
    def test_images_that_are_none(self, tmp_path: Path, image: Any) -> None:
        with pytest.raises(BadImage, match="uint8 CHW"):
            read_only_image(parquet(tmp_path / "a.parquet", image=image, label=[0]))

    @pytest.mark.parametrize(
        ("columns", "complaint"),
        [
            ({"image": [b""], "class": [0]}, "needs the columns `image` and `label`"),
            ({"picture": [b""], "label": [0]}, "needs the columns `image` and `label`"),
            ({"image": [b""], "label": [0.5]}, "must hold integers or class names, not double"),
            ({"image": [b""], "label": [None]}, "must hold integers or class names, not null"),
            ({"image": [b""], "label": [""]}, "image 00000 has no label"),
            ({"image": [b""], "label": pa.array([2**64 - 1], pa.uint64())}, f"00000 has the label {2**64 - 1}"),
            (
                {"image": ["a"], "label": [0]},
                "`image` must hold encoded bytes, a struct .*, or uint8 CHW tensors, not str",
            ),
            ({"image": [[1, 2]], "label": [0]}, "`image` must hold encoded bytes, .*, not list"),
            ({"image": [{"bytes": "a"}], "label": [0]}, "`image` must hold encoded bytes, .*, not string"),
            ({"image": [{"path": "x.png"}], "label": [0]}, "structs of `path`, without the `bytes` of the images"),
            ({"image": [b""], "label": [0], "image_id": [0.5]}, "`image_id` must hold text or integers, not double"),
            ({"image": [b""], "label": [0], "image_id": [b"a"]}, "`image_id` must hold text or integers, not binary"),
            ({"image": [b"", b""], "label": [0, 1], "image_id": ["a", "a"]}, "occurs twice"),
        ],
    )
    def test_columns_that_are_no_image_set(self, tmp_path: Path, columns: dict[str, Any], complaint: str) -> None:
        with pytest.raises(InputError, match=complaint):
            listed(parquet(tmp_path / "a.parquet", **columns))

    def test_a_file_unlike_the_others(self, tmp_path: Path) -> None:
        parquet(tmp_path / "0.parquet", image=[b""], label=[0])
        parquet(tmp_path / "1.parquet", label=[0])
        with pytest.raises(InputError, match="in every file"):
            listed(ImageSetConfig(kind="parquet", path=str(tmp_path)))

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"contains no file of the suffix \.parquet$"):
            listed(ImageSetConfig(kind="parquet", path=str(tmp_path)))

    def test_truncated(self, tmp_path: Path) -> None:
        config = parquet(tmp_path / "a.parquet", image=self.columns("bytes"), label=[0] * 5)
        (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-20])
        with pytest.raises(InputError, match=r"a\.parquet: cannot be read as Parquet"):
            listed(config)

    def test_damaged_images(self, tmp_path: Path) -> None:
        config = parquet(tmp_path / "a.parquet", image=self.columns("bytes"), label=[0] * 5)
        content = bytearray((tmp_path / "a.parquet").read_bytes())
        content[4:60] = b"\xff" * 56  # the pages of the images begin here; labels and metadata remain intact
        (tmp_path / "a.parquet").write_bytes(content)
        with pytest.raises(InputError, match=r"a\.parquet: cannot be read as Parquet"):
            open_image_set(config, 8).read("00000")
