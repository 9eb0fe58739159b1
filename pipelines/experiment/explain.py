"""Explains what is wrong with a file that pydantic refused: the dotted key, the fault, and the nearest known key."""

import dataclasses
import re
import types
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, Tag, ValidationError

from align_core.bounds import near_names
from align_core.settings import described

_TYPES = {"list_type": "a list", "dict_type": "keys and values"}
_LEAST_LIKENESS = 0.5
_TEXT = "Value error, must be text"
CLASSES = {tag: Tag(tag) for tag in ("[AttackConfig]", "[ForeignConfig]", "[MadeElsewhere]")}
"""The tags of the kinds of attacks, which pydantic puts into its findings."""


def explained(problem: ValidationError, root: Any, within: str = "") -> str:
    """Returns pydantic's findings as text, one per line.

    Args:
        problem: what pydantic raised.
        root: the type that was validated; its known keys are suggested for unknown ones.
        within: the dotted key under which `root` stands in the file; empty for the whole file.
    """
    findings = [_finding(error, root, within) for error in _without_choices(problem.errors())]
    return "\n  ".join(findings)


def _without_choices(errors: Sequence[Any]) -> Iterator[Any]:
    """The findings, of which those about one value that may be of several types are one."""
    for parts, group in groupby(errors, key=_before_choice):
        own = list(group)
        if parts is None:
            yield from own
        else:
            shown = (error | {"loc": tuple(part for part in error["loc"] if not _is_choice(part))} for error in own)
            yield from _of_choices(list(shown))


def _before_choice(error: Any) -> tuple[Any, ...] | None:
    """Where the value stands that may be of several types; None for a finding about none."""
    at = next((number for number, part in enumerate(error["loc"]) if _is_choice(part)), None)
    return None if at is None else tuple(error["loc"][:at])


def _is_choice(part: Any) -> bool:
    """Whether a part of a place names one of several types, as pydantic writes it, and not a key."""
    return str(part).startswith(("function-before[", "list[", "dict["))


def _of_choices(errors: Sequence[Any]) -> Sequence[Any]:
    """What is wrong within the value, where it is of one of the types, and else which types these are."""
    longest = max(len(error["loc"]) for error in errors)
    if longest > len(errors[0]["loc"]):
        return [error for error in errors if len(error["loc"]) == longest]
    others = [_TYPES[error["type"]] for error in errors[1:] if error["type"] in _TYPES]
    if not others or not str(errors[0]["msg"]).startswith(_TEXT):
        return errors
    wanted = ", ".join(["text", *others[:-1]])
    message = f"must be {wanted} or {others[-1]}, not {described(errors[0]['input'])}"
    return [errors[0] | {"type": "value_error", "msg": message}]


def _finding(error: Any, root: Any, within: str) -> str:
    parts = [part for part in error["loc"] if not str(part).startswith(("function-", "[key]"))]
    path = [part for part in parts if part not in CLASSES]
    key = ".".join(str(part) for part in ([within] if within else []) + path)
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        others = _elsewhere(str(path[-1]), root, parts[:-1], within)
        return f"{key}: unknown key{others or nearest(str(path[-1]), known_keys(root, parts[:-1]))}"
    if error["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return f"{key}: this key is required"
    if error["type"] in ("dataclass_type", "model_type", "dict_type"):
        return f"{key}: must hold keys and values"
    given = error["input"]
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] in ("list_type", "tuple_type"):
        message = f"must be a list, in square brackets, not {described(given)}"
    elif error["type"] == "literal_error":
        wanted = str(error["ctx"]["expected"])
        near = did_you_mean(str(given), re.findall("'([^']*)'", wanted)) if isinstance(given, str) else ""
        message = f"must be {wanted}, not {described(given)}{near}"
    elif error["type"] != "value_error" and isinstance(given, str | int | float | bool):
        message += f" (given: {str(given)[:60]!r})"
    return f"{key}: {message}" if key else message


def nearest(name: str, known: Iterable[object]) -> str:
    """Returns the end of a message about an unknown name: `; did you mean X?`, or else the names that there are.

    Names that are equally near are named together.
    """
    names = sorted(map(str, known))
    if not names:
        return "; there are none"
    return did_you_mean(name, names) or f"; there are: {', '.join(names)}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns `; did you mean X?` with the nearest of the known names; "" for none near it."""
    near = near_names(name, known, _LEAST_LIKENESS)
    return f"; did you mean {near}?" if near else ""


def _elsewhere(name: str, root: Any, section: Sequence[Any], within: str) -> str:
    """`; did you mean SECTION.KEY?` where a section below this one, or the one above it, has a key of this name."""
    places = [[*section, below] for below in known_keys(root, section)] + ([list(section[:-1])] if section else [])

    def key(place: Sequence[Any]) -> str:
        return ".".join(str(part) for part in ([within] if within else []) + [*place, name] if part not in CLASSES)

    # Above a kind of attacks stand those of all kinds, under the very key that this kind has not.
    found = [key(place) for place in places if name in known_keys(root, place) and key(place) != key(section)]
    return f"; did you mean {' or '.join(found)}?" if found else ""


def known_keys(kind: Any, path: Sequence[Any]) -> list[str]:
    """Returns the keys that may stand at a path below a type.

    Args:
        kind: a pydantic model, a dataclass, or a type made of them (optional, annotated, a dictionary's values).
        path: the keys that lead there, outermost first. Where there is a choice, as between kinds of attacks, a class
            in brackets may say which is meant. At a path that leads to a plain value there are none.
    """
    origin = get_origin(kind)
    if origin is Annotated:
        return known_keys(get_args(kind)[0], path)
    if origin in (Union, types.UnionType):
        chosen, below = get_args(kind), path
        if path and path[0] in CLASSES:
            chosen, below = tuple(option for option in chosen if CLASSES[path[0]] in get_args(option)), path[1:]
        return list(dict.fromkeys(key for option in chosen for key in known_keys(option, below)))
    if origin is dict:
        return known_keys(get_args(kind)[1], path[1:]) if path else []
    if isinstance(kind, type) and (dataclasses.is_dataclass(kind) or issubclass(kind, BaseModel)):
        hints = {name: hint for name, hint in get_type_hints(kind, include_extras=True).items() if name[0] != "_"}
        known = (
            {entry.name: entry.name for entry in dataclasses.fields(kind)}
            if dataclasses.is_dataclass(kind)
            else {field.alias or name: name for name, field in kind.model_fields.items()}
        )
        return known_keys(hints.get(known.get(str(path[0]), "")), path[1:]) if path else sorted(known)
    return []
