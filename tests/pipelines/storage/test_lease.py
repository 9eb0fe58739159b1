"""In an object store, too, one run works at a time, and a run that was killed blocks others for a minute only."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier

import pytest
from s3_server import S3Server, s3_server

from pipelines.failure import Busy
from pipelines.storage import lease
from pipelines.storage.store import Store

HOLD = """
import sys
from pipelines.storage.store import Store
with Store(sys.argv[1], "tiny").locked():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def store(s3: S3Server, tmp_path: Path) -> Store:
    return Store(s3.uri(f"leases/{tmp_path.name}"), "tiny")


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Store]:
    """A store that does not report when its objects were written."""
    store = Store(f"fsspec+memory://{tmp_path.name}/out", "tiny")
    yield store
    store.delete_folder("")


@pytest.fixture
def holder(store: Store) -> Iterator["subprocess.Popen[str]"]:
    """Another process that holds the lease until its input ends."""
    command = [sys.executable, "-c", HOLD, store.output]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process


def leases(store: Store) -> list[str]:
    return store.listing(".lease").get(".lease", [])


def take(store: Store) -> None:
    with store.locked():
        assert len(leases(store)) == 1


class TestLease:
    def test_one_run_at_a_time(self, store: Store, holder: "subprocess.Popen[str]") -> None:
        message = (
            rf"tiny: another run is at work here \(process {holder.pid} on .* since 20.* UTC; its lease was renewed \d"
        )
        with pytest.raises(Busy, match=message):
            take(store)
        assert len(leases(store)) == 1
        assert holder.communicate() == ("", None)
        assert leases(store) == []
        take(store)

    def test_the_lease_of_a_killed_run_is_taken_when_it_is_stale(
        self, store: Store, holder: "subprocess.Popen[str]", monkeypatch: pytest.MonkeyPatch
    ) -> None:
        holder.kill()
        holder.wait()
        with pytest.raises(Busy, match="If that run was killed, try again when its lease is 60 s old"):
            take(store)
        monkeypatch.setattr(lease, "STALE_AFTER", timedelta(seconds=-1))  # as if the minute had passed
        take(store)
        assert leases(store) == []

    @pytest.mark.parametrize(("age", "shown"), [(-5, "0"), (50, r"5\d"), (70, None)])
    def test_ages_come_from_the_holder_if_the_store_reports_none(
        self, memory: Store, age: int, shown: str | None
    ) -> None:
        """A negative age: the holder's clock may be fast."""
        then = datetime.now(UTC) - timedelta(seconds=age)
        memory.write_json(".lease/other.json", {"who": "somebody", "renewed": then.isoformat()})
        if shown is None:
            take(memory)
            return
        with pytest.raises(Busy, match=rf"\(somebody; its lease was renewed {shown} s ago\)"):
            take(memory)

    def test_it_is_renewed_while_it_is_held(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lease, "RENEWED_EVERY", 0.05)
        with store.locked():
            (name,) = leases(store)
            first = json.loads(store.read(f".lease/{name}"))
            end = time.monotonic() + 60
            while json.loads(store.read(f".lease/{name}"))["renewed"] == first["renewed"]:
                assert time.monotonic() < end
            assert json.loads(store.read(f".lease/{name}"))["who"] == first["who"]
        assert leases(store) == []

    def test_a_lease_that_was_taken_over_is_not_renewed(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lease, "RENEWED_EVERY", 0.05)
        with store.locked():
            own = f".lease/{leases(store)[0]}"
            store.delete(own)
            time.sleep(0.5)
            store.delete(own)  # a renewal that had begun by then wrote it again
            time.sleep(0.5)
            assert leases(store) == []

    def test_of_runs_that_start_at_once_never_two_hold_it(self, store: Store) -> None:
        inside: list[int] = []
        start = Barrier(3)

        def enter(number: int) -> bool:
            start.wait()
            try:
                with store.locked():
                    inside.append(number)
                    time.sleep(0.2)
                    assert inside == [number]
                    inside.remove(number)
            except Busy:
                return False
            return True

        with ThreadPoolExecutor(3) as pool:
            for _ in range(3):
                list(pool.map(enter, range(3)))
        take(store)

    def test_of_runs_that_start_at_once_one_holds_it(self, store: Store) -> None:
        """S3 writes on conditions, so that they take turns, and never do all of them step back."""
        start, over = Barrier(4), Barrier(4)

        def enter(number: int) -> bool:
            start.wait()
            try:
                with store.locked():
                    over.wait(60)
            except Busy:
                over.wait(60)
                return False
            return True

        with ThreadPoolExecutor(4) as pool:
            for _ in range(3):
                assert sum(pool.map(enter, range(4))) == 1
        assert store.listing() == {}

    def test_a_turn_that_a_killed_run_left_is_waited_for_and_removed(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lease, "_LONGEST_TURN", 0.3)
        store.write(".lease.turn", b"{}")
        take(store)
        assert store.listing() == {}

    def test_other_experiments_in_the_same_output_are_not_locked(
        self, store: Store, holder: "subprocess.Popen[str]"
    ) -> None:
        other = Store(store.output, "other")
        with other.locked():
            assert (len(leases(other)), len(leases(store))) == (1, 1)

    def test_an_exception_releases_it(self, store: Store) -> None:
        with pytest.raises(ZeroDivisionError), store.locked():
            raise ZeroDivisionError
        assert leases(store) == []

    @pytest.mark.slow
    def test_a_store_that_stopped_does_not_hide_the_first_error(self, tmp_path: Path) -> None:
        with s3_server(tmp_path / "server.log") as server:
            store = Store(server.uri("runs"), "tiny")
            with pytest.raises(ZeroDivisionError):
                self.work_and_fail(store, server)

    def work_and_fail(self, store: Store, server: S3Server) -> None:
        with store.locked():
            server.stop()
            raise ZeroDivisionError


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"null", b'{"who": "x"', b'{"who": 1, "renewed": "x"}', b"\0\xff"]
)
def test_what_is_no_lease_holds_nothing(memory: Store, content: bytes) -> None:
    memory.write(".lease/.DS_Store", content)
    with memory.locked():
        with pytest.raises(Busy), memory.locked():
            pytest.fail("two runs hold the lease")
        assert memory.read(".lease/.DS_Store") == content  # a file of another program is left alone
