"""How a run ends that could not do its work, or not now."""


class RunFailed(RuntimeError):
    """Work could not be finished. The message says what failed, what is kept and how to go on."""


class Busy(RuntimeError):
    """Another run holds this experiment."""
