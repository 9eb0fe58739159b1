"""A small image set that counts as large, and how it is inspected: by a command that goes on, is killed or looks."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hand_made import HandMade, hand_made
from PIL import Image

from align_core.images import ImageSetConfig
from align_core.images.inspection import Look
from pipelines.compute.images import opened
from pipelines.experiment.config import Experiment
from pipelines.progress import Progress
from pipelines.run.request import Request
from pipelines.stages import inspect_large
from pipelines.stages.inspect_images import manifests
from pipelines.stages.inspect_large import SHARDS, LargeSets, Shards
from pipelines.storage.store import Store

COUNT, SHARD = 23, 5
SIZES = [1, 1, 1, 3, 5, 1, 1, 1, 1, 5, 3]  # of the shards, some of which end early because of the next image's name
BAD = "c1/04.bmp"  # in the fifth shard


def with_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of 23 training images, of which one cannot be read; sets of more than 10 count as large."""
    monkeypatch.setattr(inspect_large, "LARGE", 10)
    monkeypatch.setattr(inspect_large, "SHARD", SHARD)
    monkeypatch.setattr(sys, "path", list(sys.path))
    opened.cache_clear()
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        file = tmp_path / "photos" / f"c{number % 3}" / f"{number:02d}.bmp"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (8, 8 + number % 2, 3), dtype=np.uint8)
        Image.fromarray(pixels if number % 4 else pixels[:, :, 0]).save(file)
    (tmp_path / "photos" / BAD).write_bytes(b"no image")
    (tmp_path / "classes.txt").write_text("c0\nc1\nc2\n")
    return tmp_path


def write(folder: Path, **train: Any) -> HandMade:
    data = {
        "classes": "classes.txt",
        "image_size": 8,
        "channels": 1,
        "on_bad_image": "skip",
        "train": {"kind": "folder", "path": "photos"} | train,
        "test": {"kind": "npz", "path": "images.npz", "take": [4, 14]},
    }
    return hand_made(folder, data=data, controls=[])


def experiment(folder: Path, **train: Any) -> Experiment:
    return Request(write(folder, **train).file).experiment()


def store_of(asked: Experiment, name: str = "store") -> Store:
    return Store(str(Path(asked.output) / name), asked.name)


def inspected(asked: Experiment, store: Store, *, trusting: bool = True, **large: Any) -> tuple[Any, dict[str, bytes]]:
    """The manifests and unsaved files; `large` is what a command does about large sets."""
    return manifests(asked, store, Progress(quiet=True), trusting, LargeSets(**large))


def shards_in(store: Store) -> list[str]:
    """The files of the shards, of which only the training images have any."""
    return store.listing(SHARDS).get(SHARDS, [])


def ids_in(store: Store, shard: str) -> list[str]:
    table = pq.read_table(pa.BufferReader(store.read(f"{SHARDS}/{shard}")))
    return [str(image_id) for image_id in table["image_id"].to_pylist()]


def as_a_whole(asked: Experiment, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, dict[str, bytes]]:
    with monkeypatch.context() as patch:
        patch.setattr(inspect_large, "LARGE", COUNT)
        return inspected(asked, store_of(asked, "whole"), keeps=True)


class Killed(BaseException):
    """In place of a signal."""


def killed_after(shards: int, asked: Experiment, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inspects until so many shards are written."""
    write_shard, left = Shards.write, [shards]

    def writing(own: Shards, *what: Any) -> None:
        write_shard(own, *what)
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Shards, "write", writing)
        with pytest.raises(Killed):
            inspected(asked, store, keeps=True)


def exchange(folder: Path, name: str) -> None:
    """Another picture in a file of the same size and time: only who reads it knows."""
    file = folder / "photos" / name
    before = file.stat()
    with Image.open(file) as picture:
        pixels = 255 - np.array(picture)
    Image.fromarray(pixels).save(file)
    assert file.stat().st_size == before.st_size
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


class Seen:
    """The images that this process looks at, of sets that are pictures."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ids: list[str] = []
        looks = inspect_large.looks

        def looking(image_set: Any, ids: Any, config: ImageSetConfig) -> Iterator[Look | str]:
            self.ids += ids if config.is_encoded else []
            return looks(image_set, ids, config)

        monkeypatch.setattr(inspect_large, "looks", looking)


def paint(file: Path, shade: int = 0) -> None:
    Image.fromarray(np.full((8, 8), shade, np.uint8)).save(file)
