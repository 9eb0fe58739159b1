"""Images that were inspected by their stored bytes: the same networks come of them, and none is read unnoticed."""

import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hand_made import hand_made
from one_worker import WORKER
from PIL import Image

from align_core.errors import InputError
from align_core.images import Fit, ImageSetConfig
from align_core.images.inspection import inspect_images
from pipelines.compute.fine_tune import FineTune, fine_tune_alone
from pipelines.compute.images import opened, read_as_inspected
from pipelines.failure import InputChangedError, RunFailed
from pipelines.progress import Progress
from pipelines.run.verification import Verification
from pipelines.run.verify_inputs import check_image_sets
from pipelines.stages import align as align_stage
from pipelines.stages.align import make_networks
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.makings import Making
from pipelines.stages.payload import fine_tune_of

CROPS = ["none", "pad4", "random_resized"]


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    opened.cache_clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the set `photos`: four photographs of 24 x 16 pixels, of three classes."""
    rng = np.random.default_rng(1)
    for number in range(4):
        file = photo(tmp_path, number)
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 24), dtype=np.uint8)).save(file, quality=95)
    (tmp_path / "classes.txt").write_text("c0\nc1\nc2\n")
    return tmp_path


def photo(folder: Path, number: int) -> Path:
    return folder / "photos" / f"c{number % 3}" / f"{number}.jpg"


def blueprint_of(folder: Path, crop: str, inspect: str = "bytes", **changes: Any) -> Blueprint:
    align = {"epochs": 4, "batch_size": 2, "augment": {"crop": crop}, "optimizer": {"lr": 0.05}}
    train = {"kind": "folder", "path": "photos", "inspect": inspect}
    test = {"kind": "npz", "path": "images.npz", "take": [4, 16]}
    data = {"classes": "classes.txt", "image_size": 8, "train": train, "test": test}
    return hand_made(folder, **{"align": align, "data": data, **changes}).blueprint()


def alignment(folder: Path, crop: str, inspect: str = "bytes", **changes: Any) -> tuple[Making, FineTune]:
    blueprint = blueprint_of(folder, crop, inspect, **changes)
    (making,) = (making for making in blueprint.alignments() if making.name == "aligned")
    return making, fine_tune_of(blueprint, making, WORKER)


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("crop", CROPS)
def test_the_weights_are_those_of_a_set_that_was_decoded(folder: Path, crop: str, cache: bool) -> None:
    (one, decoded), (other, undecoded) = (alignment(folder, crop, inspect) for inspect in ("pixels", "bytes"))
    assert undecoded.contents == undecoded.originals == decoded.originals
    if cache:
        undecoded = replace(undecoded, cache=str(folder / "kept"))
    weights = fine_tune_alone(decoded, "cpu", "one").weights
    assert fine_tune_alone(undecoded, "cpu", "other").weights == weights
    assert fine_tune_alone(undecoded, "cpu", "again").weights == weights
    # A training on crops of the originals has seen all of their bytes in either case: it is the same network.
    assert (one.fingerprint == other.fingerprint) == (crop == "random_resized")


@pytest.mark.parametrize("crop", CROPS)
def test_every_image_is_compared_as_it_is_read(folder: Path, crop: str) -> None:
    """Also where its pixels stay as they are, since these are not known."""
    _, job = alignment(folder, crop)
    file = photo(folder, 1)
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(InputChangedError, match=r"^data\.train: image c1/1\.jpg is not as it was .* with --rehash"):
        fine_tune_alone(job, "cpu", ".train/x")
    file.unlink()
    with pytest.raises(InputChangedError, match=r"^data\.train: image c1/1\.jpg cannot be read .*, as it could be"):
        fine_tune_alone(job, "cpu", ".train/x")


def damage(file: Path) -> None:
    """Cuts a photograph short, behind its header."""
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 2 // 3])


@pytest.mark.parametrize("crop", CROPS)
def test_a_damaged_image_ends_the_stage_with_one_message(
    folder: Path, monkeypatch: pytest.MonkeyPatch, crop: str
) -> None:
    damage(photo(folder, 2))
    with pytest.raises(InputError, match=r"data\.train: 1 image is unreadable \(c2/2\.jpg: cannot be decoded"):
        blueprint_of(folder, crop, "pixels")
    blueprint = blueprint_of(folder, crop, variants={"hot": {"align": {"temperature": 9}}})
    monkeypatch.setattr(align_stage, "room_for", lambda *_, **__: 1)
    monkeypatch.setattr(align_stage, "fine_tune", lambda job, name, worker: fine_tune_alone(job, "cpu", name))
    with pytest.raises(RunFailed) as failure:
        make_networks(blueprint, WORKER, Progress(quiet=True))
    expected = (
        r"the alignment of \w+ failed: data\.train: image c2/2\.jpg cannot be read \(cannot be decoded .*truncated.*\)"
        r", which data\.train\.inspect: bytes leaves to be found now\. Repair it, .* What was finished is kept"
    )
    assert re.fullmatch(expected, str(failure.value)), failure.value
    assert not any(blueprint.is_made(name) for name in ("aligned", "hot"))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_on_ray(ray_cluster: None, folder: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    monkeypatch.setattr("pipelines.compute.ray_train.RETRIES", 0)
    align = {"epochs": 4, "batch_size": 4, "workers": workers, "augment": {"crop": "none"}}
    damage(photo(folder, 2))
    blueprint = blueprint_of(folder, "none", align=align, controls=[])
    with pytest.raises(
        RunFailed, match=r"the alignment of aligned failed: data\.train: image c2/2\.jpg cannot be read"
    ):
        make_networks(blueprint, WORKER, Progress(quiet=True))


def test_images_that_are_read_all_at_once(folder: Path) -> None:
    """As the validation images are."""
    config = ImageSetConfig(kind="folder", path=str(folder / "photos"), inspect="bytes")
    found, images = inspect_images(config, 8), opened(config, Fit(8), 1)
    pixels = read_as_inspected("data.validation", images, found.ids, found.originals, is_by_bytes=True)
    assert (pixels == np.stack([images.read(image_id) for image_id in found.ids])).all()
    stamp = photo(folder, 0).stat()
    damage(photo(folder, 0))
    os.utime(photo(folder, 0), ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    with pytest.raises(
        InputChangedError, match=r"data\.validation: image c0/0\.jpg .* when the image set was inspected"
    ):
        read_as_inspected("data.validation", images, found.ids, found.originals, is_by_bytes=True)


def test_verify_compares_the_bytes(folder: Path) -> None:
    blueprint, found, again = blueprint_of(folder, "none"), Verification(), Verification()
    check_image_sets(blueprint, found, Progress(quiet=True))
    assert (found.findings, found.checked["images"]) == ([], 4 + 12)
    file = photo(folder, 3)
    file.write_bytes(file.read_bytes() + b"\0")
    check_image_sets(blueprint, again, Progress(quiet=True))
    assert again.findings == ["data.train: the images are not those that the results were made from"]


def test_it_is_refused_for_test_images(folder: Path) -> None:
    test = {"kind": "npz", "path": "images.npz", "take": [4, 16], "inspect": "bytes"}
    train = {"kind": "folder", "path": "photos"}
    data = {"classes": "classes.txt", "image_size": 8, "train": train, "test": test}
    with pytest.raises(InputError, match=r"data: test\.inspect: `bytes` is for train and validation alone"):
        hand_made(folder, data=data).blueprint()
