"""What all settings have in common: their types are exact and their numbers finite, in a file as from Python.

`true` is no number here, and neither is `"4"`: a value of the wrong type is a slip, which would otherwise go unnoticed.
Nothing here imports torch or pydantic.
"""

import types
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import lru_cache, partial
from numbers import Integral, Real
from os import PathLike, fspath
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

_LARGEST = {"int": 2**63 - 1, "float": 3e38}
"""Largest absolute value of a number: that of an int64, and about that of float32, in which networks compute."""

_WANTED: dict[str, tuple[type, str]] = {
    "int": (Integral, "a whole number"),
    "float": (Real, "a number"),
    "bool": (bool, "true or false"),
    "str": (str, "text"),
}
"""Name of a type -> the Python values that count as it, and its name in messages."""

_NAMES = {str: "text", list: "a list", dict: "keys and values"}


class Settings:
    """Base of the frozen dataclasses that hold settings. Raises ValueError, naming the setting, for a wrong type.

    Where text is wanted, a path (`pathlib.Path`) is taken too, and kept as text.

    pydantic, which reads them from files, finds the same checks by the two names that begin with underscores.
    """

    __pydantic_config__: ClassVar[dict[str, str | bool]] = {"extra": "forbid", "allow_inf_nan": False}

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Callable[[Any], Any]) -> Any:
        return strict(handler(source), cls)

    def __post_init__(self) -> None:
        hints: dict[str, Any] = _hints(type(self))  # type: ignore[arg-type]
        for name, hint in hints.items():
            value = getattr(self, name)
            if isinstance(value, PathLike):  # a path is kept as text
                object.__setattr__(self, name, value := fspath(value))
            try:
                _check(hint, value)
            except ValueError as problem:
                raise ValueError(f"{name} {problem}") from problem


def check_type(kind: str, value: Any) -> Any:
    """Returns the value, and a path as text.

    Raises ValueError unless it is of the type `kind`: `int`, `float`, `bool` or `str`.
    """
    value = fspath(value) if kind == "str" and isinstance(value, PathLike) else value
    accepted, wanted = _WANTED[kind]
    is_of_the_kind: bool = isinstance(value, accepted)
    if not is_of_the_kind or (isinstance(value, bool) and kind != "bool"):
        raise ValueError(f"must be {wanted}, not {described(value)}{_mend(kind, value)}")
    if kind == "float" and not abs(value) <= _LARGEST[kind]:
        raise ValueError(f"must be a finite number of at most 3e38, not {value}")
    if kind == "int" and abs(value) > _LARGEST[kind]:
        raise ValueError("must be a whole number below 2^63")
    return value


def described(value: Any) -> str:
    """A value as messages show it, with its type in plain words: `the text '4'`, `the number 4`, `a list`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {value[:60]!r}"
    if isinstance(value, Real):
        return f"the number {str(value)[:60]}"
    if isinstance(value, Mapping):
        return "keys and values"
    name = type(value).__name__
    return f"a {name}" if isinstance(value, list | tuple | set) else f"a value of type {name}"


def _mend(kind: str, value: Any) -> str:
    """The end of a message that a value is of the wrong type, where the mend is known."""
    if kind == "str" and isinstance(value, bool):
        return "; put the word in quotes"
    if kind == "str" and isinstance(value, Real):
        return f"; put it in quotes: '{str(value)[:60]}'"
    if kind in ("int", "float") and isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return ""
        return "; leave the quotes out"
    return ""


def strict(schema: Any, cls: type) -> Any:
    """Returns pydantic's core schema of a class, in which `check_type` sees every plain value before pydantic does.

    Other classes within it are left as they are: they have this base, or another that does the same.
    """
    if isinstance(schema, list | tuple):
        return type(schema)(strict(item, cls) for item in schema)
    if not isinstance(schema, dict) or (schema.get("type") in ("dataclass", "model") and schema["cls"] is not cls):
        return schema
    inner = {key: strict(value, cls) for key, value in schema.items()}
    kind = schema.get("type")
    if kind not in _WANTED:
        return inner
    function = _whole_number if kind == "int" else partial(check_type, kind)
    return {"type": "function-before", "function": {"type": "no-info", "function": function}, "schema": inner}


def _whole_number(value: Any) -> Any:
    """Checks an integer of a file, in which 1e3 is one too."""
    return check_type("int", int(value) if isinstance(value, float) and value.is_integer() else value)


@lru_cache
def _hints(cls: Any) -> dict[str, Any]:
    """The type of every field. One whose default is None may be None: a later step fills it in."""
    hints = get_type_hints(cls)
    return {
        entry.name: hints[entry.name] | None if entry.default is None else hints[entry.name] for entry in fields(cls)
    }


def _check(hint: Any, value: Any) -> None:
    """Raises ValueError unless the value is of the type; what dictionaries hold is not looked at."""
    kind, options = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, types.UnionType):
        if value is None and type(None) in options:
            return
        several = [option for option in options if option is not type(None)]
        for option in several:
            try:
                return _check(option, value)
            except ValueError:
                continue
        names = [_NAMES.get(get_origin(option) or option) for option in several]
        if len(several) == 1 or None in names:
            return _check(several[0], value)
        raise ValueError(f"must be {', '.join(map(str, names[:-1]))} or {names[-1]}, not {described(value)}")
    elif kind is Literal:
        if value not in options:
            raise ValueError(f"must be one of {', '.join(map(str, options))}, not {described(value)}")
    elif kind is tuple:
        if not isinstance(value, tuple | list) or (Ellipsis not in options and len(value) != len(options)):
            raise ValueError(f"must be a tuple of {'' if Ellipsis in options else len(options)} values")
        for item in value:
            _check(options[0], item)
    elif getattr(kind, "__name__", "") in _WANTED:
        check_type(kind.__name__, value)
    elif kind is not Any and not isinstance(value, kind):
        raise ValueError(f"must be of type {kind.__name__}, not {described(value)}")
