"""How a run ends that could not do its work."""


class RunFailed(RuntimeError):
    """Work could not be finished. The message says what failed, what is kept and how to go on."""
