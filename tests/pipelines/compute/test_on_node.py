"""What a node lacks is sent to it from the command's node; what cannot be sent is named, with the ways there are."""

import os
import re
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import ray
from bytes_seen import Seen
from hand_made import hand_made
from safetensors.torch import load_file, save_file
from tiny_experiment import write_tiny_experiment

from align_core.errors import InputError
from pipelines.compute import courier, on_node
from pipelines.compute.courier import couriers, sending_files
from pipelines.compute.images import opened
from pipelines.compute.on_node import received
from pipelines.compute.ray_data import WATCH
from pipelines.experiment.config import load_experiment
from pipelines.failure import InputChangedError
from pipelines.stages.payload import network_loader

HERE = re.escape(f"there is no such file or folder on the node {socket.gethostname()}")
WAYS = r"Put it on a shared disk, at the same path on every node, or into an object store \(s3://, gs://, hf://\)$"
PHOTOS = "data.test={kind: folder, path: photos, labels: photos.csv}"


@pytest.fixture
def sending(ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of an experiment whose files are sent, as they are where a cluster may start further nodes."""
    monkeypatch.setattr(courier, "startable_nodes", lambda: [{"CPU": 1.0}])
    monkeypatch.setenv("WITNESS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "experiment"
    folder.mkdir()
    write_tiny_experiment(folder)
    with open(folder / "big.parquet", "wb") as file:
        file.truncate(2_100_000_000)  # which takes no room on the disk
    overrides = [PHOTOS, "data.validation={kind: parquet, path: big.parquet}", "models.earlier={aligned: aligned}"]
    with sending_files(load_experiment(folder / "tiny.yaml", overrides)):
        yield folder


def left_behind(cache: Path) -> list[Path]:
    return list(cache.rglob("*.part"))


class TestSent:
    def test_files_arrive_whole_and_once(self, sending: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(on_node, "_PIECE", 1000)
        for name in ("a.safetensors", "aligned/model.safetensors", "images.npz", "photos.csv"):
            seen, file = Seen(), sending / name
            copy = received(str(file), seen)
            assert copy.read_bytes() == file.read_bytes() and copy.is_relative_to(tmp_path / "cache")
            assert seen.announced == [file.stat().st_size] == [sum(seen.arrived)]
            assert received(str(file), seen) == copy and len(seen.announced) == 1
        assert len(seen.arrived) == 1 and left_behind(tmp_path) == []

    def test_of_a_folder_the_images_that_are_used(self, sending: Path) -> None:
        copy = received(str(sending / "photos"))
        (file,) = (file for file in copy.rglob("*") if file.is_file())
        assert copy.name == "photos" and file == copy / "cat" / "1.png"
        assert file.read_bytes() == (sending / "photos" / "cat" / "1.png").read_bytes()

    def test_processes_of_a_node_receive_it_once(self, sending: Path) -> None:
        seen = Seen()
        with ThreadPoolExecutor(4) as pool:
            copies = list(pool.map(lambda _: received(str(sending / "images.npz"), seen), range(4)))
        assert len(set(copies)) == 1 and sum(seen.arrived) == (sending / "images.npz").stat().st_size

    def test_a_file_that_changed_before_the_next_command_is_sent_anew(self, sending: Path) -> None:
        first = received(str(sending / "b.safetensors"))
        before = (sending / "b.safetensors").stat()
        with open(sending / "b.safetensors", "r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"!")
        os.utime(sending / "b.safetensors", ns=(before.st_atime_ns, before.st_mtime_ns))
        for own in couriers():
            ray.kill(own)
        with sending_files(load_experiment(sending / "tiny.yaml")):
            second = received(str(sending / "b.safetensors"))
        assert second != first and second.read_bytes() == (sending / "b.safetensors").read_bytes()

    def test_pieces_that_arrive_are_progress(self, sending: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(on_node, "_PIECE", 1000)
        shown: list[None] = []
        monkeypatch.setattr(WATCH, "progress", lambda: shown.append(None))
        received(str(sending / "images.npz"))
        assert len(shown) == -(-(sending / "images.npz").stat().st_size // 1000)

    def test_a_process_that_died_is_started_again(self, sending: Path) -> None:
        received(str(sending / "a.safetensors"))
        (own,) = couriers()
        ray.kill(own, no_restart=False)
        assert received(str(sending / "c.safetensors")).read_bytes() == (sending / "c.safetensors").read_bytes()


class TestNotSent:
    def test_what_the_experiment_does_not_name(self, sending: Path, tmp_path: Path) -> None:
        for place in ("/etc/passwd", str(sending / "others.npz"), str(sending / "photos" / "cat")):
            with pytest.raises(InputError, match=rf"^{place}: {HERE}, and it is not sent from the command.*\. {WAYS}"):
                received(place)
        assert not (tmp_path / "cache").exists()

    def test_images_of_more_than_2_gb(self, sending: Path, tmp_path: Path) -> None:
        said = "image sets of up to 2 GB are sent to the nodes, while this one has 2.1 GB"
        with pytest.raises(InputError, match=rf"big\.parquet: {HERE}, and {said}\. {WAYS}"):
            received(str(sending / "big.parquet"))
        assert not (tmp_path / "cache").exists()

    def test_where_nobody_sends(self, ray_cluster: None, tiny_folder: Path) -> None:
        with sending_files(load_experiment(tiny_folder / "tiny.yaml")):  # a cluster of one node
            assert list(couriers()) == []
            with pytest.raises(InputError, match=rf"{HERE}, and it is not sent from the command's node\. {WAYS}"):
                received(str(tiny_folder / "a.safetensors"))

    def test_where_the_process_is_lost(self, sending: Path, tmp_path: Path) -> None:
        place = str(sending / "a.safetensors")
        own, files = on_node._asked(place)
        ray.kill(own)
        (tmp_path / "cache").mkdir()
        said = r"and the process that sends it from the command's node was lost \(.*\)\. Run again"
        with pytest.raises(InputError, match=rf"a\.safetensors: {HERE}, {said}"):
            on_node._receive(own, place, files, tmp_path / "cache" / "x" / "a", lambda _: None)
        assert left_behind(tmp_path) == []

    def test_where_the_disk_has_no_room(self, sending: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WITNESS_CACHE", "/dev/null/cache")
        with pytest.raises(InputError, match=r"a\.safetensors: cannot be kept below /dev/null/cache .*WITNESS_CACHE"):
            received(str(sending / "a.safetensors"))


class TestOpened:
    """What workers call, in this process, which has no courier: as on a node that lacks a file of a cluster of one."""

    def test_a_node_without_the_files_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "path", list(sys.path))
        experiment = hand_made(tmp_path)
        blueprint, data = experiment.blueprint(), experiment.blueprint().experiment.data
        (tmp_path / "images.npz").unlink()  # as on a node to which nobody copied them
        (tmp_path / "near.safetensors").unlink()
        opened.cache_clear()
        with pytest.raises(InputError, match=rf"images\.npz: {HERE}, .*{WAYS}"):
            opened(data.test, data.fit, 1)
        with pytest.raises(InputError, match=rf"near\.safetensors: {HERE}, .*{WAYS}"):
            network_loader(blueprint).load("near", "cpu")

    def test_other_weights_at_the_same_path_are_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "path", list(sys.path))
        loader = network_loader(hand_made(tmp_path).blueprint())
        loader.load("near", "cpu")
        save_file({name: value + 1 for name, value in load_file(tmp_path / "near.safetensors").items()},
                  tmp_path / "near.safetensors")  # fmt: skip
        said = f"This was seen on the node {socket.gethostname()}; where there are others, all must have the same"
        with pytest.raises(InputChangedError, match=rf"models\.near: its weights are not as they were .*{said}"):
            loader.load("near", "cpu")
