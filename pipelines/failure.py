"""How a run ends that could not do its work, or not now."""


class RunFailed(RuntimeError):
    """Work could not be finished. The message says what failed, what is kept and how to go on."""


class Busy(RuntimeError):
    """Another run holds this experiment."""


# How the lines begin that Ray appends to what a task raised.
_ADVICE = ("Failed to ", "To change retry attempts", "This looks like an AWS S3 permissions error")


def reason_of(problem: BaseException) -> str:
    """The line of an exception that says what happened: the last of a worker's traceback, without Ray's own advice."""
    lines = [line.strip() for line in str(problem).splitlines()]
    said = [line for line in lines if line and not line.startswith(_ADVICE)]
    return said[-1] if said else type(problem).__name__
