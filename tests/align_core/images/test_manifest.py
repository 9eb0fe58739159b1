"""The manifest of an image set: its content, its hash, and unreadable images."""

from pathlib import Path

import numpy as np
import pytest
from image_sets import manifest_of
from PIL import Image

from align_core.errors import InputError
from align_core.images import ImageSetConfig
from align_core.images.decoding import Pixels
from align_core.images.inspection import inspect_images
from align_core.images.manifest import Manifest

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
LABELS = np.array([0, 0, 1, 1])
NAMES = ["a/0.png", "a/1.png", "b/0.png", "b/1.png"]


def manifest_of_npz(path: Path, images: Pixels = IMAGES, labels: np.ndarray = LABELS) -> Manifest:
    np.savez(path, images=images, labels=labels)
    return manifest_of(ImageSetConfig(kind="npz", path=str(path)))


def save_folder(root: Path, names: list[str] = NAMES) -> ImageSetConfig:
    for name, pixels in zip(names, IMAGES, strict=True):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / name)
    return ImageSetConfig(kind="folder", path=str(root))


def test_holds_ids_labels_and_shape_in_the_order_of_the_ids(tmp_path: Path) -> None:
    manifest = manifest_of(save_folder(tmp_path))
    assert manifest.ids == NAMES
    assert manifest.labels.tolist() == [0, 0, 1, 1]
    assert manifest.shape == (3, 8, 8)
    assert manifest.unreadable == []
    assert len(manifest) == len(set(manifest.contents)) == 4


def test_equal_pictures_are_recognised_across_kinds(tmp_path: Path) -> None:
    assert manifest_of(save_folder(tmp_path)).contents == manifest_of_npz(tmp_path / "a.npz").contents


def test_digest_is_the_same_wherever_the_set_lies(tmp_path: Path) -> None:
    here, there = (manifest_of(save_folder(tmp_path / name)) for name in ("here", "there"))
    assert here.digest == there.digest


def test_digest_tells_of_every_change(tmp_path: Path) -> None:
    brighter, relabelled = IMAGES.copy(), LABELS.copy()
    brighter[3, 7, 7, 2] ^= 1
    relabelled[3] = 0
    digests = [
        manifest_of_npz(tmp_path / "a.npz").digest,
        manifest_of_npz(tmp_path / "a.npz", images=brighter).digest,
        manifest_of_npz(tmp_path / "a.npz", labels=relabelled).digest,
        manifest_of_npz(tmp_path / "a.npz", images=IMAGES[[1, 0, 2, 3]]).digest,
        manifest_of_npz(tmp_path / "a.npz", IMAGES[:3], LABELS[:3]).digest,
        manifest_of(save_folder(tmp_path / "names")).digest,
        manifest_of(save_folder(tmp_path / "other", [*NAMES[:3], "b/2.png"])).digest,
        manifest_of(save_folder(tmp_path / "names"), size=7).digest,
    ]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("broken", ["a/0.png", "b/0.png"])
def test_unreadable_images_are_listed_and_left_out(tmp_path: Path, broken: str) -> None:
    config = save_folder(tmp_path)
    (tmp_path / broken).write_bytes(b"not an image")
    manifest = manifest_of(config)
    assert manifest.ids == [name for name in NAMES if name != broken]
    assert manifest.labels.tolist() == [label for name, label in zip(NAMES, LABELS, strict=True) if name != broken]
    assert len(manifest.contents) == 3
    ((image_id, reason),) = manifest.unreadable
    assert image_id == broken
    assert "cannot be decoded" in reason


def test_nothing_readable(tmp_path: Path) -> None:
    config = save_folder(tmp_path)
    for name in NAMES:
        (tmp_path / name).write_bytes(b"")
    manifest = inspect_images(config, 8)
    assert len(manifest) == 0
    assert [image_id for image_id, _ in manifest.unreadable] == NAMES


def test_only_the_selected_images_are_looked_at(tmp_path: Path) -> None:
    save_folder(tmp_path)
    (tmp_path / NAMES[0]).write_bytes(b"not an image")
    config = ImageSetConfig(kind="folder", path=str(tmp_path), take=(1, 4), limit=2)
    counts: list[int] = []
    manifest = inspect_images(config, 8, progress=counts.append)
    assert manifest.ids == NAMES[1:3]
    assert manifest.labels.values.tolist() == ["a", "b"]
    assert manifest.unreadable == []
    assert counts == [1, 2]


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="empty"):
        inspect_images(ImageSetConfig(kind="folder", path=str(tmp_path)), 8)
