"""Decoded training images that are kept on a node's disk."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from align_core.errors import InputError
from align_core.images import Fit, ImageSet, ImageSetConfig, open_image_set, read_images
from align_core.images.decoding import Picture
from align_core.images.inspection import content_hash
from pipelines.compute.images import AsInspected
from pipelines.compute.kept_images import KeptImages
from pipelines.failure import InputChangedError

COUNT, SIDE = 5, 16


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Five photographs of other sizes, in one class."""
    (tmp_path / "set" / "a").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        pixels = rng.integers(0, 256, (20 + number, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "set" / "a" / f"{number}.jpg")
    return tmp_path / "set"


def opened(pictures: Path, size: int = SIDE) -> ImageSet:
    return open_image_set(ImageSetConfig(kind="folder", path=str(pictures)), Fit(size), 3)


def kept(inner: ImageSet, folder: Path) -> KeptImages:
    ids, _ = inner.listing()
    contents = {own: content_hash(inner.read(own).tobytes()) for own in ids}
    return KeptImages(AsInspected("data.train", inner, contents), folder, contents, 3)


def exchange(file: Path, seed: int) -> None:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 40, 3), dtype=np.uint8)).save(file)


def without_decoding(image_set: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    def decoded(image_id: str) -> Picture:
        raise AssertionError(f"{image_id} is decoded again")

    monkeypatch.setattr(image_set, "decoded", decoded)


def test_an_image_is_decoded_once_for_all_who_read_it(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = opened(pictures)
    ids, _ = inner.listing()
    whole = read_images(inner, ids)
    assert (read_images(kept(inner, tmp_path / "kept"), ids[3:]) == whole[3:]).all()
    again = opened(pictures)
    first = kept(again, tmp_path / "kept")
    assert (first.read(ids[0]) == whole[0]).all()
    without_decoding(again, monkeypatch)
    assert (read_images(first, [ids[4], ids[0], ids[3]]) == whole[[4, 0, 3]]).all()
    with pytest.raises(AssertionError, match=r"1\.jpg is decoded again"):
        first.read(ids[1])
    (file,) = (tmp_path / "kept").iterdir()
    assert file.stat().st_size <= COUNT * (16 + 3 * SIDE**2)


@pytest.mark.parametrize("damage", ["flipped", "cut", "another image"])
def test_what_is_damaged_is_decoded_again(pictures: Path, tmp_path: Path, damage: str) -> None:
    inner = opened(pictures)
    ids, _ = inner.listing()
    images = kept(inner, tmp_path)
    whole = read_images(images, ids)
    (file,) = tmp_path.glob("*.pixels")
    content = bytearray(file.read_bytes())
    size = len(content) // COUNT
    if damage == "another image":
        content[:size] = content[size : 2 * size]
    else:
        content[-1] ^= 1
    file.write_bytes(content[:-1] if damage == "cut" else content)
    assert (read_images(kept(opened(pictures), tmp_path), ids) == whole).all()
    assert (read_images(kept(inner, tmp_path), ids) == whole).all()


def test_other_images_or_sizes_have_files_of_their_own(pictures: Path, tmp_path: Path) -> None:
    inner, smaller = opened(pictures), opened(pictures, SIDE // 2)
    ids, _ = inner.listing()
    first = kept(inner, tmp_path)
    exchange(pictures / ids[0], seed=1)
    for images in (first, kept(inner, tmp_path), kept(smaller, tmp_path)):
        images.read(ids[1])
    assert len(list(tmp_path.glob("*.pixels"))) == 3
    assert kept(smaller, tmp_path).read(ids[0]).shape == (3, SIDE // 2, SIDE // 2)


def test_an_image_that_is_exchanged_for_a_while_is_not_kept(pictures: Path, tmp_path: Path) -> None:
    """Kept, it would be refused by every later run, though the file is again what was inspected."""
    inner = opened(pictures)
    ids, _ = inner.listing()
    images, before, content = kept(inner, tmp_path), inner.read(ids[0]), (pictures / ids[0]).read_bytes()
    exchange(pictures / ids[0], seed=1)
    with pytest.raises(InputChangedError, match=r"data.train: image a/0.jpg is not as it was"):
        images.read(ids[0])
    (pictures / ids[0]).write_bytes(content)
    assert (images.read(ids[0]) == before).all()


def test_a_folder_that_cannot_be_written_to_is_named_with_what_it_needs(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file")
    inner = opened(pictures)
    with pytest.raises(InputError, match=r"compute.cache: .*kept.*It grows to 3.92e-06 GB: make room"):
        kept(inner, tmp_path / "kept").read(inner.listing()[0][0])
