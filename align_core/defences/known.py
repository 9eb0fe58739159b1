"""The defences there are, with their settings. Nothing here imports torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NamedTuple

from align_core.settings import check_type


class Wrap(NamedTuple):
    """One defence around a model: a name in `DEFENCES`, and every setting of it."""

    name: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Setting:
    """The default of a number and its bounds, both included. It is a whole number where the default is an int."""

    default: float
    least: float
    most: float


@dataclass(frozen=True)
class Defence:
    """What a defence does, with its paper, and the settings of the function in `<name>.py`."""

    what: str
    settings: Mapping[str, Setting]


DEFENCES: dict[str, Defence] = {
    "jpeg": Defence(
        "the image is stored as JPEG and read again (Guo et al., 1711.00117)", {"quality": Setting(75, 1, 100)}
    ),
    "bits": Defence(
        "pixels are rounded to 2^depth levels (feature squeezing; Xu et al., 1704.01155)", {"depth": Setting(5, 1, 8)}
    ),
    "median": Defence(
        "each pixel becomes the median of a square around it (feature squeezing; Xu et al., 1704.01155)",
        {"size": Setting(2, 2, 31)},
    ),
    "resize_pad": Defence(
        "the image is shrunk at random and placed at random on black (Xie et al., 1711.01991)",
        {"smallest": Setting(0.9, 0.01, 1)},
    ),
}
"""Name of a wrap -> the defence. A new one is a line here and a file of its name."""


def read_wrap(name: str, written: Mapping[str, Any]) -> Wrap:
    """A defence with the settings that a file gives, and the defaults of the others.

    Raises ValueError, which says what to change, for a name or a setting that there is not, or a number out of range.
    """
    if name not in DEFENCES:
        raise ValueError(f"there is no wrap {name!r}; {_mend(name, DEFENCES)}")
    settings = DEFENCES[name].settings
    for key in written:
        if key not in settings:
            raise ValueError(f"wrap {name} has no setting {key!r}; {_mend(key, settings)}")
    return Wrap(name, {key: _number(f"{key} of wrap {name}", written.get(key), own) for key, own in settings.items()})


def _mend(name: str, known: Mapping[str, Any]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"


def _number(what: str, value: Any, setting: Setting) -> float:
    if value is None:
        return setting.default
    whole = isinstance(setting.default, int)
    try:
        number: float = check_type("int" if whole else "float", value)
    except ValueError as problem:
        raise ValueError(f"{what} {problem}") from problem
    if not setting.least <= number <= setting.most:
        raise ValueError(f"{what} must be from {setting.least:g} to {setting.most:g}, not {number:g}")
    return number if whole else float(number)
