"""Jobs on one Ray cluster, by way of its job server: submitted under an id of our choice, and followed by that id."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from align_core.errors import reason_of
from pipelines.schedule.job_client import connect
from pipelines.storage.credentials import hide_credentials, without_credentials

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

_TIMEOUT_S = 60.0
_STATUS_CODE = re.compile(r"status code (\d+)")
_FINAL_CODES = {"400", "404", "413"}  # the same request would get the same answer again
T = TypeVar("T")
Status = Literal["running", "succeeded", "failed", "stopped"]
_STATUSES: dict[str, Status] = {"SUCCEEDED": "succeeded", "FAILED": "failed", "STOPPED": "stopped"}


class Unreachable(RuntimeError):
    """The job server does not answer at present, or answers with an error of its own. The request can be repeated."""


class Refused(RuntimeError):
    """The job server rejects this request, and would reject it again."""


@dataclass(frozen=True)
class JobState:
    """What the job server knows of a job.

    Attributes:
        status: `running` also covers a job that has not started yet.
        message: Ray's own description of the state.
        exit_code: of the job's command; None while it runs, and where Ray does not know it.
        began, ended: Unix time in seconds; None where it has not begun or ended.
        labels: the metadata that was submitted with the job.
    """

    status: Status
    message: str
    exit_code: int | None
    began: float | None
    ended: float | None
    labels: Mapping[str, str]


class JobServer:
    """The job server of one cluster. Every method raises Unreachable where the server does not answer."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._client: JobSubmissionClient | None = None

    def check(self) -> None:
        """Raises Unreachable unless the server answers and accepts our token."""
        self.state("witness")  # whether a job has this id does not matter

    def submit(
        self, job: str, entrypoint: str, folder: Path | None, excludes: Sequence[str], labels: Mapping[str, str]
    ) -> bool:
        """Submits a job under the id `job`. Returns False, and submits nothing, where the id is taken already.

        Args:
            job: the submission id.
            entrypoint: the command line, as a shell reads it.
            folder: the working directory, of which a copy is sent; None sends nothing.
            excludes: files of `folder` that are not sent, as patterns of .gitignore.
            labels: metadata by which the job's owner can be recognised.

        Raises Refused.
        """
        environment: dict[str, Any] = {"working_dir": str(folder), "excludes": list(excludes)} if folder else {}

        def send(client: "JobSubmissionClient") -> bool:
            client.submit_job(
                submission_id=job, entrypoint=entrypoint, runtime_env=environment, metadata=dict(labels)
            )  # fmt: skip
            return True

        try:
            return self._request(send)
        except (Refused, Unreachable):
            # The server answers a taken id like any other failure, so ask whether the job exists.
            if self.state(job) is None:
                raise
            return False

    def state(self, job: str) -> JobState | None:
        """The state of a job; None where the cluster has no job with this id."""
        try:
            details = self._request(lambda client: client.get_job_info(job))
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

    def last_line(self, job: str) -> str:
        """The last line that a job printed which is not blank; empty where there is none."""
        try:
            lines = self._request(lambda client: client.get_job_logs(job)).splitlines()
        except Refused:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def _request(self, ask: "Callable[[JobSubmissionClient], T]") -> T:
        """The answer to a request. Raises Refused where the request is at fault, and Unreachable otherwise."""
        from ray.exceptions import AuthenticationError
        from requests.exceptions import ConnectionError as RequestsConnectionError
        from requests.exceptions import Timeout

        try:
            self._client = self._client or connect(self._address, _TIMEOUT_S)
            return ask(self._client)
        except AuthenticationError as problem:
            raise self._unreachable(
                f"it does not accept our token ({reason_of(problem)}); set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
            ) from problem
        except (ConnectionError, RequestsConnectionError, Timeout) as problem:
            raise self._unreachable(f"there is no answer ({type(problem).__name__})") from problem
        except (RuntimeError, ValueError, OSError, KeyError) as problem:
            code = _STATUS_CODE.search(str(problem))
            # Ray's client raises a plain ValueError for what it finds wrong before it sends anything.
            is_final = type(problem) is ValueError if code is None else code[1] in _FINAL_CODES
            # An error while connecting means that whatever answered is not a job server.
            if self._client is not None and is_final:
                raise Refused(reason_of(problem)) from problem
            raise self._unreachable(reason_of(problem)) from problem

    def _unreachable(self, reason: str) -> Unreachable:
        address = without_credentials(self._address)
        return Unreachable(f"no job server could be reached at {address}: {hide_credentials(reason, self._address)}")
