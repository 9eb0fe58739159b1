"""Image sets that are inspected by their stored bytes: what is found all the same, and what only decoding finds."""

import hashlib
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from image_sets import folder_of, noise, npz, parquet, png
from PIL import Image

from align_core.errors import InputError
from align_core.images import Fit, ImageSetConfig
from align_core.images.duplicates import without_duplicates
from align_core.images.inspection import Inspection, inspect_images
from align_core.images.manifest import Manifest, manifests_of

FIT = Fit(8)
GREY, COLOUR, LARGE = noise(8, 8, seed=1), noise(8, 8, 3, seed=2), noise(9, 20, 3, seed=3)


def jpeg(pixels: np.ndarray, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


FILES = {
    "a/alpha.png": png(Image.fromarray(noise(8, 8, 4, seed=4))),
    "a/colour.png": png(COLOUR),
    "a/grey.png": png(GREY),
    "b/large.jpg": jpeg(LARGE),
    "b/small.png": png(noise(5, 5, 3, seed=5)),
}
DAMAGED = {"b/cut.jpg": jpeg(noise(40, 40, 3, seed=6))[:-600]}
UNUSABLE = {
    "a/deep.png": png(Image.fromarray(np.zeros((8, 8), np.uint16))),
    "a/empty.png": b"",
    "b/long.png": png(noise(1, 200, 3)),
    "b/text.png": b"<html>",
}


def both(config: ImageSetConfig, size: int | Fit = 8) -> tuple[Inspection, Inspection]:
    """What is found by pixels, and by bytes."""
    return inspect_images(config, size), inspect_images(replace(config, inspect="bytes"), size)


def in_folder(root: Path, files: dict[str, bytes]) -> ImageSetConfig:
    return ImageSetConfig(kind="folder", path=str(folder_of(root, files)))


def in_parquet(root: Path, files: dict[str, bytes]) -> ImageSetConfig:
    ids, labels = list(files), [name[0] for name in files]
    return parquet(root / "set.parquet", image=list(files.values()), label=labels, image_id=ids)


@pytest.mark.parametrize("kind", [in_folder, in_parquet])
class TestEncoded:
    def test_all_but_the_pixels_is_found_without_decoding(self, tmp_path: Path, kind: Any) -> None:
        decoded, undecoded = both(kind(tmp_path, FILES))
        assert undecoded.facts == decoded.facts == {"alpha": 1, "reduced": 1, "enlarged": 1}
        for name in ("ids", "originals", "is_grey", "unreadable", "listed", "suffixes"):
            assert getattr(undecoded, name) == getattr(decoded, name), name
        assert undecoded.is_grey == [False, False, True, False, False]
        assert undecoded.originals == [hashlib.blake2b(file, digest_size=16).hexdigest() for file in FILES.values()]
        assert {*undecoded.in_grey, *undecoded.in_colour} == {""}

    def test_what_the_header_shows_to_be_unusable(self, tmp_path: Path, kind: Any) -> None:
        decoded, undecoded = both(kind(tmp_path, FILES | UNUSABLE | DAMAGED))
        assert {image_id for image_id, _ in undecoded.unreadable} == set(UNUSABLE)
        assert [own for own in decoded.unreadable if own[0] not in DAMAGED] == undecoded.unreadable
        assert [image_id for image_id in undecoded.ids if image_id not in decoded.ids] == ["b/cut.jpg"]

    def test_an_image_that_would_be_too_large_when_it_is_fitted(self, tmp_path: Path, kind: Any) -> None:
        config = kind(tmp_path, {"a/long.png": png(noise(1, 100, 3)), "b/colour.png": png(COLOUR)})
        for found in both(config, Fit(8, 1400)):
            assert [image_id for image_id, _ in found.unreadable] == ["a/long.png"]


def test_arrays(tmp_path: Path) -> None:
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(noise(4, 3, 9, 9))
    for config in (
        npz(tmp_path / "a.npz", noise(4, 9, 9, 3), [0, 0, 1, 1]),
        parquet(tmp_path / "a.parquet", image=tensors, label=[0, 0, 1, 1]),
        ImageSetConfig(kind="digits", limit=5),
    ):
        decoded, undecoded = both(config)
        assert undecoded.originals == decoded.originals and len(set(decoded.originals)) == len(decoded)
        assert (undecoded.facts, undecoded.is_grey) == (decoded.facts, decoded.is_grey)


def manifests(sets: dict[str, ImageSetConfig], fit: Fit = FIT, **more: Any) -> dict[str, Manifest]:
    return manifests_of({role: inspect_images(config, fit) for role, config in sets.items()}, fit, 2, **more)


class TestManifest:
    def test_its_hash_is_over_bytes_and_what_makes_pixels_of_them(self, tmp_path: Path) -> None:
        pixels = in_folder(tmp_path / "one", FILES)
        same = in_folder(tmp_path / "same", FILES)
        other = in_folder(tmp_path / "other", FILES | {"b/large.jpg": jpeg(LARGE, quality=89)})
        by_bytes = [replace(config, inspect="bytes") for config in (pixels, same, other)]
        fits = [Fit(8), Fit(8, 9), Fit(8, 9, "bilinear"), Fit(7, 8)]
        digests = [manifests({"train": pixels})["train"].digest]
        digests += [manifests({"train": by_bytes[0]}, fit)["train"].digest for fit in fits]
        digests += [manifests({"train": by_bytes[0]}, channels=1)["train"].digest]
        digests += [manifests({"train": by_bytes[2]})["train"].digest]
        assert len(set(digests)) == len(digests)
        assert manifests({"train": by_bytes[1]})["train"].digest == digests[1]

    def test_trainings_on_crops_of_the_originals_see_the_same_either_way(self, tmp_path: Path) -> None:
        config = in_folder(tmp_path, FILES)
        one, other = (manifests({"train": replace(config, inspect=by)})["train"] for by in ("pixels", "bytes"))
        assert one.digest_of_originals == other.digest_of_originals

    @pytest.mark.parametrize(("test", "channels"), [(GREY, 1), (COLOUR, 3)])
    def test_channels_are_those_that_decoding_would_find(self, tmp_path: Path, test: np.ndarray, channels: int) -> None:
        files = {f"{name}/x.png": png(noise(8, 8, seed=seed)) for seed, name in enumerate("ab", start=7)}
        train = replace(in_folder(tmp_path / "train", files), inspect="bytes")
        held_out = in_folder(tmp_path / "test", {"a/y.png": png(test)})
        assert manifests({"train": train, "test": held_out})["train"].shape == (channels, 8, 8)
        coloured = replace(in_folder(tmp_path / "more", files | {"a/z.png": png(COLOUR)}), inspect="bytes")
        assert manifests({"train": coloured, "test": held_out})["test"].shape == (3, 8, 8)

    def test_it_is_said_on_every_run(self, tmp_path: Path) -> None:
        config = in_folder(tmp_path, {"a/1.png": png(COLOUR), "b/2.png": png(GREY)})
        decoded, undecoded = (manifests({"train": replace(config, inspect=by)})["train"] for by in ("pixels", "bytes"))
        assert undecoded.notes[1:] == decoded.notes == ("1 grey image is used as RGB",)
        assert "known by their stored bytes" in undecoded.notes[0]


class TestDuplicates:
    """The test images are always decoded; what is stored of them is known too."""

    @pytest.fixture
    def held_out(self, tmp_path: Path) -> ImageSetConfig:
        return in_folder(tmp_path / "test", {"a/x.png": png(COLOUR), "b/y.png": png(GREY)})

    def trained_on(self, root: Path, files: dict[str, bytes]) -> ImageSetConfig:
        return replace(in_folder(root / "train", files), inspect="bytes")

    def test_the_same_file_in_two_sets(self, tmp_path: Path, held_out: ImageSetConfig) -> None:
        train = self.trained_on(tmp_path, {"a/1.png": png(COLOUR), "b/2.png": png(noise(8, 8))})
        sets = manifests({"train": train, "test": held_out})
        with pytest.raises(InputError, match=r"overlap: 1 image in both, byte for byte \(a/1.png is a/x.png\)"):
            without_duplicates(sets)
        kept = without_duplicates(sets, "skip")
        assert kept["train"].ids == ["b/2.png"] and kept["test"].ids == ["a/x.png", "b/y.png"]
        assert "1 image is in data.test as well, byte for byte, and left out here" in kept["train"].notes[-1]
        assert kept["train"].digest != sets["train"].digest

    def test_the_same_picture_in_another_file_is_not_noticed(self, tmp_path: Path, held_out: ImageSetConfig) -> None:
        files = {"a/1.bmp": png(COLOUR, compress_level=0), "b/2.png": png(noise(8, 8))}
        train = self.trained_on(tmp_path, files)
        without_duplicates(manifests({"train": train, "test": held_out}))
        with pytest.raises(InputError, match="pixel for pixel"):
            without_duplicates(manifests({"train": replace(train, inspect="pixels"), "test": held_out}))

    def test_within_the_set(self, tmp_path: Path, held_out: ImageSetConfig) -> None:
        once, other = png(noise(8, 8, seed=8)), png(noise(8, 8, seed=9))
        train = self.trained_on(tmp_path, {"a/1.png": once, "a/2.png": once, "b/3.png": other})
        kept = without_duplicates(manifests({"train": train, "test": held_out}))["train"]
        assert kept.notes[-1] == "1 image is in the set already, byte for byte, and counted again (a/2.png is a/1.png)"
        folder_of(tmp_path / "train", {"b/1.png": once})
        with pytest.raises(
            InputError, match="3 images have different labels, and are the same byte for byte"
        ) as refusal:
            without_duplicates(manifests({"train": train, "test": held_out}))
        assert "data.on_duplicate: skip" in str(refusal.value)


def test_hashes_of_settings_are_those_from_before_there_was_the_key() -> None:
    config = ImageSetConfig(kind="digits")
    assert "inspect" not in config.deciding
    assert replace(config, inspect="bytes").deciding == config.deciding | {"inspect": "bytes"}
    with pytest.raises(ValueError, match="inspect"):
        replace(config, inspect="headers")
