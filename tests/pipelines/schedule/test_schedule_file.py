"""The schedule file: the command that an entry becomes, and its mistakes, found before anything is submitted."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_experiment import content

from pipelines.cli import main
from pipelines.schedule import jobs
from pipelines.schedule.file import Entry, Schedule, load_schedule
from pipelines.schedule.history import History, Job, Run

UNUSED = "http://127.0.0.1:1"
SECRET = "s3cr3t-p4ss"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two experiments; another folder is the current one."""
    for name in ("MLFLOW_TRACKING_URI", "RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "experiments").mkdir()
    for name in ("one", "two"):
        (tmp_path / "experiments" / f"{name}.yaml").write_text(yaml.safe_dump(content() | {"name": name}))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path


def write(folder: Path, entries: Any = None, **changes: Any) -> Path:
    one = {"cron": "0 3 * * *", "experiment": "experiments/one.yaml"}
    schedule = {"name": "nightly", "address": UNUSED, "entries": entries if entries is not None else {"all": one}}
    file = folder / "schedule.yaml"
    file.write_text(yaml.safe_dump(schedule | changes))
    return file


def entry(folder: Path, *, output: str | None = None, address: str | None = None, **changes: Any) -> Entry:
    config = {"cron": "0 3 * * *", "experiment": "experiments/one.yaml"} | changes
    (found,) = load_schedule(write(folder, {"all": config}), (), output, address).entries
    return found


class TestTheCommandOfAJob:
    def test_the_experiment_from_a_copy_of_its_folder(self, folder: Path) -> None:
        found = entry(folder)
        output = str(folder / "elsewhere" / "runs")  # results go there wherever the job runs
        assert found.command == ("witness", "run", "one.yaml", "--output", output, "--quiet")
        assert found.working_dir == folder / "experiments"
        assert found.excludes == ()

    def test_overrides_are_checked_and_passed_on_unchanged(self, folder: Path) -> None:
        found = entry(folder, overrides=["targets=[c]", "align.epochs=2"])
        assert found.command[3:7] == ("--set", "targets=[c]", "--set", "align.epochs=2")
        assert found.experiment.align.epochs == 2
        assert "'targets=[c]'" in found.entrypoint  # quoted, because Ray runs it in a shell

    def test_nothing_is_sent_where_the_path_is_absolute(self, folder: Path) -> None:
        path = str(folder / "experiments" / "one.yaml")
        found = entry(folder, experiment=path)
        assert (found.command[2], found.working_dir) == (path, None)

    def test_working_dir(self, folder: Path) -> None:
        found = entry(folder, working_dir=".")
        assert (found.command[2], found.working_dir) == ("experiments/one.yaml", folder)

    def test_results_are_not_sent(self, folder: Path) -> None:
        found = entry(folder, overrides=[f"output={folder}/experiments/runs"])
        assert found.excludes == ("/runs",)

    def test_output_and_address_replace_those_of_every_entry(self, folder: Path) -> None:
        found = entry(folder, address="https://cluster", output=str(folder / "out"))
        assert (found.address, found.experiment.output) == ("https://cluster", str(folder / "out"))
        assert found.command[-3:-1] == ("--output", str(folder / "out"))

    def test_the_address_of_an_entry_before_that_of_the_file(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert entry(folder).address == UNUSED
        assert entry(folder, address=None).address == UNUSED
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://from-the-environment")
        one = {"cron": "0 3 * * *", "experiment": "experiments/one.yaml"}
        (own,) = load_schedule(write(folder, {"all": one | {"address": "http://own"}})).entries
        (none,) = load_schedule(write(folder, {"all": one}, address=None)).entries
        assert (own.address, none.address) == ("http://own", "http://from-the-environment")

    def test_an_object_store_with_a_password_is_not_on_the_command_line(self, folder: Path) -> None:
        store = f"s3://me:{SECRET}@bucket/runs"
        (folder / "experiments" / "one.yaml").write_text(
            yaml.safe_dump(content() | {"name": "one", "output": store, "tracking": "http://tracking"})
        )
        found = entry(folder)
        assert found.experiment.output == store
        assert found.command == ("witness", "run", "one.yaml", "--quiet")


class TestHistoryStore:
    def location(self, schedule: Schedule) -> str:
        return schedule.store.location

    def test_by_default_it_is_in_the_folder_of_the_results(self, folder: Path) -> None:
        assert self.location(load_schedule(write(folder))) == str(folder / "elsewhere/runs/.schedules/nightly")
        assert self.location(load_schedule(write(folder, state="history"))) == str(folder / "history/nightly")

    def test_by_default_it_is_in_the_object_store_of_the_results(self, folder: Path) -> None:
        overrides = ["output=s3://bucket/runs?region=eu", "tracking=http://tracking"]
        schedule = load_schedule(write(folder, {"all": ONE | {"overrides": overrides}}))
        assert schedule.store.output == "s3://bucket/runs/.schedules?region=eu"

    def test_set_changes_the_schedule_file(self, folder: Path) -> None:
        schedule = load_schedule(write(folder), ["state=other", "entries.all.retries=3"])
        assert self.location(schedule) == str(folder / "other/nightly")
        assert schedule.entries[0].config.retries == 3


ONE = {"cron": "0 3 * * *", "experiment": "experiments/one.yaml"}
RENAME = "as all does; rename one of the two experiments, with overrides: [name=one-more]"
TWO = ONE | {"experiment": "experiments/two.yaml"}


@pytest.mark.parametrize(
    ("entries", "changes", "message"),
    [
        ({"all": ONE | {"cron": "61 * * * *"}}, {}, "all.cron: '61 * * * *' is not a cron expression (Bad minute)"),
        ({"all": ONE | {"cron": "@daily"}}, {}, "all.cron: '@daily' is not a cron expression: write five fields"),
        ({"all": ONE | {"cron": 5}}, {}, "entries.all.cron: "),
        ({"all": {"cron": "0 3 * * *"}}, {}, "entries.all.experiment: this key is required"),
        ({"all": ONE | {"retry": 1}}, {}, "entries.all.retry: unknown key; did you mean 'retries'?"),
        ({"all": ONE | {"retries": -1}}, {}, "entries.all.retries: "),
        ({"all": ONE | {"retries": True}}, {}, "entries.all.retries: must be a whole number, not true"),
        ({"all": ONE | {"retries": float("inf")}}, {}, "entries.all.retries: must be a whole number, not the number"),
        ({"all": ONE | {"overrides": ["seed=1", "seed=2"]}}, {}, "--set seed: is given twice"),
        ({"all": ONE, "ALL": TWO}, {}, "entries.all: differs from ALL in capitals alone; rename one"),
        ({7: ONE}, {}, "the key 7 is read as a number; put it in quotes"),
        ({"../all": ONE}, {}, "'../all' is no name"),
        ({}, {}, "entries: "),
        ({"all": ONE}, {"name": None}, "name: "),
        ({"all": ONE}, {"stat": "x"}, "stat: unknown key; did you mean 'state'?"),
        ({"all": ONE, "more": ONE}, {}, "entries.more: writes to "),
        ({"all": ONE, "more": ONE}, {}, RENAME),
        ({"all": ONE | {"overrides": ["targets=[nobody]"]}}, {}, "entries.all: "),
        ({"all": ONE | {"overrides": ["targets=[nobody]"]}}, {}, "targets: there is no model 'nobody'"),
        ({"all": ONE | {"experiment": "experiments/none.yaml"}}, {}, "none.yaml: there is no such file"),
        ({"all": ONE | {"working_dir": "nowhere"}}, {}, "entries.all: working_dir: "),
        ({"all": ONE | {"working_dir": "elsewhere"}}, {}, "does not contain the experiment file"),
        ({"all": ONE | {"overrides": [f"tracking=http://me:{SECRET}@host"]}}, {}, "a URI contains a password"),
        ({"all": ONE | {"overrides": [f"tracking=mysql://host/db?password={SECRET}"]}}, {}, "cluster's environment"),
        ({"all": ONE | {"overrides": ["output=s3://bucket/runs"]}}, {}, "entries.all: tracking: must be given"),
        ({"all": ONE}, {"address": None}, "address: is missing; write the address of the cluster's dashboard"),
        ({"all": ONE}, {"address": "ray://host:10001"}, "address: 'ray://host:10001' is not that of a job server"),
        ({"all": ONE, "more": TWO | {"overrides": ["output=/other"]}}, {}, "state: must be given where the outputs"),
        ({"all": ONE}, {"address": UNUSED}, f"entries.all.address: no job server could be reached at {UNUSED}: "),
        ({"all": ONE}, {"address": f"http://me:{SECRET}@127.0.0.1:1"}, "reached at http://***@127.0.0.1:1: "),
    ],
)  # fmt: skip
def test_bad_input(
    folder: Path, capsys: pytest.CaptureFixture[str], entries: Any, changes: dict[str, Any], message: str
) -> None:
    file = write(folder, entries, **changes)
    before = sorted(folder.rglob("*"))
    for how in ([], ["--once"]):
        assert main(["schedule", str(file), *how]) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"witness: {file}")
        assert message in err
        assert SECRET not in err
    assert sorted(folder.rglob("*")) == before


def test_a_duplicate_entry(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(folder)
    file.write_text(
        file.read_text().replace("entries:\n", "entries:\n  all: {cron: '* * * * *', experiment: x.yaml}\n")
    )
    assert main(["schedule", str(file), "--once"]) == 2
    assert "the key 'all' is given twice" in capsys.readouterr().err


def test_a_history_below_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "file").touch()
    assert main(["schedule", str(write(folder, state="file/state")), "--once"]) == 2
    assert f"state: {folder}/file/state/nightly is not writable; name another folder" in capsys.readouterr().err


def test_a_history_that_is_not_writable(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schedule", str(write(folder, state="/proc/state")), "--once"]) == 2
    assert "state: /proc/state/nightly is not writable; name another folder" in capsys.readouterr().err


def test_list_contacts_no_cluster_and_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(folder, {"all": ONE, "more": TWO | {"cron": "30 4 1 1 *"}})
    before = sorted(folder.rglob("*"))
    assert main(["schedule", str(file), "--list"]) == 0
    all_, more = capsys.readouterr().out.splitlines()
    assert all_.startswith("all: next ") and all_.endswith(" 03:00 UTC; no run yet")
    assert more.endswith("-01-01 04:30 UTC; no run yet")
    assert sorted(folder.rglob("*")) == before


def test_list_obeys_the_other_flags(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(write(folder))
    assert main(["schedule", file, "--list", "--set", "entries.all.cron=30 4 1 1 *"]) == 0
    assert "-01-01 04:30 UTC; no run yet" in capsys.readouterr().out
    store = load_schedule(Path(file), output=str(folder / "out")).store
    job = Job("nightly-all-2026-11-24T0300Z-1", "failed", "why")
    History(store).save(Run("all", "2026-11-24T0300Z", "2026-11-24T0300Z", "failed", [job]))
    assert main(["schedule", file, "--list", "--output", str(folder / "out")]) == 0
    assert capsys.readouterr().out.endswith("last 2026-11-24 03:00 UTC: failed (why), nightly-all-2026-11-24T0300Z-1\n")


class TestServersThatAreNotJobServers:
    def test_a_server_that_never_answers(
        self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(jobs, "_TIMEOUT_S", 0.2)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            address = f"http://127.0.0.1:{silent.getsockname()[1]}"
            assert main(["schedule", str(write(folder)), "--once", "--address", address]) == 2
        assert (
            f"no job server could be reached at {address}: there is no answer (ReadTimeout)" in capsys.readouterr().err
        )

    def test_a_server_of_something_else(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as other:
            threading.Thread(target=other.serve_forever, daemon=True).start()
            address = f"http://127.0.0.1:{other.server_port}"
            assert main(["schedule", str(write(folder)), "--once", "--address", address]) == 2
            other.shutdown()
        assert f"entries.all.address: no job server could be reached at {address}: " in capsys.readouterr().err


def test_once_and_list_exclude_each_other(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["schedule", str(write(folder)), "--once", "--list"])
    assert "not allowed with" in capsys.readouterr().err
