"""Where images of a large set are repaired, added or taken out, the shards of all others are used again."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from large_sets import (
    BAD,
    COUNT,
    SHARD,
    Seen,
    as_a_whole,
    experiment,
    inspected,
    paint,
    shards_in,
    store_of,
    with_photos,
    write,
)

from pipelines.experiment.config import Experiment
from pipelines.run.request import Request
from pipelines.stages.inspect_images import delete_shards


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return with_photos(tmp_path, monkeypatch)


@pytest.fixture(params=["pixels", "bytes"])
def asked(folder: Path, request: pytest.FixtureRequest) -> Experiment:
    return experiment(folder, inspect=request.param)


@pytest.mark.parametrize(
    ("name", "again"),
    [
        (BAD, ["c0/18.bmp", "c0/21.bmp", "c1/01.bmp", BAD, "c1/07.bmp"]),
        ("c0/00.bmp", ["c0/00.bmp"]),
        ("c1/02.bmp", ["c0/18.bmp", "c0/21.bmp", "c1/01.bmp", "c1/02.bmp", BAD, "c1/07.bmp", "c1/10.bmp"]),
        ("c2/99.bmp", ["c2/14.bmp", "c2/17.bmp", "c2/20.bmp", "c2/99.bmp"]),
    ],
    ids=["repaired", "changed", "added in between", "added at the end"],
)
def test_an_image_that_is_repaired_or_added_leaves_the_other_shards(
    asked: Experiment, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, again: list[str]
) -> None:
    store = store_of(asked)
    inspected(asked, store, keeps=True)  # and then the command fails, so that the shards stay
    paint(folder / "photos" / name)
    changed, files = as_a_whole(asked, monkeypatch)
    with monkeypatch.context() as patch:
        seen = Seen(patch)
        found, unsaved = inspected(asked, store, keeps=True)
    assert set(seen.ids) == {*again, BAD}  # which could not be read, and is tried each time
    assert (found["train"].digest, unsaved) == (changed["train"].digest, files)
    for path, content in unsaved.items():
        store.write(path, content)
    delete_shards(store, unsaved)
    assert shards_in(store) == []  # of those that are out of date, too


def test_an_image_that_is_taken_out_leaves_the_other_shards(
    asked: Experiment, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_of(asked)
    inspected(asked, store, keeps=True)
    (folder / "photos" / "c0" / "12.bmp").unlink()
    changed, seen = as_a_whole(asked, monkeypatch)[0]["train"], Seen(monkeypatch)
    assert inspected(asked, store, keeps=True)[0]["train"].digest == changed.digest
    assert set(seen.ids) == {"c0/09.bmp", "c0/15.bmp", BAD}


def test_a_set_with_other_settings_has_shards_of_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, larger = (Request(write(folder).file, [f"data.image_size={size}"]).experiment() for size in (8, 9))
    store = store_of(asked)
    inspected(asked, store, keeps=True)
    seen = Seen(monkeypatch)
    inspected(larger, store, keeps=True)
    assert len(seen.ids) == COUNT


def test_of_parquet_files_one_that_changes_is_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_file(number: int, shade: int) -> None:
        """Images of one file, whose ids are all below those of the next file."""
        rows = []
        for row in range(12):
            paint(folder / "one.png", shade + row)
            image_id, picture = f"{number}/{row:02d}", (folder / "one.png").read_bytes()
            rows.append({"image_id": image_id, "image": picture, "label": f"c{row % 3}"})
        pq.write_table(pa.Table.from_pylist(rows), folder / "shards" / f"{number}.parquet")

    (folder / "shards").mkdir()
    write_file(0, 0)
    write_file(1, 20)
    asked = experiment(folder, kind="parquet", path="shards")
    store = store_of(asked)
    inspected(asked, store, keeps=True)
    write_file(1, 40)
    changed = as_a_whole(asked, monkeypatch)[0]["train"]
    seen = Seen(monkeypatch)
    assert inspected(asked, store, keeps=True)[0]["train"].digest == changed.digest
    of_first = [image_id for image_id in seen.ids if image_id[0] == "0"]
    assert len(seen.ids) - len(of_first) == 12 and len(of_first) < SHARD  # those in one shard with images of the other


def test_an_image_that_could_not_be_read_is_tried_again(
    asked: Experiment, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is as it was, by size and time: its disk, or its permissions, may have been the reason."""
    file, store = folder / "photos" / "c1" / "07.bmp", store_of(asked)
    whole, content, before = as_a_whole(asked, monkeypatch)[0]["train"], file.read_bytes(), file.stat()
    for first in (b"X", content[:1]):
        file.write_bytes(first + content[1:])
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        found = inspected(asked, store, keeps=True)[0]["train"]
        assert len(found.unreadable) == (2 if first == b"X" else 1)
    assert found.digest == whole.digest
