"""What can be wrong with what a user gives: one exception, with a message that says what, where and how to mend it."""


class InputError(ValueError):
    """Bad input: a setting, a file of weights, an image. The message is complete; no traceback is needed."""
