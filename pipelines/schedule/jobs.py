"""Jobs on a Ray cluster, by its job server: submitted once under an id of their own, and followed by it."""

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pipelines.storage.credentials import without_credentials

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

_TIMEOUT_S = 60.0
_STATUS = re.compile(r"status code (\d+)")
_FINAL = {"400", "404", "413"}  # asking again would not change it
_OVERRULING = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
T = TypeVar("T")
Status = Literal["running", "succeeded", "failed", "stopped"]
_STATUSES: dict[str, Status] = {"SUCCEEDED": "succeeded", "FAILED": "failed", "STOPPED": "stopped"}


class Unreachable(RuntimeError):
    """The job server does not answer, or not now. Nothing was decided; it can be asked again."""


class Refused(RuntimeError):
    """The job server will not take this job, whenever it is asked."""


@dataclass(frozen=True)
class JobState:
    """How a job stands. message: Ray's own words. began, ended: seconds. labels: given when it was submitted."""

    status: Status
    message: str
    exit_code: int | None
    began: float | None
    ended: float | None
    labels: Mapping[str, str]


class JobServer:
    """The job server of one cluster. Every call raises Unreachable where it does not answer."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._client: JobSubmissionClient | None = None

    def check(self) -> None:
        """Raises Unreachable unless it answers, and lets us ask for jobs."""
        self.state("witness")

    def submit(
        self, job: str, entrypoint: str, folder: Path | None, left_out: Sequence[str], labels: Mapping[str, str]
    ) -> bool:
        """Submits a job, with a copy of `folder` but for `left_out`. Returns False where the id was taken already.

        Raises Refused.
        """
        environment: dict[str, Any] = {"working_dir": str(folder), "excludes": list(left_out)} if folder else {}

        def send(client: "JobSubmissionClient") -> bool:
            client.submit_job(
                submission_id=job, entrypoint=entrypoint, runtime_env=environment, metadata=dict(labels)
            )  # fmt: skip
            return True

        try:
            return self._asked(send)
        except (Refused, Unreachable):
            # An id that is taken is answered as any failure is: whether the job is there tells.
            if self.state(job) is None:
                raise
            return False

    def state(self, job: str) -> JobState | None:
        """How a job stands; None where the cluster knows of none under this id."""
        try:
            details = self._asked(lambda client: client.get_job_info(job))
        except Refused:
            return None
        return JobState(
            _STATUSES.get(details.status.value, "running"),
            details.message or "",
            details.driver_exit_code,
            None if details.start_time is None else details.start_time / 1000,
            None if details.end_time is None else details.end_time / 1000,
            details.metadata or {},
        )

    def last_words(self, job: str) -> str:
        """The last line that a job printed; empty where it printed none."""
        try:
            lines = self._asked(lambda client: client.get_job_logs(job)).splitlines()
        except Refused:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def _asked(self, ask: "Callable[[JobSubmissionClient], T]") -> T:
        """What `ask` gets. Raises Refused for what is the request's fault, Unreachable for everything else."""
        from ray.exceptions import AuthenticationError
        from requests.exceptions import ConnectionError as RequestsConnectionError
        from requests.exceptions import Timeout

        try:
            self._client = self._client or _client(self._address)
            return ask(self._client)
        except AuthenticationError as problem:
            raise self._unreachable(
                f"it wants another token than ours ({_first_line(problem)}); set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
            ) from problem
        except (ConnectionError, RequestsConnectionError, Timeout) as problem:
            raise self._unreachable(f"nobody answers there ({type(problem).__name__})") from problem
        except (RuntimeError, ValueError, OSError, KeyError) as problem:
            found = _STATUS.search(str(problem))
            is_final = type(problem) is ValueError if found is None else found[1] in _FINAL
            # Without a client it was not asked yet: what answered is no job server.
            if self._client is not None and is_final:
                raise Refused(_last_line(problem)) from problem
            raise self._unreachable(_first_line(problem) if found is None else _last_line(problem)) from problem

    def _unreachable(self, reason: str) -> Unreachable:
        shown = without_credentials(self._address)
        return Unreachable(f"no job server could be reached at {shown}: {reason.replace(self._address, shown)}")


def _client(address: str) -> "JobSubmissionClient":
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from ray.job_submission import JobSubmissionClient

    for chatty in ("ray.dashboard.modules.dashboard_sdk", "ray._private.runtime_env.packaging"):
        logging.getLogger(chatty).setLevel(logging.WARNING)

    class Client(JobSubmissionClient):  # type: ignore[misc]
        """Gives up on a server that never answers: Ray's own waits for ever."""

        def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
            return super()._do_request(method, endpoint, timeout=_TIMEOUT_S, **options)

    with _our_address_counts():
        return Client(address)


@contextmanager
def _our_address_counts() -> Iterator[None]:
    """Ray's client takes the environment's address instead of the one that it is given."""
    kept = {name: os.environ.pop(name) for name in _OVERRULING if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def _first_line(problem: Exception) -> str:
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0]


def _last_line(problem: Exception) -> str:
    """The server sends tracebacks: what was wrong is their last line."""
    return (str(problem).strip().splitlines() or [type(problem).__name__])[-1]
