"""Large image sets are inspected shard by shard: a killed command goes on, and workers find what threads find."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hand_made import HandMade, hand_made
from PIL import Image

from align_core.errors import InputError
from align_core.images import Fit, ImageSetConfig
from align_core.images.inspection import Look
from pipelines.compute import ray_data
from pipelines.compute.images import opened
from pipelines.experiment.config import Experiment
from pipelines.progress import Progress
from pipelines.run.command import run
from pipelines.run.request import Request, open_blueprint
from pipelines.stages import inspect_large
from pipelines.stages.inspect_images import delete_shards, manifests
from pipelines.stages.inspect_large import LargeSets, Shards, _inspect_shard
from pipelines.storage.store import Store

COUNT, SHARD = 23, 5
BAD = "c1/04.bmp"  # in the second shard


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An experiment on 23 training images, of which one cannot be read; sets of more than 10 count as large."""
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


@pytest.fixture(params=["pixels", "bytes"])
def asked(folder: Path, request: pytest.FixtureRequest) -> Experiment:
    return experiment(folder, inspect=request.param)


def store_of(asked: Experiment, name: str = "store") -> Store:
    return Store(str(Path(asked.output) / name), asked.name)


def inspected(asked: Experiment, store: Store, *, trusting: bool = True, **large: Any) -> tuple[Any, dict[str, bytes]]:
    """The manifests and unsaved files; `large` is what a command does about large sets."""
    return manifests(asked, store, Progress(quiet=True), trusting, LargeSets(**large))


def shards_in(store: Store) -> list[str]:
    """The names of the shards, of which only the training images have any."""
    found = [sorted(names) for folder, names in store.listing().items() if "/images-" in folder]
    assert len(found) <= 1
    return found[0] if found else []


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


def test_shard_by_shard_is_what_is_found_as_a_whole(asked: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, files = as_a_whole(asked, monkeypatch)
    store = store_of(asked)
    found, unsaved = inspected(asked, store, keeps=True)
    assert unsaved == files
    assert {role: own.digest for role, own in found.items()} == {role: own.digest for role, own in whole.items()}
    assert found["train"].notes == whole["train"].notes
    assert [image_id for image_id, _ in found["train"].unreadable] == [BAD]
    assert shards_in(store) == [f"00000{number}.parquet" for number in range(5)]
    for path, content in unsaved.items():
        store.write(path, content)
    delete_shards(store, unsaved)
    assert shards_in(store) == []
    again, nothing = inspected(asked, store, keeps=True)
    assert (again["train"].digest, nothing) == (whole["train"].digest, {})


def test_a_killed_command_goes_on_and_reads_no_shard_again(
    asked: Experiment, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, store = as_a_whole(asked, monkeypatch)[0]["train"], store_of(asked)
    killed_after(2, asked, store, monkeypatch)
    assert len(shards_in(store)) == 2
    before, after = whole.ids[3], whole.ids[-1]  # of a shard that is there, and of the last one
    for name in (before, after):
        exchange(folder, name)
    capsys.readouterr()
    found = inspected(asked, store, keeps=True)[0]["train"]
    hashes, known = dict(zip(found.ids, found.contents, strict=True)), dict(zip(whole.ids, whole.contents, strict=True))
    assert {name for name in known if hashes[name] != known[name]} == {after}
    assert "inspect data.train: goes on after 10 images, which were inspected before" in capsys.readouterr().err


def test_in_an_object_store(asked: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, store = as_a_whole(asked, monkeypatch)[0]["train"], Store(f"fsspec+memory://{tmp_path.name}", "large")
    killed_after(2, asked, store, monkeypatch)
    exchange(tmp_path, whole.ids[0])
    found, unsaved = inspected(asked, store, keeps=True)
    assert found["train"].digest == whole.digest
    assert len(shards_in(store)) == 5
    delete_shards(store, unsaved)
    assert store.listing() == {}


def test_with_rehash_all_is_read_again(asked: Experiment, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, store = as_a_whole(asked, monkeypatch)[0]["train"], store_of(asked)
    killed_after(2, asked, store, monkeypatch)
    exchange(folder, whole.ids[0])
    found = inspected(asked, store, trusting=False, keeps=True)[0]["train"]
    assert [a == b for a, b in zip(found.contents, whole.contents, strict=True)] == [False] + [True] * (COUNT - 2)


def test_a_damaged_shard_or_one_of_other_images_is_read_again(
    asked: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, store = as_a_whole(asked, monkeypatch)[0]["train"], store_of(asked)
    inspected(asked, store, keeps=True)
    (folder,) = (own for own in store.listing() if "/images-" in own)
    store.write(f"{folder}/000001.parquet", b"PAR1")
    store.write(f"{folder}/000002.parquet", store.read(f"{folder}/000003.parquet"))
    assert inspected(asked, store, keeps=True)[0]["train"].digest == whole.digest


def test_a_changed_set_has_shards_of_its_own(asked: Experiment, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of(asked)
    killed_after(2, asked, store, monkeypatch)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "photos" / "c0" / "00.bmp")
    changed = as_a_whole(asked, monkeypatch)[0]["train"]
    assert inspected(asked, store, keeps=True)[0]["train"].digest == changed.digest


def test_a_command_that_only_looks_writes_nothing_and_uses_what_is_there(
    asked: Experiment, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, store = as_a_whole(asked, monkeypatch)[0]["train"], store_of(asked)
    assert inspected(asked, store)[0]["train"].digest == whole.digest
    assert store.listing() == {}
    killed_after(2, asked, store, monkeypatch)
    exchange(folder, whole.ids[0])
    assert inspected(asked, store)[0]["train"].digest == whole.digest
    assert len(shards_in(store)) == 2
    assert inspected(asked, store, trusting=False)[0]["train"].digest != whole.digest
    assert len(shards_in(store)) == 2


def test_small_sets_leave_no_shards_and_need_no_cluster(folder: Path) -> None:
    asked = experiment(folder, limit=10)
    store = store_of(asked)
    assert len(inspected(asked, store, keeps=True, connect=unwanted)[0]["train"]) == 9  # and a bad one
    assert store.listing() == {}


def unwanted() -> None:
    raise AssertionError("nobody needs a cluster here")


def test_what_threads_do_in_a_minute_needs_no_cluster(asked: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does what is left of more, or what is known."""
    store = store_of(asked)
    killed_after(1, asked, store, monkeypatch)
    monkeypatch.setattr(inspect_large, "SPREAD", COUNT - SHARD)
    whole, unsaved = inspected(asked, store, keeps=True, connect=unwanted)
    assert unsaved
    for path, content in unsaved.items():
        store.write(path, content)
    monkeypatch.setattr(inspect_large, "SPREAD", 0)
    again, unsaved = inspected(asked, store, keeps=True, connect=unwanted)
    assert again["train"].digest == whole["train"].digest and not unsaved


def test_arrays_are_looked_at_as_a_whole(folder: Path) -> None:
    asked = Request(write(folder, limit=10).file, ["data.test.take=[4, 16]"]).experiment()
    store = store_of(asked)
    assert len(inspected(asked, store, keeps=True, connect=unwanted)[0]["test"]) == 12
    assert store.listing() == {}


KILLED = """
import os, signal, sys
from pathlib import Path
from pipelines.run.request import Request, open_blueprint
from pipelines.stages import inspect_large

inspect_large.LARGE, inspect_large.SHARD = 10, 5
write = inspect_large.Shards.write

def killed(shards, number, *what):
    write(shards, number, *what)
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)

inspect_large.Shards.write = killed
open_blueprint(Request(Path(sys.argv[1]), quiet=True), to_write=True)
"""


def test_a_process_that_is_killed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(folder).file
    ended = subprocess.run([sys.executable, "-c", KILLED, str(file)], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    asked = Request(file).experiment()
    store = Store(asked.output, asked.name)
    assert len(shards_in(store)) == 3
    whole = as_a_whole(asked, monkeypatch)[0]["train"]
    read: list[int] = []
    write_shard = Shards.write
    monkeypatch.setattr(Shards, "write", lambda own, *what: (read.append(what[0]), write_shard(own, *what)))
    blueprint = open_blueprint(Request(file, quiet=True), to_write=True)
    assert read == [3, 4]
    assert blueprint.inspected.manifests["train"].digest == whole.digest
    blueprint.inspected.save(store)
    assert shards_in(store) == []


class TestWorkers:
    @pytest.fixture(autouse=True)
    def only_workers_look(self, ray_cluster: None, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """This process looks at small sets alone."""
        looks = inspect_large.looks

        def in_this_process(image_set: Any, ids: Any, config: ImageSetConfig) -> Iterator[Look | str]:
            assert config.kind == "npz" or len(ids) == COUNT
            return looks(image_set, ids, config)

        monkeypatch.setattr(inspect_large, "looks", in_this_process)

    @pytest.fixture(autouse=True)
    def few_are_many(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(inspect_large, "SPREAD", 0)

    def test_find_what_threads_find(self, asked: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
        whole, files = as_a_whole(asked, monkeypatch)
        store, connected = store_of(asked), list[bool]()
        found, unsaved = inspected(asked, store, keeps=True, connect=lambda: connected.append(True))
        assert connected == [True] and len(shards_in(store)) == 5
        assert (unsaved, found["train"].notes) == (files, whole["train"].notes)

    def test_do_only_what_is_missing(self, asked: Experiment, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        whole, store = as_a_whole(asked, monkeypatch)[0]["train"], store_of(asked)
        inspected(asked, store, keeps=True, connect=lambda: None)
        (shards,) = (own for own in store.listing() if "/images-" in own)
        store.delete(f"{shards}/000004.parquet")
        exchange(folder, whole.ids[0])
        assert inspected(asked, store, keeps=True, connect=lambda: None)[0]["train"].digest == whole.digest

    def test_go_on_where_the_work_broke_off(
        self, asked: Experiment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        whole, run_tasks, given = as_a_whole(asked, monkeypatch)[0]["train"], ray_data.run_tasks, list[int]()

        def breaking(items: Any, *settings: Any) -> Iterator[Any]:
            given.append(len(items))
            for count, done in enumerate(run_tasks(items[:2] if len(given) == 1 else items, *settings), start=1):
                yield done
                if count == 2 and len(given) == 1:
                    raise ray_data.PipelineBroke("a node was lost")

        monkeypatch.setattr(ray_data, "run_tasks", breaking)
        found = inspected(asked, store_of(asked), keeps=True, connect=lambda: None)[0]["train"]
        assert (found.digest, given) == (whole.digest, [5, 3])
        assert "the inspection broke off (a node was lost); it goes on with what is missing" in capsys.readouterr().err

    def test_a_run_deletes_the_shards(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = write(folder, inspect="bytes").file
        result = run(Request(file, ["align.epochs=1", "align.batch_size=8"], quiet=True), ("align",))
        assert result.made == {"align": 1}
        seen = [path.name for path in (Path(result.location) / ".seen").glob("images-*")]
        assert len(seen) == 2 and all(name.endswith(".parquet") for name in seen)

    def test_bad_images_stop_the_command_with_one_message(self, folder: Path) -> None:
        asked = Request(write(folder).file, ["data.on_bad_image=stop"]).experiment()
        with pytest.raises(
            InputError, match=rf"^data\.train: 1 image is unreadable \({BAD}: cannot be decoded .*\)\. "
        ):
            inspected(asked, store_of(asked), keeps=True, connect=lambda: None)


def test_a_node_that_has_not_the_set_says_so(tmp_path: Path) -> None:
    config = ImageSetConfig(kind="folder", path=str(tmp_path / "nowhere"))
    shards = Shards(Store(str(tmp_path), "x"), ".seen/images-x", config, Fit(8), None)
    done = _inspect_shard(shards, {"number": 0, "image_ids": ["a"]})
    assert "nowhere: there is no such file or folder on the node" in done["problem"]
    assert shards.there() == set()
