import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from torchvision import transforms

from align_core.data import BadImage, ImageSetConfig, Pixels, chunked, open_image_set, read_images, selected
from align_core.errors import InputError


def noise(*shape: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def png(pixels: Pixels | Image.Image, **options: Any) -> bytes:
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", **options)
    return buffer.getvalue()


def folder_of(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def npz(path: Path, images: Any, labels: Any) -> ImageSetConfig:
    np.savez(path, images=images, labels=labels)
    return ImageSetConfig(kind="npz", path=str(path))


def parquet(path: Path, **columns: Any) -> ImageSetConfig:
    pq.write_table(pa.table(columns), path)
    return ImageSetConfig(kind="parquet", path=str(path))


def tensors(images_NCHW: Pixels) -> pa.Array:
    return pa.FixedShapeTensorArray.from_numpy_ndarray(images_NCHW)


def listed(config: ImageSetConfig, size: int = 8) -> tuple[list[str], list[int]]:
    ids, labels = open_image_set(config, size).listing()
    assert labels.dtype == np.int64
    return ids, labels.tolist()


def read_only_image(config: ImageSetConfig, size: int = 8) -> Pixels:
    image_set = open_image_set(config, size)
    (image_id,) = image_set.listing()[0]
    return image_set.read(image_id)


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
            (np.array([{}, {}]), [0, 1], "cannot be read as npz"),  # objects: only a pickle can hold them
        ],
        ids=["float", "channels first", "too many labels", "float labels", "objects"],
    )
    def test_arrays_that_are_no_image_set(self, tmp_path: Path, images: Any, labels: Any, complaint: str) -> None:
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
        with pytest.raises(InputError, match=r"a\.npy: cannot be read as npz"):
            listed(ImageSetConfig(kind="npz", path=str(tmp_path / "a.npy")))

    def test_damaged_compression(self, tmp_path: Path) -> None:
        np.savez_compressed(tmp_path / "a.npz", images=noise(2, 8, 8), labels=[0, 1])
        content = bytearray((tmp_path / "a.npz").read_bytes())
        content[60:70] = b"\xff" * 10
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(InputError, match=r"a\.npz: cannot be read as npz"):
            listed(ImageSetConfig(kind="npz", path=str(tmp_path / "a.npz")))

    def test_missing_array(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", images=noise(2, 8, 8))
        with pytest.raises(InputError, match="`images` and `labels`"):
            listed(ImageSetConfig(kind="npz", path=str(tmp_path / "a.npz")))


class TestFolder:
    def test_sub_folders_are_classes_and_ids_are_paths(self, tmp_path: Path) -> None:
        images = {"dog/b.png": noise(8, 8, 3), "cat/z.png": noise(8, 8, 3, seed=1), "dog/a/1.PNG": noise(8, 8, 3)}
        root = folder_of(tmp_path, {name: png(pixels) for name, pixels in images.items()})
        folder_of(root, {"dog/notes.txt": b"no image", ".cache/x.png": b"", "readme.md": b""})
        config = ImageSetConfig(kind="folder", path=str(root))
        assert listed(config) == (["cat/z.png", "dog/a/1.PNG", "dog/b.png"], [0, 1, 1])
        for name, pixels in images.items():
            assert np.array_equal(open_image_set(config, 8).read(name), pixels.transpose(2, 0, 1))

    def by_csv(self, tmp_path: Path, text: str | bytes) -> ImageSetConfig:
        root = folder_of(tmp_path / "images", {"x.png": png(noise(8, 8, 3)), "deep/a.png": png(noise(8, 8, 3))})
        (tmp_path / "labels.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        return ImageSetConfig(kind="folder", path=str(root), labels=str(tmp_path / "labels.csv"))

    @pytest.mark.parametrize(
        "text",
        [
            "path,label\nx.png,7\ndeep/a.png,3\n",
            "label,source,path\r\n7,web,x.png\r\n3,,./deep//a.png\r\n",
            b"\xef\xbb\xbfpath,label\nx.png,7\ndeep/a.png,3\n",
        ],
        ids=["plain", "other columns", "byte order mark of a spreadsheet"],
    )
    def test_labels_from_csv(self, tmp_path: Path, text: str | bytes) -> None:
        config = self.by_csv(tmp_path, text)
        assert listed(config) == (["deep/a.png", "x.png"], [3, 7])
        assert open_image_set(config, 8).read("deep/a.png").shape == (3, 8, 8)

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("path,label\n../secret.png,1\n", "../secret.png leads out of"),
            ("path,label\ndeep/../../secret.png,1\n", "secret.png leads out of"),
            ("path,label\n/etc/secret.png,1\n", "/etc/secret.png leads out of"),
            ("path,label\nx.png,1\nx.png,2\n", "listed twice"),
            ("path,label\nx.png,1\n./x.png,2\n", "listed twice"),
            ("file,label\nx.png,1\n", "needs the columns `path` and `label`"),
            ("path,class\nx.png,1\n", "needs the columns `path` and `label`"),
            ("path,label\nx.png,cat\n", "needs the columns `path` and `label`"),
            ("label,path\n1\n", "needs the columns `path` and `label`"),
            (b"path,label\n\xff.png,1\n", "needs the columns `path` and `label`"),
        ],
    )
    def test_csv_that_is_refused(self, tmp_path: Path, text: str | bytes, complaint: str) -> None:
        with pytest.raises(InputError, match=complaint) as refusal:
            listed(self.by_csv(tmp_path, text))
        assert "labels.csv" in str(refusal.value)

    def test_csv_that_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"nowhere\.csv"):
            listed(ImageSetConfig(kind="folder", path=str(tmp_path), labels=str(tmp_path / "nowhere.csv")))

    def test_listed_file_that_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(BadImage):
            read_only_image(self.by_csv(tmp_path, "path,label\ngone.png,0\n"))

    def test_files_tell_of_every_image_and_the_csv(self, tmp_path: Path) -> None:
        files = open_image_set(self.by_csv(tmp_path, "path,label\nx.png,0\n"), 8).files()
        assert set(files) == {tmp_path / "labels.csv", tmp_path / "images/x.png"}

    def test_a_file_is_no_folder(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(png(noise(8, 8, 3)))
        with pytest.raises(InputError, match="needs a folder"):
            open_image_set(ImageSetConfig(kind="folder", path=str(tmp_path / "a.png")), 8)


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
        [tensors(noise(1, 2, 9, 9)), tensors(noise(1, 4, 9, 9)), tensors(np.zeros((1, 3, 9, 9), np.float32)), ["a"]],
        ids=["two channels", "four channels", "float", "text"],
    )
    def test_images_that_are_none(self, tmp_path: Path, image: Any) -> None:
        with pytest.raises(BadImage, match="uint8 CHW"):
            read_only_image(parquet(tmp_path / "a.parquet", image=image, label=[0]))

    @pytest.mark.parametrize(
        ("columns", "complaint"),
        [
            ({"image": [b""], "class": [0]}, "needs the columns `image` and `label`"),
            ({"picture": [b""], "label": [0]}, "needs the columns `image` and `label`"),
            ({"image": [b""], "label": ["cat"]}, "must hold integers"),
            ({"image": [b"", b""], "label": [0, None]}, "must hold integers"),
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
        with pytest.raises(InputError, match="no Parquet file"):
            listed(ImageSetConfig(kind="parquet", path=str(tmp_path)))

    def test_truncated(self, tmp_path: Path) -> None:
        config = parquet(tmp_path / "a.parquet", image=self.columns("bytes"), label=[0] * 5)
        (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-20])
        with pytest.raises(InputError, match=r"a\.parquet: cannot be read as Parquet"):
            listed(config)

    def test_damaged_images(self, tmp_path: Path) -> None:
        config = parquet(tmp_path / "a.parquet", image=self.columns("bytes"), label=[0] * 5)
        content = bytearray((tmp_path / "a.parquet").read_bytes())
        content[4:60] = b"\xff" * 56  # where the pages of the first column begin; the listing is still whole
        (tmp_path / "a.parquet").write_bytes(content)
        with pytest.raises(InputError, match=r"a\.parquet: cannot be read as Parquet"):
            open_image_set(config, 8).read("00000")


class TestDigits:
    config = ImageSetConfig(kind="digits")

    def test_are_scikit_learns(self) -> None:
        digits = load_digits()
        ids, labels = listed(self.config)
        assert len(ids) == 1797 and ids[-1] == "01796"
        assert labels == digits.target.tolist()
        pixels = open_image_set(self.config, 8).read("01000")
        assert pixels.dtype == np.uint8 and pixels.shape == (1, 8, 8)
        assert np.abs(pixels[0] / 255 - digits.images[1000] / 16).max() <= 0.5 / 255

    def test_are_enlarged(self) -> None:
        pixels = open_image_set(self.config, 16).read("00000")
        small = Image.fromarray(open_image_set(self.config, 8).read("00000")[0])
        assert np.array_equal(pixels[0], np.asarray(small.resize((16, 16), Image.Resampling.BICUBIC)))


class TestDecoding:
    def one(self, tmp_path: Path, content: bytes, name: str = "a.png") -> ImageSetConfig:
        return ImageSetConfig(kind="folder", path=str(folder_of(tmp_path, {f"class/{name}": content})))

    @pytest.mark.parametrize(
        ("width", "height", "size"),
        [
            (8, 8, 8),
            (33, 33, 8),
            (5, 5, 8),
            (40, 31, 13),
            (31, 40, 13),
            (8, 21, 8),
            (21, 8, 8),
            (7, 50, 16),
            (500, 375, 224),
        ],
    )
    @pytest.mark.parametrize("channels", [1, 3])
    def test_agrees_with_torchvision(self, tmp_path: Path, width: int, height: int, size: int, channels: int) -> None:
        pixels = noise(height, width, channels).squeeze()
        expected = transforms.Compose(
            [
                transforms.Resize(size, transforms.InterpolationMode.BICUBIC, antialias=True),
                transforms.CenterCrop(size),
            ]
        )(Image.fromarray(pixels))
        decoded = read_only_image(self.one(tmp_path, png(pixels)), size)
        assert np.array_equal(decoded, np.asarray(expected).reshape(size, size, channels).transpose(2, 0, 1))

    def test_jpeg(self, tmp_path: Path) -> None:
        buffer = io.BytesIO()
        Image.fromarray(np.full((8, 8, 3), (200, 100, 50), np.uint8)).save(buffer, "JPEG", quality=95)
        decoded = read_only_image(self.one(tmp_path, buffer.getvalue(), "a.JPG"))
        assert np.abs(decoded.astype(int) - np.array([200, 100, 50])[:, None, None]).max() <= 3

    def test_alpha_is_dropped(self, tmp_path: Path) -> None:
        pixels = noise(8, 8, 4)
        assert np.array_equal(read_only_image(self.one(tmp_path, png(pixels))), pixels[:, :, :3].transpose(2, 0, 1))

    @pytest.mark.parametrize("options", [{}, {"transparency": bytes([0, 128, 255])}])
    def test_palette(self, tmp_path: Path, options: dict[str, Any]) -> None:
        colours = np.array([[255, 0, 0], [0, 255, 0], [10, 20, 30]], np.uint8)
        chosen = np.random.default_rng(0).integers(0, 3, (8, 8), dtype=np.uint8)
        picture = Image.fromarray(chosen)
        picture.putpalette(colours.tobytes())
        decoded = read_only_image(self.one(tmp_path, png(picture, **options)))
        assert np.array_equal(decoded, colours[chosen].transpose(2, 0, 1))

    def test_cmyk(self, tmp_path: Path) -> None:
        buffer = io.BytesIO()
        Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(buffer, "TIFF")  # no cyan, full magenta and yellow: red
        decoded = read_only_image(self.one(tmp_path, buffer.getvalue(), "a.tif"))
        assert np.array_equal(decoded, np.broadcast_to(np.array([[[255]], [[0]], [[0]]]), (3, 8, 8)))

    def test_16_bit_images_are_refused_not_saturated(self, tmp_path: Path) -> None:
        with pytest.raises(BadImage, match="8-bit"):
            read_only_image(self.one(tmp_path, png(np.full((8, 8), 1000, np.uint16))))

    def test_the_first_readable_image_says_whether_a_set_is_grey(self, tmp_path: Path) -> None:
        grey = noise(8, 8)
        files = {"c/0.png": b"broken", "c/1.png": png(grey), "c/2.png": png(noise(8, 8, 3))}
        image_set = open_image_set(ImageSetConfig(kind="folder", path=str(folder_of(tmp_path, files))), 8)
        assert np.array_equal(image_set.read("c/1.png"), grey[None])
        with pytest.raises(BadImage, match="colours"):
            image_set.read("c/2.png")

    def test_grey_images_in_a_set_of_colours_get_three_equal_channels(self, tmp_path: Path) -> None:
        grey = noise(8, 8)
        encoded = [png(noise(8, 8, 3)), png(grey)]
        image_set = open_image_set(parquet(tmp_path / "a.parquet", image=encoded, label=[0, 0]), 8)
        assert np.array_equal(image_set.read("00001"), np.stack([grey] * 3))

    def test_grey_parquet(self, tmp_path: Path) -> None:
        grey = noise(8, 8)
        image_set = open_image_set(parquet(tmp_path / "a.parquet", image=[None, b"?", png(grey)], label=[0, 0, 0]), 8)
        assert np.array_equal(image_set.read("00002"), grey[None])
        for unreadable in ("00000", "00001"):
            with pytest.raises(BadImage):
                image_set.read(unreadable)

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"<html>",
            png(noise(40, 40, 3))[:-900],
            b"P6 x",
            # a header that claims 100,000 x 100,000 pixels
            b"BM" + struct.pack("<IHHIIiiHHIIIIII", 54, 0, 0, 54, 40, 100_000, 100_000, 1, 24, 0, 0, 0, 0, 0, 0),
        ],
        ids=["empty", "no image", "truncated", "bad header", "bomb"],
    )
    def test_a_corrupt_image_is_named(self, tmp_path: Path, content: bytes) -> None:
        files = {"class/bad.png": content, "class/good.png": png(noise(8, 8, 3))}
        image_set = open_image_set(ImageSetConfig(kind="folder", path=str(folder_of(tmp_path, files))), 8)
        with pytest.raises(BadImage, match="cannot be decoded"):
            image_set.read("class/bad.png")
        with pytest.raises(InputError, match=r"class/bad\.png"):
            read_images(image_set, ["class/good.png", "class/bad.png"])
        assert image_set.read("class/good.png").shape == (3, 8, 8)


def test_read_images_keeps_the_order_that_is_asked_for(tmp_path: Path) -> None:
    images = noise(4, 8, 8, 3)
    image_set = open_image_set(npz(tmp_path / "a.npz", images, [0] * 4), 8)
    batch = read_images(image_set, ["00002", "00000"])
    assert np.array_equal(batch, images[[2, 0]].transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("settings", "positions"),
    [
        ({}, range(10)),
        ({"limit": 3}, range(3)),
        ({"limit": 99}, range(10)),
        ({"take": (4, 8)}, range(4, 8)),
        ({"take": (4, 8), "limit": 2}, range(4, 6)),
        ({"take": (0, 10)}, range(10)),
    ],
)
def test_take_and_limit(settings: dict[str, Any], positions: range) -> None:
    assert selected(ImageSetConfig(kind="digits", **settings), 10) == positions


@pytest.mark.parametrize(("take", "count"), [((4, 11), 10), (None, 0)])
def test_selecting_what_is_not_there(take: tuple[int, int] | None, count: int) -> None:
    with pytest.raises(InputError):
        selected(ImageSetConfig(kind="digits", take=take), count)


@pytest.mark.parametrize(
    ("count", "size", "chunks"),
    [(5, 2, [range(0, 2), range(2, 4), range(4, 5)]), (4, 2, [range(0, 2), range(2, 4)]), (1, 9, [range(1)])],
)
def test_chunks(count: int, size: int, chunks: list[range]) -> None:
    assert chunked([f"{row:05d}" for row in range(count)], size) == chunks


def test_chunks_of_unsorted_ids_would_depend_on_the_order() -> None:
    with pytest.raises(AssertionError):
        chunked(["b", "a"], 1)


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "npz"},
        {"kind": "digits", "path": "x"},
        {"kind": "npz", "path": "x", "labels": "y"},
        {"kind": "digits", "take": (5, 5)},
        {"kind": "digits", "take": (-1, 5)},
        {"kind": "digits", "limit": 0},
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"path|labels|take|limit"):
        ImageSetConfig(**settings)


@pytest.mark.parametrize("kind", ["npz", "folder", "parquet"])
def test_a_path_that_does_not_exist(tmp_path: Path, kind: Any) -> None:
    with pytest.raises(InputError, match="nowhere"):
        open_image_set(ImageSetConfig(kind=kind, path=str(tmp_path / "nowhere")), 8)
