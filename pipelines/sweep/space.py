"""A search space: the settings that a sweep may try, read from a file in `tune_spaces` or a user's own."""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice, product
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, TypeAdapter, ValidationError, model_validator

import tune_spaces
from align_core.align_config import AlignConfig
from align_core.errors import InputError
from pipelines.experiment.config import Experiment
from pipelines.experiment.explain import explained, known_keys, nearest
from pipelines.experiment.section import Section
from pipelines.experiment.yaml_file import read_yaml
from pipelines.sweep.entry import Entry, known_part_keys, settled
from pipelines.sweep.settings import WITNESSES, Settings, label_of

# Combinations of extreme values that are checked before any trial; a space with very many keys has more of them.
_MOST_CORNERS = 2_000
_MOST_WITNESSES = 12
_STEM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
# These keys say how the work is spread and saved. They change nothing that a sweep measures.
_NOT_SEARCHED = ("align.workers", "align.checkpoint_steps")
_EARLY_STOP = "align.early_stop"


class Dimension(Section):
    """One searched key of a space file: a range (`low`, `high`, `scale`), or `choices`, or `subsets_of: witnesses`.

    Attributes:
        why: a remark for the reader of the file; it has no effect.
        low, high: the ends of a range, both included. scale: how it is sampled; `integer` is whole numbers only.
        grid: the values of a range that a grid search tries.
        choices: the values themselves.
        subsets_of: every non-empty subset of the experiment's witnesses is a choice.
    """

    why: str
    low: float | None = None
    high: float | None = None
    scale: Literal["linear", "log", "integer"] = "linear"
    grid: list[float] | None = Field(default=None, min_length=1)
    choices: list[Any] | None = None
    subsets_of: Literal["witnesses"] | None = None

    @model_validator(mode="after")
    def _is_one_kind(self) -> "Dimension":
        is_range = self.low is not None or self.high is not None
        if is_range + (self.choices is not None) + (self.subsets_of is not None) != 1:
            raise ValueError("give either low and high, or choices, or subsets_of")
        if self.choices == []:
            raise ValueError("choices is empty; name at least one value")
        if not is_range and (self.grid is not None or self.scale != "linear"):
            given = "grid" if self.grid is not None else "scale"
            raise ValueError(f"{given} goes with a range; choices are tried as they are")
        for what, values in (("the choice", self.choices or []), ("grid:", self.grid or [])):
            twice = [value for value in values if values.count(value) > 1 and not isinstance(value, bool)]
            if twice:
                raise ValueError(f"{what} {_number_or_label(twice[0])} is given twice")
        if is_range:
            self._check_range()
        return self

    def _check_range(self) -> None:
        if self.low is None or self.high is None:
            raise ValueError("a range needs both low and high")
        if self.low >= self.high:
            raise ValueError(f"the range from {self.low:g} to {self.high:g} is empty; low must be below high")
        if self.scale == "log" and self.low <= 0:
            raise ValueError(f"a log scale needs a low above 0, not {self.low:g}")
        whole = [self.low, self.high, *(self.grid or [])]
        if self.scale == "integer" and any(value != int(value) for value in whole):
            raise ValueError("scale: integer needs whole numbers for low, high and grid")
        for value in self.grid or []:
            if not self.low <= value <= self.high:
                raise ValueError(f"grid: {value:g} lies outside the range from {self.low:g} to {self.high:g}")

    def value(self, drawn: float) -> float | int:
        """Returns the setting for a number drawn from the range: rounded to four digits, so that it is readable."""
        assert self.low is not None and self.high is not None
        if self.scale == "integer":
            return int(drawn)
        return min(max(float(f"{drawn:.4g}"), self.low), self.high)

    def holds(self, value: Any) -> bool:
        """Tells whether this is a number within the range, and a whole one where the scale is `integer`."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        assert self.low is not None and self.high is not None
        return self.low <= value <= self.high and (self.scale != "integer" or value == int(value))


@dataclass(frozen=True)
class Space:
    """A named space, checked against one surrogate.

    Attributes:
        name: the space's name, which its sweep's folder has too. why: the file's remark on what it is for.
        ranges: the keys that have a range. choices: the values of every other key.
    """

    name: str
    why: str
    ranges: Mapping[str, Dimension]
    choices: Mapping[str, list[Any]]

    @property
    def keys(self) -> list[str]:
        """The searched keys, in the order in which tables show them: ranges first."""
        return [*self.ranges, *self.choices]

    def grid(self) -> dict[str, list[Any]]:
        """Returns the values of each key; their product is the grid. Raises InputError for a range without `grid`."""
        for key, dimension in self.ranges.items():
            if dimension.grid is None:
                raise InputError(f"space {self.name}: {key}: a grid needs `grid:`, the values to try of this range")
        tried = {key: [int(v) if d.scale == "integer" else v for v in d.grid or ()] for key, d in self.ranges.items()}
        return {**tried, **self.choices}

    def holds(self, settings: Settings) -> bool:
        """Tells whether these settings could have been drawn from this space."""
        return settings.keys() == set(self.keys) and all(
            self.ranges[key].holds(value) if key in self.ranges else value in self.choices[key]
            for key, value in settings.items()
        )

    @property
    def size(self) -> float:
        """The number of different settings; infinite where a range is not of whole numbers."""
        if any(dimension.scale != "integer" for dimension in self.ranges.values()):
            return math.inf
        counts = [int((d.high or 0) - (d.low or 0)) + 1 for d in self.ranges.values()]
        return math.prod(counts) * math.prod(map(len, self.choices.values()))

    @property
    def grid_size(self) -> int:
        """The number of points of the grid. Raises InputError as `grid` does."""
        return math.prod(map(len, self.grid().values()))


def load_space(name: str, entry: Entry) -> Space:
    """Reads a space and checks it against a surrogate, as `read_space` does.

    Raises InputError also where settings at the edge of the space are ones that the surrogate cannot have.
    """
    space, path = read_space(name, entry), _path_of(name)
    try:
        tried = {key: _extremes(dimension, None) for key, dimension in space.ranges.items()}
        _check_corners(entry, tried | dict(space.choices))
    except InputError as problem:
        raise InputError(f"{path}: {problem}") from problem
    return space


def read_space(name: str, entry: Entry) -> Space:
    """Reads a space, and checks its keys against a surrogate.

    Args:
        name: a name in `tune_spaces`, or the path of a file, which ends in .yaml or .yml.
        entry: the surrogate whose settings they are to be laid over.

    Raises InputError, naming the file and the key, where the file is wrong, or the surrogate has not these settings.
    """
    path = _path_of(name)
    content = read_yaml(path)
    try:
        dimensions = TypeAdapter(_SpaceFile).validate_python(content)
    except ValidationError as problem:
        raise InputError(f"{path}: " + explained(problem, _SpaceFile)) from problem
    choices: dict[str, list[Any]] = {}
    try:
        for key, dimension in dimensions.keys.items():
            _check_key(key, entry, dimensions.keys)
            if dimension.low is None or key == WITNESSES:
                choices[key] = _choices(key, dimension, entry)
        if not any(d.low is not None for d in dimensions.keys.values()) and math.prod(map(len, choices.values())) < 2:
            only = ", ".join(f"{key} = {values[0]}" for key, values in choices.items())
            raise InputError(f"there is nothing to choose: {only} is the only possibility in this experiment")
    except InputError as problem:
        raise InputError(f"{path}: {problem}") from problem
    ranges = {key: dimension for key, dimension in dimensions.keys.items() if dimension.low is not None}
    return Space(path.stem, dimensions.why.strip(), ranges, choices)


class _SpaceFile(Section):
    why: str
    keys: dict[str, Dimension] = Field(min_length=1)


def _path_of(name: str) -> Path:
    folder = Path(tune_spaces.__file__).parent
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if not name.endswith((".yaml", ".yml")):
        if name not in known:
            raise InputError(
                f"--space {name}: there is no such space{nearest(name, known)}; a file of your own must end in .yaml"
            )
        return folder / f"{name}.yaml"
    path = Path(name)
    if not _STEM.fullmatch(path.stem):
        raise InputError(
            f"--space {name}: the sweep's folder gets the name of this file, which must therefore be 1 to 40 letters, "
            "digits, '_' and '-'; rename the file"
        )
    if path.stem in known and path.resolve().parent != folder.resolve():
        raise InputError(f"--space {name}: a space that ships with Witness is called {path.stem} too; rename the file")
    return path


def _check_key(key: str, entry: Entry, keys: Collection[str]) -> None:
    """Raises InputError for a key that cannot be searched, that the surrogate has not, or that is below another."""
    if key in _NOT_SEARCHED:
        raise InputError(
            f"keys.{key}: this key changes nothing that a sweep measures, so it cannot be searched; remove it"
        )
    if key == _EARLY_STOP or key.startswith(f"{_EARLY_STOP}."):
        raise InputError(
            f"keys.{key}: trials take all steps, and are measured on the way by the sweep; remove this key"
        )
    if key == WITNESSES:
        return
    top = key.partition(".")[0]
    own = [name for name in _dotted_keys() if not name.startswith((*_NOT_SEARCHED, _EARLY_STOP))]
    if top in known_keys(Experiment, ()) and top != "align":
        raise InputError(f"keys.{key}: a sweep searches `align.*` and `witnesses` only; remove this key")
    if key not in own and key not in entry.part_keys:
        if key in known_part_keys():
            raise InputError(f"keys.{key}: {entry.lacks(key)}")
        known = [WITNESSES, *own, *entry.part_keys]
        raise InputError(f"keys.{key}: the experiment has no such key{nearest(key, known)}")
    if below := [other for other in keys if other.startswith(f"{key}.")]:
        raise InputError(f"keys.{key}: {below[0]} is a setting of it; search one of them")


def _check_corners(entry: Entry, tried: Mapping[str, Sequence[Any]]) -> None:
    """Lays extreme values over the surrogate's own, those of each key with those of the others.

    Raises InputError where they are ones that it cannot have, or where a key changes nothing.
    """
    found: dict[tuple[str, ...], str] = {}
    for corner in islice(product(*tried.values()), _MOST_CORNERS):
        align, witnesses = settled(entry, dict(zip(tried, corner, strict=True)))
        found[tuple(map(label_of, corner))] = repr((align.deciding, witnesses))
    if math.prod(map(len, tried.values())) > _MOST_CORNERS:
        return  # a key may have an effect beside values that were not looked at
    for place, key in enumerate(tried):
        beside: dict[tuple[str, ...], set[str]] = {}
        for corner_labels, result in found.items():
            beside.setdefault(corner_labels[:place] + corner_labels[place + 1 :], set()).add(result)
        if len(tried[key]) > 1 and all(len(results) == 1 for results in beside.values()):
            is_length = entry.budget is not None and key in ("align.epochs", "align.limit_steps")
            why = ", whose `budget` decides how long it is trained" if is_length else ""
            raise InputError(f"keys.{key}: changes nothing of {entry.name}{why}; choose a space that suits it")


def _dotted_keys(parents: tuple[str, ...] = ()) -> list[str]:
    found = []
    for name in known_keys(AlignConfig, parents):
        below = _dotted_keys((*parents, name))
        found += below or [".".join(("align", *parents, name))]
    return found


def _choices(key: str, dimension: Dimension, entry: Entry) -> list[Any]:
    if (key == WITNESSES) != (dimension.subsets_of is not None or _are_lists(dimension.choices)):
        raise InputError(
            f"keys.{key}: `witnesses` takes subsets_of or choices that are lists of models, and no other key does"
        )
    names = entry.witnesses
    if key == WITNESSES and not names:
        raise InputError(f"keys.{key}: {entry.name} has no witness; choose a space that suits it")
    if dimension.subsets_of is not None:
        if len(names) > _MOST_WITNESSES:
            raise InputError(
                f"keys.{key}: {len(names)} witnesses have 2^{len(names)} subsets; name those to try as choices"
            )
        return [list(some) for count in range(1, len(names) + 1) for some in combinations(names, count)]
    assert dimension.choices is not None
    if key == WITNESSES:
        for witness in (name for choice in dimension.choices for name in choice):
            if witness not in names:
                raise InputError(f"keys.{key}: {witness} is not a witness of {entry.name}{nearest(witness, names)}")
        for choice in dimension.choices:
            if len(set(choice)) < len(choice):
                raise InputError(f"keys.{key}: {max(choice, key=choice.count)} is named twice in one choice")
    labels = [label_of(choice) for choice in dimension.choices]
    twice = [label for label in labels if labels.count(label) > 1]
    if twice:
        raise InputError(f"keys.{key}: the choice {twice[0]} is given twice")
    return dimension.choices


def _are_lists(choices: list[Any] | None) -> bool:
    return bool(choices) and all(isinstance(choice, list) and choice for choice in choices or ())


def _number_or_label(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else label_of(value)


def _extremes(dimension: Dimension, choices: list[Any] | None) -> list[Any]:
    if choices is not None:
        return choices
    assert dimension.low is not None and dimension.high is not None
    # A number between the ends shows where only whole numbers will do and the scale is not `integer`.
    inside = dimension.low + 0.37 * (dimension.high - dimension.low)
    ends = [dimension.value(dimension.low), dimension.value(dimension.high)]
    return ends if dimension.scale == "integer" else [*ends, dimension.value(inside)]
