"""Every key that an experiment file may hold."""

from collections.abc import Iterator

from pipelines.experiment.config import Experiment
from pipelines.experiment.explain import known_keys


def keys(place: tuple[str, ...] = ()) -> Iterator[str]:
    """Every dotted key that an experiment file may hold; `*` stands for a name of the user's."""
    for key in known_keys(Experiment, place):
        at = (*place, key, "*") if key in ("models", "variants", "attacks") else (*place, key)
        below = list(keys(at))
        yield from below or [pattern(".".join(at))]


def pattern(key: str) -> str:
    """The key with names of the user's, and the roles of image sets, as `*`."""
    parts = key.split(".")
    if parts[0] in ("models", "variants", "attacks") or (parts[0] == "data" and len(parts) > 2):
        parts[1:2] = ["*"]
    return ".".join(parts)


KEYS = set(keys())
