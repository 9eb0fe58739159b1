"""The exception for bad input, and what to say of any other exception.

A message of `InputError` is complete: it says what is wrong, where (a file, a setting, an image) and how to mend it.
"""

import re

# The last line of a traceback: the exception's name, perhaps with its module, then its message. torch.load names what
# it refuses to unpickle in such a line, below advice.
_RAISED = re.compile(r"[\w.]*(Error|Exception|Invalid)(:|$)|WeightsUnpickler error: .")
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")  # and bold type, for terminals
# Ray names its own exception around the text of the one that was raised in a worker.
_WRAPPER = "ray.exceptions.UserCodeException"


class InputError(ValueError):
    """A setting, a file of weights, an image or another input is unusable. Its message needs no traceback beside it."""


def reason_of(problem: BaseException | str) -> str:
    """The one line of an exception, or of its text, that says what happened.

    Where the text contains a traceback, as errors from worker processes do, this is the traceback's last line. In any
    other text it is the first line: libraries say there what failed, and add hints and dumps below it. Codes that set
    colours or bold type on a terminal are left out.

    Returns the name of the exception's type where its text is empty, and "" for an empty string.
    """
    lines = [line.strip() for line in _COLOURS.sub("", str(problem)).splitlines() if line.strip()]
    raised = [line for line in lines if _RAISED.match(line) and not line.startswith(_WRAPPER)]
    if raised:
        return raised[-1]
    if lines:
        return lines[0]
    return "" if isinstance(problem, str) else type(problem).__name__


def named(problem: BaseException) -> str:
    """The type of an exception and what it says, for code that is not ours: a bare message, such as the key of a
    KeyError, says little without the type.
    """
    kind, said = type(problem).__name__, str(problem).strip()
    if not said:
        return f"{kind}, without a message"
    reason = reason_of(problem)
    return reason if reason.startswith(kind) else f"{kind}: {reason}"
