"""Ray's job client with a timeout, against servers made here: no cluster is started.

The timeout depends on a private method of Ray. If these tests fail after an upgrade of Ray, the docstring of
pipelines/schedule/job_client.py says what the method has to do.
"""

import inspect
import json
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.job_submission import JobSubmissionClient
from requests.exceptions import Timeout

from pipelines.schedule.job_client import connect
from pipelines.schedule.jobs import JobServer, Refused, Unreachable

CHANGED = (
    f"Ray {ray.__version__} no longer sends all requests of JobSubmissionClient through _do_request(method, endpoint, "
    "**options), where pipelines/schedule/job_client.py sets the timeout; find another way to set it"
)
TRACEBACK = """Traceback (most recent call last):
  File "job_head.py", line 412, in submit_job
    raise ValueError("not this one")
RuntimeError: the job supervisor died
"""


class Server(ThreadingHTTPServer):
    """A job server that introduces itself, then answers as the test wants: (status code, text), or never (None)."""

    def __init__(self) -> None:
        self.answer: Callable[[str, str], tuple[int, str] | None] = lambda method, path: None
        self.stopped = threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        version = (200, json.dumps({"ray_version": ray.__version__}))
        answer = version if self.path == "/api/version" else self.server.answer(self.command, self.path)
        if answer is None:
            self.server.stopped.wait(60)
            return
        self.send_response(answer[0])
        self.end_headers()
        self.wfile.write(answer[1].encode())

    do_GET = do_PUT = do_POST = do

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.stopped.set()
        running.shutdown()


def test_the_private_method_has_its_signature() -> None:
    method = getattr(JobSubmissionClient, "_do_request", None)
    assert method is not None, CHANGED
    parameters = inspect.signature(method).parameters
    assert list(parameters)[:3] == ["self", "method", "endpoint"], CHANGED
    assert any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()), CHANGED


@pytest.mark.parametrize("request_name", ["get_job_info", "get_job_logs", "submit_job", "submit_job with a folder"])
def test_every_request_has_a_timeout(server: Server, tmp_path: Path, request_name: str) -> None:
    client = connect(server.address, timeout_s=0.2)
    requests: dict[str, Callable[[], object]] = {
        "get_job_info": lambda: client.get_job_info("job"),
        "get_job_logs": lambda: client.get_job_logs("job"),
        "submit_job": lambda: client.submit_job(entrypoint="true"),
        "submit_job with a folder": lambda: client.submit_job(
            entrypoint="true", runtime_env={"working_dir": str(tmp_path)}
        ),
    }
    (tmp_path / "experiment.yaml").touch()
    raised: list[BaseException] = []

    def ask() -> None:
        try:
            requests[request_name]()
        except Exception as problem:
            raised.append(problem)

    # Without a timeout the request would never return, so it is made in a thread that the test can abandon.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout=20)
    assert not thread.is_alive(), CHANGED
    assert [isinstance(problem, Timeout) for problem in raised] == [True], raised


def test_the_given_address_takes_precedence_over_the_environment(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:2")
    client = connect(server.address, timeout_s=5)
    assert client.get_address() == server.address
    assert os.environ["RAY_API_SERVER_ADDRESS"] == "http://127.0.0.1:1"
    assert os.environ["RAY_ADDRESS"] == "http://127.0.0.1:2"


def test_an_upload_is_not_announced(server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def answer(method: str, path: str) -> tuple[int, str]:
        if path == "/api/jobs/":
            return 200, json.dumps({"job_id": "job", "submission_id": "job"})
        return (404, "") if method == "GET" else (200, "")

    server.answer = answer
    (tmp_path / "experiment.yaml").touch()
    assert JobServer(server.address).submit("job", "true", tmp_path, (), {})
    assert capfd.readouterr().err == ""


class TestErrors:
    """The line of an error that the user sees."""

    def test_of_a_traceback_it_is_the_last_line(self, server: Server) -> None:
        server.answer = lambda method, path: (400, TRACEBACK) if method == "POST" else (404, "no such job")
        with pytest.raises(Refused, match=r"^RuntimeError: the job supervisor died$"):
            JobServer(server.address).submit("job", "true", None, (), {})

    def test_an_internal_error_leaves_the_server_unreachable(self, server: Server) -> None:
        server.answer = lambda method, path: (500, TRACEBACK)
        jobs = JobServer(server.address)
        with pytest.raises(Unreachable) as raised:
            jobs.check()
        problem = "RuntimeError: the job supervisor died"
        assert str(raised.value) == f"no job server could be reached at {server.address}: {problem}"

    def test_a_short_answer_is_passed_on(self, server: Server) -> None:
        server.answer = lambda method, path: (503, "come back later")
        with pytest.raises(Unreachable, match="status code 503: come back later"):
            JobServer(server.address).check()

    def test_a_rejected_token(self, server: Server) -> None:
        server.answer = lambda method, path: (403, "Forbidden")
        with pytest.raises(Unreachable, match=r"it does not accept our token \(.*\); set RAY_AUTH_MODE=token"):
            JobServer(server.address).check()
