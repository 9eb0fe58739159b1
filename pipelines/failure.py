"""Exceptions that end a command with exit code 1, and what its message may promise.

Wrong input is `align_core.errors.InputError`, and exit code 2.
"""

from align_core.errors import InputError

RESUMES = "What was finished is kept; the same command resumes"
"""How a message goes on after an interruption, which is over."""

ONCE_MENDED = "What was finished is kept; once the cause is mended, the same command resumes"
"""How a message goes on after a failure that would come again."""


class RunFailed(RuntimeError):
    """The work could not be finished. The message says what failed, what is kept and how to resume."""


class InputChangedError(InputError):
    """An image or weights are others than when they were inspected: what is made of them would have a wrong name.

    So is an image that was inspected by its stored bytes and cannot be decoded: all that is made of the set ends here.
    """


class Busy(RuntimeError):
    """Another run holds the lock on this experiment's folder. Nothing was done; the message says who holds it."""
