"""Decoding: from the bytes of a picture to 8-bit pixels of the wanted size."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_sets import folder_of, noise, parquet, png, read_only_image
from PIL import Image
from torchvision import transforms

from align_core.errors import InputError
from align_core.images import ImageSetConfig, open_image_set, read_images
from align_core.images.decoding import BadImage


def deep_png(colour_type: int, samples: int) -> bytes:
    """A PNG of 8 x 8 pixels with samples of 16 bits."""

    def part(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = zlib.compress(bytes(8 * (1 + 8 * samples * 2)))
    header = struct.pack(">IIBBBBB", 8, 8, 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", rows) + part(b"IEND", b"")


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
        Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(buffer, "TIFF")  # full magenta and yellow make red
        decoded = read_only_image(self.one(tmp_path, buffer.getvalue(), "a.tif"))
        assert np.array_equal(decoded, np.broadcast_to(np.array([[[255]], [[0]], [[0]]]), (3, 8, 8)))

    def test_16_bit_images_are_refused_not_saturated(self, tmp_path: Path) -> None:
        with pytest.raises(BadImage, match="8-bit"):
            read_only_image(self.one(tmp_path, png(np.full((8, 8), 1000, np.uint16))))

    @pytest.mark.parametrize(
        "content",
        [
            deep_png(colour_type=2, samples=3),
            deep_png(colour_type=6, samples=4),
            deep_png(colour_type=4, samples=2),
            b"P6 8 8 1023\n" + bytes(8 * 8 * 6),
        ],
        ids=["RGB", "RGBA", "grey with alpha", "PPM"],
    )
    def test_of_coloured_images_of_16_bits_no_half_is_dropped(self, tmp_path: Path, content: bytes) -> None:
        with pytest.raises(BadImage, match=r"not 8-bit but .* of 16 bits"):
            read_only_image(self.one(tmp_path, content))

    def test_pictures_keep_their_own_channels_unless_a_number_is_asked_for(self, tmp_path: Path) -> None:
        grey, coloured = noise(8, 8), noise(8, 8, 3)
        config = parquet(tmp_path / "a.parquet", image=[png(coloured), png(grey)], label=[0, 0])
        own, rgb, one = (open_image_set(config, 8, channels) for channels in (None, 3, 1))
        assert [own.read(image_id).shape[0] for image_id in ("00000", "00001")] == [3, 1]
        assert np.array_equal(rgb.read("00001"), np.stack([grey] * 3))
        assert np.array_equal(rgb.read("00000"), coloured.transpose(2, 0, 1))
        assert np.array_equal(one.read("00001"), grey[None])
        assert np.array_equal(one.read("00000")[0], np.asarray(Image.fromarray(coloured).convert("L")))

    @pytest.mark.parametrize("shape", [(40, 31), (8, 8), (5, 9)])
    def test_a_grey_image_as_rgb_is_the_same_before_and_after_resizing(
        self, tmp_path: Path, shape: tuple[int, int]
    ) -> None:
        config = self.one(tmp_path, png(noise(*shape)))
        once = open_image_set(config, 8).read("class/a.png")
        assert np.array_equal(open_image_set(config, 8, 3).read("class/a.png"), np.repeat(once, 3, axis=0))

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
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n",
            # The header claims 100,000 x 100,000 pixels.
            b"BM" + struct.pack("<IHHIIiiHHIIIIII", 54, 0, 0, 54, 40, 100_000, 100_000, 1, 24, 0, 0, 0, 0, 0, 0),
        ],
        ids=["empty", "no image", "truncated", "bad header", "PostScript", "bomb"],
    )
    def test_a_corrupt_image_is_named(self, tmp_path: Path, content: bytes) -> None:
        files = {"class/bad.png": content, "class/good.png": png(noise(8, 8, 3))}
        image_set = open_image_set(ImageSetConfig(kind="folder", path=str(folder_of(tmp_path, files))), 8)
        with pytest.raises(BadImage, match="cannot be decoded"):
            image_set.read("class/bad.png")
        with pytest.raises(InputError, match=r"class/bad\.png"):
            read_images(image_set, ["class/good.png", "class/bad.png"])
        assert image_set.read("class/good.png").shape == (3, 8, 8)
