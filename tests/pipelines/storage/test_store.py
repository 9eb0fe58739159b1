"""Files in the output folder are complete, one run at a time writes to it, and a failed write loses nothing."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from align_core.errors import InputError
from pipelines.failure import Busy
from pipelines.storage.store import Store, fingerprint_of


@pytest.fixture(params=["disk", "memory", "S3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store on a disk, and in two stores that can neither rename nor lock files."""
    if request.param == "disk":
        yield Store(str(tmp_path / "out"), "tiny")
        return
    if request.param == "S3":
        yield Store(request.getfixturevalue("s3").uri(f"store/{tmp_path.name}"), "tiny")
        return
    memory = Store(f"fsspec+memory://{tmp_path.name}/out/", "tiny")
    yield memory
    memory.delete_folder("")


@pytest.fixture
def disk(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "out"), "tiny")


def files(store: Store) -> set[str]:
    return {f"{folder}/{name}".lstrip("/") for folder, names in store.listing().items() for name in names}


def write_and_fail(store: Store) -> None:
    with store.writing("a/one") as stream:
        stream.write(b"new")
        raise ZeroDivisionError


class TestFiles:
    def test_what_was_written_is_read_back(self, store: Store) -> None:
        store.write("a/b/one", b"1")
        store.write("a/b/one", b"2")
        store.write_json("a/two.json", {"b": 1, "a": [None, "ü"]})
        assert store.read("a/b/one") == b"2"
        assert store.read_json("a/two.json") == {"a": [None, "ü"], "b": 1}
        assert store.open_input("a/b/one").read() == b"2"
        assert store.exists("a/b/one") and not store.exists("a/b") and not store.exists("a/b/two")

    def test_listing(self, store: Store) -> None:
        assert store.listing() == {}
        for path in ("top", "a/one", "a/two", "a/b/three", ".hidden/four"):
            store.write(path, b"")
        assert {folder: sorted(names) for folder, names in store.listing().items()} == {
            "": ["top"], "a": ["one", "two"], "a/b": ["three"], ".hidden": ["four"],
        }  # fmt: skip
        assert store.listing("a/b") == {"a/b": ["three"]}
        assert store.listing("nowhere") == {}

    def test_missing_files(self, store: Store) -> None:
        assert store.read_json("nothing") is None
        with pytest.raises(FileNotFoundError):
            store.read("nothing")
        store.delete("nothing")
        store.delete_folder("nothing")
        assert files(store) == set()

    def test_deleting(self, store: Store) -> None:
        for path in ("a/one", "a/two", "a/b/three", "c/four"):
            store.write(path, b"")
        store.delete("a/one")
        assert files(store) == {"a/two", "a/b/three", "c/four"}
        store.delete_folder("a")
        assert files(store) == {"c/four"}

    @pytest.mark.parametrize("before", [None, b"old"])
    def test_an_exception_while_writing_keeps_the_old_content(self, store: Store, before: bytes | None) -> None:
        if before is not None:
            store.write("a/one", before)
        with pytest.raises(ZeroDivisionError):
            write_and_fail(store)
        assert (store.read("a/one") if before is not None else None) == before
        assert files(store) == ({"a/one"} if before is not None else set())

    def test_a_file_does_not_appear_before_it_is_complete(self, store: Store) -> None:
        store.write("a/one", b"old")
        with store.writing("a/one") as stream, store.writing("a/two") as other:
            stream.write(b"new")
            other.write(b"new")
            assert store.read("a/one") == b"old"
            assert files(store) == {"a/one"}
        assert store.read("a/one") == store.read("a/two") == b"new"

    def test_a_process_killed_while_writing_keeps_the_old_content(self, disk: Store) -> None:
        disk.write("a/one", b"old")
        code = f"""
import os, signal
from pipelines.storage.store import Store
with Store({disk.output!r}, "tiny").writing("a/one") as stream:
    stream.write(b"new")
    stream.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
        assert disk.read("a/one") == b"old"
        assert files(disk) == {"a/one"}

    def test_setting_aside_keeps_the_files(self, store: Store) -> None:
        for path in ("a/b/one", "a/b/two", "a/b/three"):
            store.write(path, path.encode())
        stale = store.set_aside("a/b", ["one", "two"])
        assert stale.startswith(".stale/") and stale.endswith("/a/b")
        assert files(store) == {"a/b/three", f"{stale}/one", f"{stale}/two"}
        assert store.read(f"{stale}/one") == b"a/b/one"

    @pytest.mark.usefixtures("ray_cluster")
    def test_a_store_that_is_sent_to_a_worker_sees_the_same_files(self, store: Store) -> None:
        store.write("a/one", b"1")
        there = ray.get(ray.put(store))
        assert there.read("a/one") == b"1"
        assert there.location == store.location


@pytest.mark.parametrize("output", ["{}/in/../out", "{}//out", "{}/./out", "file://{}/out"])
def test_every_spelling_of_a_path_means_the_same_folder(tmp_path: Path, output: str) -> None:
    (tmp_path / "in").mkdir()
    store = Store(output.format(tmp_path), "tiny")
    store.write("a/one", b"1")
    assert store.listing() == {"a": ["one"]}
    assert (tmp_path / "out" / "tiny" / "a" / "one").read_bytes() == b"1"


class TestWritable:
    def test_a_folder_that_does_not_exist_yet(self, disk: Store, tmp_path: Path) -> None:
        disk.check_writable()
        assert not list(tmp_path.iterdir())

    def test_below_a_file(self, disk: Store, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("")
        with pytest.raises(InputError, match=r"output: .*/out is a file"):
            disk.check_writable()

    @pytest.mark.parametrize("name", ["tiny", "x" * 300])
    def test_whether_it_is_a_folder_is_told_without_writing(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "tiny").write_text("")
        message = f"output: {tmp_path}/tiny is a file" if name == "tiny" else "File name too long"
        with pytest.raises(InputError, match=message):
            Store(str(tmp_path), name).check_folder()

    def test_a_link_that_leads_nowhere(self, tmp_path: Path) -> None:
        (tmp_path / "out").symlink_to(tmp_path / "gone")
        with pytest.raises(InputError, match=r"output: .*/out cannot be read"):
            Store(str(tmp_path / "out"), "tiny").check_writable()

    def test_a_full_disk(self, disk: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        full = open("/dev/full", "wb")  # noqa: SIM115
        monkeypatch.setattr("pipelines.storage.store.tempfile.TemporaryFile", lambda dir: full)
        with pytest.raises(InputError, match=r"cannot be written \(No space left .*\); free some space there, or name"):
            disk.check_writable()

    def test_a_disk_that_fills_up_is_named_with_the_file(self, disk: Store) -> None:
        """The stream that writes knows neither."""

        def fill() -> None:
            with disk.writing("a/b.csv") as stream, open("/dev/full", "wb", buffering=0) as full:
                stream.write(b"1")
                full.write(b"2")

        with pytest.raises(OSError, match=r"No space left on device: '.*tiny/a/b\.csv'") as caught:
            fill()
        assert caught.value.errno == 28
        assert disk.listing("a") == {}

    def test_a_folder_that_the_system_does_not_let_us_write(self) -> None:
        with pytest.raises(InputError, match=r"output: /proc cannot be written .*name another folder with --output"):
            Store("/proc/out", "tiny").check_writable()


class TestLock:
    HOLD = """
import sys
from pipelines.storage.store import Store
with Store(sys.argv[1], "tiny").locked():
    print("held", flush=True)
    sys.stdin.read()
"""

    @pytest.fixture
    def holder(self, disk: Store) -> Iterator[subprocess.Popen[str]]:
        """Another process that holds the lock until its input ends."""
        command = [sys.executable, "-c", self.HOLD, disk.output]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None and process.stdout.readline() == "held\n"
            yield process

    @pytest.mark.parametrize("how", ["it ends", "it is killed"])
    def test_one_process_at_a_time(self, disk: Store, holder: subprocess.Popen[str], how: str) -> None:
        with (
            pytest.raises(Busy, match=rf"out/tiny: another run is at work here \(process {holder.pid} on "),
            disk.locked(),
        ):
            pass
        if how == "it ends":
            assert holder.communicate() == ("", None)
        else:
            holder.kill()
            holder.wait()
        with disk.locked():
            assert disk.read(".lock").startswith(f"process {os.getpid()} on ".encode())

    def test_other_experiments_in_the_same_output_are_not_locked(
        self, disk: Store, holder: subprocess.Popen[str]
    ) -> None:
        other = Store(disk.output, "other")
        with other.locked():
            assert other.read(".lock").startswith(f"process {os.getpid()} on ".encode())

    def test_an_exception_releases_it(self, disk: Store) -> None:
        with pytest.raises(ZeroDivisionError), disk.locked():
            raise ZeroDivisionError
        with disk.locked():
            pass


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"a": 1, "b": [2]}, {"b": [2], "a": 1}, True),
        ({"a": (1, 2)}, {"a": [1, 2]}, True),
        ({"a": [1, 2]}, {"a": [2, 1]}, False),
        ({"a": 1}, {"a": "1"}, False),
        ({"a": 1}, {"a": 1, "b": None}, False),
        ({"a": 0.1}, {"a": 0.1 + 1e-16}, False),
    ],
)
def test_a_fingerprint_depends_on_the_content_alone(one: Any, other: Any, same: bool) -> None:
    assert (fingerprint_of(one) == fingerprint_of(other)) == same
    assert len(fingerprint_of(one)) == 16 and int(fingerprint_of(one), 16) >= 0
