"""Large image sets are inspected shard by shard: a killed command goes on, and workers find what threads find."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from large_sets import (
    BAD,
    COUNT,
    SIZES,
    Seen,
    as_a_whole,
    exchange,
    experiment,
    ids_in,
    inspected,
    killed_after,
    shards_in,
    store_of,
    with_photos,
    write,
)

from align_core.errors import InputError
from align_core.images import Fit, ImageSetConfig
from align_core.images.inspection import Look
from pipelines.compute import ray_data
from pipelines.experiment.config import Experiment
from pipelines.run.command import run
from pipelines.run.request import Request, open_blueprint
from pipelines.stages import inspect_large
from pipelines.stages.inspect_images import delete_shards
from pipelines.stages.inspect_large import SHARDS, Shards, _inspect_shard
from pipelines.stages.seen import SEEN
from pipelines.storage.store import Store


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return with_photos(tmp_path, monkeypatch)


@pytest.fixture(params=["pixels", "bytes"])
def asked(folder: Path, request: pytest.FixtureRequest) -> Experiment:
    return experiment(folder, inspect=request.param)


def test_shard_by_shard_is_what_is_found_as_a_whole(asked: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, files = as_a_whole(asked, monkeypatch)
    store = store_of(asked)
    found, unsaved = inspected(asked, store, keeps=True)
    assert unsaved == files
    assert {role: own.digest for role, own in found.items()} == {role: own.digest for role, own in whole.items()}
    assert found["train"].notes == whole["train"].notes
    assert [image_id for image_id, _ in found["train"].unreadable] == [BAD]
    assert len(shards_in(store)) == len(SIZES)
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
    killed_after(4, asked, store, monkeypatch)
    assert len(shards_in(store)) == 4
    before, after = whole.ids[3], whole.ids[-1]  # of a shard that is there, and of the last one
    for name in (before, after):
        exchange(folder, name)
    capsys.readouterr()
    found = inspected(asked, store, keeps=True)[0]["train"]
    hashes, known = dict(zip(found.ids, found.contents, strict=True)), dict(zip(whole.ids, whole.contents, strict=True))
    assert {name for name in known if hashes[name] != known[name]} == {after}
    assert "inspect data.train: goes on after 6 images, which were inspected before" in capsys.readouterr().err


def test_in_an_object_store(asked: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, store = as_a_whole(asked, monkeypatch)[0]["train"], Store(f"fsspec+memory://{tmp_path.name}", "large")
    killed_after(2, asked, store, monkeypatch)
    exchange(tmp_path, whole.ids[0])
    found, unsaved = inspected(asked, store, keeps=True)
    assert found["train"].digest == whole.digest
    assert len(shards_in(store)) == len(SIZES)
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
    first, second, third = (f"{SHARDS}/{name}" for name in shards_in(store)[:3])
    store.write(first, b"PAR1")
    store.write(second, store.read(third))
    assert inspected(asked, store, keeps=True)[0]["train"].digest == whole.digest


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
    killed_after(4, asked, store, monkeypatch)
    monkeypatch.setattr(inspect_large, "SPREAD", COUNT - sum(SIZES[:4]))
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
write, written = inspect_large.Shards.write, []

def killed(shards, name, *what):
    write(shards, name, *what)
    written.append(name)
    if len(written) == 3:
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
    seen = Seen(monkeypatch)
    blueprint = open_blueprint(Request(file, quiet=True), to_write=True)
    assert len(seen.ids) == sum(SIZES[3:])
    assert blueprint.inspected.manifests["train"].digest == whole.digest
    blueprint.inspected.save(store)
    assert shards_in(store) == []


class TestWorkers:
    @pytest.fixture(autouse=True)
    def only_workers_look(self, ray_cluster: None, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """This process looks at small sets alone."""
        looks = inspect_large.looks

        def in_this_process(image_set: Any, ids: Any, config: ImageSetConfig) -> Iterator[Look | str]:
            assert config.kind == "npz" or len(ids) == COUNT or set(ids) <= {BAD}  # which is tried again
            return looks(image_set, ids, config)

        monkeypatch.setattr(inspect_large, "looks", in_this_process)

    @pytest.fixture(autouse=True)
    def few_are_many(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(inspect_large, "SPREAD", 0)

    def test_find_what_threads_find(self, asked: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
        whole, files = as_a_whole(asked, monkeypatch)
        store, connected = store_of(asked), list[bool]()
        found, unsaved = inspected(asked, store, keeps=True, connect=lambda: connected.append(True))
        assert connected == [True] and len(shards_in(store)) == len(SIZES)
        assert (unsaved, found["train"].notes) == (files, whole["train"].notes)

    def test_do_only_what_is_missing(self, asked: Experiment, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        whole, store = as_a_whole(asked, monkeypatch)[0]["train"], store_of(asked)
        inspected(asked, store, keeps=True, connect=lambda: None)
        (last,) = (name for name in shards_in(store) if whole.ids[-1] in ids_in(store, name))
        store.delete(f"{SHARDS}/{last}")
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
        assert (found.digest, given) == (whole.digest, [11, 9])
        assert "the inspection broke off (a node was lost); it goes on with what is missing" in capsys.readouterr().err

    def test_a_run_deletes_the_shards(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = write(folder, inspect="bytes").file
        request = Request(file, ["align.epochs=1", "align.batch_size=8"], quiet=True)
        left = Store((asked := request.experiment()).output, asked.name)
        left.write(f"{SEEN}/images-0123456789abcdef/00000.parquet", b"of an earlier version")
        result = run(request, ("align",))
        assert result.made == {"align": 1}
        seen = [path.name for path in (Path(result.location) / ".seen").glob("images-*")]
        assert len(seen) == 2 and all(name.endswith(".parquet") for name in seen)
        assert not (Path(result.location) / SHARDS).exists()

    def test_bad_images_stop_the_command_with_one_message(self, folder: Path) -> None:
        asked = Request(write(folder).file, ["data.on_bad_image=stop"]).experiment()
        with pytest.raises(
            InputError, match=rf"^data\.train: 1 image is unreadable \({BAD}: cannot be decoded .*\)\. "
        ):
            inspected(asked, store_of(asked), keeps=True, connect=lambda: None)


def test_a_node_that_has_not_the_set_says_so(tmp_path: Path) -> None:
    config = ImageSetConfig(kind="folder", path=str(tmp_path / "nowhere"))
    shards = Shards(Store(str(tmp_path), "x"), config, Fit(8), None)
    done = _inspect_shard(shards, {"name": "x", "image_ids": ["a"]})
    assert "nowhere: there is no such file or folder on the node" in done["problem"]
    assert shards.there() == set()
