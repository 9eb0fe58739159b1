"""Exceptions that end a command with exit code 1. Wrong input is `align_core.errors.InputError`, and exit code 2."""


class RunFailed(RuntimeError):
    """The work could not be finished. The message says what failed, what is kept and how to resume."""


class Busy(RuntimeError):
    """Another run holds the lock on this experiment's folder. Nothing was done; the message says who holds it."""
