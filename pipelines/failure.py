"""How a run ends that could not do its work, or not now."""

import re


class RunFailed(RuntimeError):
    """Work could not be finished. The message says what failed, what is kept and how to go on."""


class Busy(RuntimeError):
    """Another run holds this experiment."""


_SAID = re.compile(r"[\w.]*(Error|Exception|Invalid)(:|$)")  # how a traceback's line begins that names an exception
_WRAPPED = "ray.exceptions.UserCodeException"


def reason_of(problem: BaseException) -> str:
    """The line of an exception that says what happened in a worker, without what Ray wraps around it and advises."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    said = [line for line in lines if _SAID.match(line) and not line.startswith(_WRAPPED)]
    return (said or lines or [type(problem).__name__])[-1]
