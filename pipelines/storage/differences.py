"""What differs between two results of the same name, in words: from the inputs that each of them records."""

import json
from collections.abc import Iterator
from typing import Any

_MOST = 3
# What the values of these keys, which are hashes or long, stand for.
_OTHER = {
    "weights": "other weights",
    "images": "other images",
    "architecture": "another architecture",
    "preprocessing": "other preprocessing",
    "revision": "another revision of Witness",
    "independent": "another name",
}


def differences(was: Any, now: Any) -> str:
    """Names the settings that differ, such as `temperature was 4.0, is 16.0`; "" where none does, or none is known.

    Args:
        was: the inputs from which a result was made, as a file has them. Whatever else it may be, nothing is known of
            it.
        now: those from which it would be made now. Tuples in them are lists in a file.
    """
    if not isinstance(was, dict) or not was or not isinstance(now, dict):
        return ""
    old, new = dict(_leaves("", was)), dict(_leaves("", json.loads(json.dumps(now))))
    changed = [key for key in {**new, **old} if old.get(key) != new.get(key)]
    said = list(dict.fromkeys(_said(key, old.get(key), new.get(key)) for key in changed))
    more = f" and {len(said) - _MOST} more" if len(said) > _MOST else ""
    return ", ".join(said[:_MOST]) + more


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The single values within nested settings, by their dotted path. A list counts as one value, a list of networks
    as one per network."""
    if isinstance(value, dict):
        for key, own in value.items():
            yield from _leaves(f"{path}.{key}" if path else str(key), own)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for number, own in enumerate(value, start=1):
            yield from _leaves(f"{path} {number}" if len(value) > 1 else path, own)
    else:
        yield path, value


def _said(path: str, was: Any, now: Any) -> str:
    parents, _, key = path.rpartition(".")
    if parents.rpartition(".")[2] == "code":
        owner = f" of the {parents.rpartition('.')[0]}" if "." in parents else ""
        return f"other code of {key}{owner}"
    if key in _OTHER:
        return f"{_OTHER[key]}{f' of the {parents}' if parents else ''}"
    return f"{path.removeprefix('settings.')} was {_value(was)}, is {_value(now)}"


def _value(value: Any) -> str:
    return "not set" if value is None else str(value)
