"""`witness run` and `witness tune` with their output in an object store: the results are the same as on a disk."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from threading import Thread

import pytest
from digits_experiment import NAME, Finished, leave_under_way
from digits_sweep import write_sweep
from s3_server import KEY, SECRET, Gate, S3Server

from pipelines.cli import main
from pipelines.run.request import Request
from pipelines.storage import lease
from pipelines.storage.store import Store

PATIENCE = 480  # seconds
REPORT = ("transfer.csv", "surrogates.csv", "contrasts.csv")


def put(server: S3Server, folder: Path, prefix: str) -> None:
    """Uploads the files below a folder as objects below `prefix`."""
    for file in folder.rglob("*"):
        if file.is_file() and file.name != ".lock":
            with server.filesystem.open_output_stream(f"{server.bucket}/{prefix}/{file.relative_to(folder)}") as stream:
                stream.write(file.read_bytes())


def assert_same_report(finished: Finished, objects: dict[str, bytes]) -> None:
    for table in REPORT:
        assert objects[f"report/{table}"] == (finished.folder / "report" / table).read_bytes()


def assert_no_secret(*contents: bytes) -> None:
    for secret in (KEY.encode(), SECRET.encode(), b"not%2Ffor"):
        assert not [content for content in contents if secret in content]


class TestRun:
    @pytest.mark.slow
    def test_what_is_there_is_kept_and_the_rest_is_made(
        self, finished: Finished, s3: S3Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Missing are a surrogate, one chunk of adversarial images, and the cells that depend on them."""
        _, folder = finished.copied(tmp_path, "models/aligned", "outcomes/aligned/pgd", "report", "experiment.yaml")
        leave_under_way(folder / "adversarial/aligned/pgd", [0, 2])
        put(s3, folder, f"half/{NAME}")
        output = s3.uri("half")
        command = [str(finished.file), "--output", output]
        assert main(["status", *command, "--json"]) == 0
        states = {e["folder"]: e["state"] for e in json.loads(capfd.readouterr().out)["entries"]}
        assert states["models/aligned"] == "missing" and states["models/warm"] == "done"

        assert main(["run", *command, "--json"]) == 0
        printed = capfd.readouterr()
        result = json.loads(printed.out)
        assert result["made"] == {"align": 1, "craft": 1, "evaluate": 9, "report": 1}
        assert result["location"] == f"s3://***@bucket/half/{NAME}"
        objects = s3.objects(f"half/{NAME}")
        assert_same_report(finished, objects)
        assert b"<html" in objects["report/report.html"]
        assert not [path for path in objects if "-chunk-" in path or ".lease" in path or path.startswith(".train")]

        assert main(["run", *command]) == 0
        again = capfd.readouterr()
        assert "nothing to compute" in again.err
        assert s3.objects(f"half/{NAME}") == objects
        assert main(["status", *command, "--json"]) == 0
        assert {entry["state"] for entry in json.loads(capfd.readouterr().out)["entries"]} == {"done"}
        assert_no_secret(*objects.values(), *(text.encode() for text in (*printed, *again)))
        assert_no_secret((finished.file.parent / "mlflow.db").read_bytes())

    def test_a_second_run_at_once_refuses(
        self, finished: Finished, s3: S3Server, capfd: pytest.CaptureFixture[str]
    ) -> None:
        put(s3, finished.folder, f"twice/{NAME}")
        before = s3.objects("twice")
        with Store(s3.uri("twice"), NAME).locked():
            assert main(["run", str(finished.file), "--output", s3.uri("twice")]) == 1
        printed = capfd.readouterr().err
        assert f"s3://***@bucket/twice/{NAME}: another run is at work here (process " in printed
        assert s3.objects("twice") == before

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "sign", [".train/*/checkpoint/curve.json", "adversarial/*/*/*-chunk-*", ".evaluate/adversarial/*/*/*"]
    )
    def test_a_run_resumes_after_the_store_could_not_be_reached(
        self, finished: Finished, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sign: str
    ) -> None:
        prefix = f"{tmp_path.name}/{NAME}"
        absent = ["outcomes", "report"] + ([] if sign.startswith(".evaluate") else ["adversarial", "models"])
        _, folder = finished.copied(tmp_path, *absent)
        put(s3, folder, prefix)
        gate = Gate(s3.port)
        request = Request(finished.file, output=s3.uri(tmp_path.name).replace(str(s3.port), str(gate.port)))
        command = ["run", str(request.source), "--output", str(request.output)]
        Thread(target=_shut_when, args=(gate, lambda: has(s3, prefix, sign)), daemon=True).start()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        # In a process of its own, because the cluster and everything that still runs on it end with that process.
        process = [sys.executable, "-m", "pipelines.cli", *command]
        done = subprocess.run(process, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode == 1
        assert re.search("witness: .*(Could not connect|NETWORK_CONNECTION).*the same command resumes", done.stderr), (
            done.stderr
        )
        assert "Traceback" not in done.stderr
        assert_no_secret(done.stdout.encode(), done.stderr.encode())
        there = s3.objects(prefix)
        gate.open_again()
        monkeypatch.setattr(lease, "STALE_AFTER", timedelta(seconds=-1))  # as if a minute had passed
        assert main(command) == 0
        objects = s3.objects(prefix)
        assert_same_report(finished, objects)
        whole = {path: content for path, content in there.items() if path.startswith(("models", "trained", "clean"))}
        assert {path: objects[path] for path in whole} == whole
        gate.shut()


def has(server: S3Server, prefix: str, pattern: str) -> bool:
    return any(Path(path).match(pattern) for path in server.objects(prefix))


def _shut_when(gate: Gate, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            if condition():
                break
        except OSError:  # an object was deleted while the objects were read
            continue
    gate.shut()


@pytest.mark.slow
def test_a_sweep(
    ray_cluster: None, weights: Path, s3: S3Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = write_sweep(tmp_path, weights)
    command = ["tune", str(file), "--space", "temperature", "--samples", "2", "--output", s3.uri("sweep"), "--json"]
    assert main(command) == 0
    first = json.loads(capfd.readouterr().out)
    assert first["trials"] == {"done": 2}
    objects = s3.objects("sweep")
    assert b"align" in objects[f"{NAME}/sweeps/temperature/best.yaml"]
    assert f"{NAME}-best-temperature/report/report.html" in objects
    assert not [path for path in objects if ".tune/" in path or ".lease/" in path]
    assert_no_secret(*objects.values())
    assert list((tmp_path / "mlartifacts" / NAME).rglob("best.yaml"))  # beside the database
    assert main(command) == 0
    again = capfd.readouterr()
    assert json.loads(again.out)["best"] == first["best"]
    assert "every trial is there already" in again.err
