"""Numbers with a default and bounds, as the parts of attacks and the defences have them. Nothing here imports torch."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher, get_close_matches
from typing import Any

from align_core.settings import check_type, described


@dataclass(frozen=True)
class Bound:
    """The default of a number and its bounds, both included. It is a whole number where the default is an int."""

    default: float
    least: float
    most: float


def read_numbers(what: str, written: Mapping[str, Any], bounds: Mapping[str, Bound]) -> dict[str, Any]:
    """All settings of a part: those that are written, once they are checked, and the defaults of the others.

    `what` is the part's name in messages. Raises ValueError, which says what to change, for a setting that there is
    not, and for a number that is out of range or no number.
    """
    for key in written:
        if key not in bounds:
            raise ValueError(f"{what} has no setting {key!r}; {nearest_of(key, bounds)}")
    return {key: _number(f"{key} of {what}", written.get(key), bound) for key, bound in bounds.items()}


def named_part(written: Any, entries: Mapping[str, Any], kind: str) -> tuple[str, dict[str, Any]]:
    """The name and the settings of a part that a file writes as its name, or as keys and values with a name.

    `kind` is what such parts are called in messages, such as `view`. Raises ValueError, which says what to change, for
    anything else, and for a name that is not among the entries.
    """
    if isinstance(written, str):
        written = {"name": written}
    if isinstance(written, Mapping) and "name" not in written:
        raise ValueError(f"the {kind} must be a name, or keys and values with a name, not keys and values without one")
    if not isinstance(written, Mapping) or not isinstance(written.get("name"), str):
        raise ValueError(f"the {kind} must be a name, or keys and values with a name, not {described(written)}")
    name = written["name"]
    if name not in entries:
        raise ValueError(f"there is no {kind} {name!r}; {choice_of(name, entries)}")
    return name, {key: value for key, value in written.items() if key != "name"}


def nearest_of(name: Any, known: Mapping[str, Any]) -> str:
    """The end of a message about an unknown name: the nearest known one, or else all of them."""
    near = near_names(name, known)
    return f"did you mean {near}?" if near else f"there are: {', '.join(known) or 'none'}"


def choice_of(name: Any, known: Mapping[str, Any]) -> str:
    """The end of a message about an unknown name: all that there are, after the nearest one, where one is near."""
    near = near_names(name, known)
    return f"did you mean {near}? There are: {', '.join(known)}" if near else f"choose from {', '.join(known)}"


def near_names(name: Any, known: Iterable[str], least: float = 0.6) -> str:
    """The known name that is nearest to another, whatever their capitals, in quotes; of several, with `or` between.

    It is "" where none is near: of a likeness of `least`, from 0 to 1.
    """
    own, names = str(name).lower(), sorted(known)
    close = get_close_matches(own, [other.lower() for other in names], n=3, cutoff=least)
    likeness = [SequenceMatcher(None, other, own).ratio() for other in close]
    nearest = {other for other, ratio in zip(close, likeness, strict=True) if ratio == likeness[0]}
    return " or ".join(repr(other) for other in names if other.lower() in nearest)


def _number(what: str, value: Any, bound: Bound) -> float:
    if value is None:
        return bound.default
    whole = isinstance(bound.default, int)
    if whole and isinstance(value, float) and value.is_integer():
        value = int(value)
    try:
        number: float = check_type("int" if whole else "float", value)
    except ValueError as problem:
        raise ValueError(f"{what} {problem}") from problem
    if not bound.least <= number <= bound.most:
        raise ValueError(f"{what} must be from {bound.least:g} to {bound.most:g}, not {number:g}")
    return number if whole else float(number)
