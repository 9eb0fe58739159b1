"""Every key that an experiment file may hold."""

from collections.abc import Iterator

from pipelines.experiment.config import Experiment
from pipelines.experiment.explain import known_keys


def keys(path: tuple[str, ...] = ()) -> Iterator[str]:
    """Every dotted key that an experiment file may hold; `*` stands for a name that the user chooses."""
    for key in known_keys(Experiment, path):
        at = (*path, key, "*") if key in ("models", "variants", "attacks", "groups") else (*path, key)
        below = list(keys(at))
        yield from below or [pattern(".".join(at))]


def pattern(key: str) -> str:
    """The key with `*` for names that the user chooses and for the roles of image sets."""
    parts = key.split(".")
    if parts[0] in ("models", "variants", "attacks", "groups") or (parts[0] == "data" and len(parts) > 2):
        parts[1:2] = ["*"]
    return ".".join(parts)


KEYS = set(keys())
