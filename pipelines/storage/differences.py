"""What differs between two results of the same name, in words: from the inputs that each of them records."""

import json
from collections.abc import Iterator, Mapping, Sequence
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


def differences(was: Any, now: Any, names: Mapping[str, Sequence[str]] | None = None) -> str:
    """Names the settings that differ, such as `temperature was 4.0, is 16.0`; "" where none does, or none is known.

    Args:
        was: the inputs from which a result was made, as a file has them. Whatever else it may be, nothing is known of
            it.
        now: those from which it would be made now. Tuples in them are lists in a file.
        names: those of the models in a list, by its key. Models are numbered where there are none, or were others in
            number.
    """
    if not isinstance(was, dict) or not was or not isinstance(now, dict):
        return ""
    now = json.loads(json.dumps(now))
    known = {
        key: own
        for key, own in (names or {}).items()
        if all(len(_networks(one.get(key))) == len(own) for one in (was, now))
    }
    old, new = dict(_leaves("", was, known)), dict(_leaves("", now, known))
    changed = [key for key in {**new, **old} if old.get(key) != new.get(key)]
    said = list(dict.fromkeys(_said(key, old.get(key), new.get(key)) for key in changed))
    more = f" and {len(said) - _MOST} more" if len(said) > _MOST else ""
    return ", ".join(said[:_MOST]) + more


def _leaves(path: str, value: Any, names: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, Any]]:
    """The single values within nested settings, by their dotted path. A list counts as one value, a list of networks,
    or of several lists of them, as one per network."""
    if isinstance(value, dict):
        for key, own in value.items():
            yield from _leaves(f"{path}.{key}" if path else str(key), own, names)
    elif networks := _networks(value):
        numbered = [f"{path} {number}" if len(networks) > 1 else path for number in range(1, len(networks) + 1)]
        paths = [f"model {name}" for name in names[path]] if path in names and len(networks) > 1 else numbered
        for place, own in zip(paths, networks, strict=True):
            yield from _leaves(place, own, names)
    else:
        yield path, value


def _networks(value: Any) -> list[Any]:
    """The items of a list of mappings, or of lists of them; none of any other value."""
    if not isinstance(value, list):
        return []
    items = [own for item in value for own in (item if isinstance(item, list) else [item])]
    return items if any(isinstance(own, dict) for own in items) else []


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
