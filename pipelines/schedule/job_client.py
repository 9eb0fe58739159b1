"""Ray's client of a job server, adapted to a scheduler. Everything here that Ray does not document is in this file.

Ray's `JobSubmissionClient` waits for ever for a server that accepts the connection and never answers, and it has no
parameter for a timeout. Neither has anything below it that could be set from outside: every request is made by
`requests.request`, which overrides the default timeout of sockets. So this client overrides the private method that all
requests pass through. `test_job_client.py` fails, naming the version of Ray, if that method no longer does so.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pipelines.environment import set_defaults

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

_OVERRIDES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


def connect(address: str, timeout_s: float) -> "JobSubmissionClient":
    """A client of the job server at `address`, which has answered a first request.

    Each request raises requests.exceptions.Timeout when the server sends nothing for `timeout_s` seconds. The errors
    of a first request that fails are those of `JobSubmissionClient`.
    """
    set_defaults("ray")
    from ray.job_submission import JobSubmissionClient

    # Otherwise Ray announces every upload of a working directory among the scheduler's own messages.
    for handler in logging.getLogger("ray").handlers:
        handler.setLevel(max(handler.level, logging.WARNING))

    class TimedClient(JobSubmissionClient):  # type: ignore[misc]
        """A client whose requests have a timeout."""

        def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
            return super()._do_request(method, endpoint, **{"timeout": timeout_s, **options})

    with _without_ray_addresses():
        return TimedClient(address)


@contextmanager
def _without_ray_addresses() -> Iterator[None]:
    """Hides the variables that Ray's client prefers to the address that it is given."""
    hidden = {name: os.environ.pop(name) for name in _OVERRIDES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)
