"""A search space: which settings of an alignment a sweep may try. Files in `tune_spaces`, or one of the user's own."""

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations, islice, product
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, TypeAdapter, ValidationError, model_validator

import tune_spaces
from align_core.align_config import AlignConfig
from align_core.errors import InputError
from pipelines.experiment.config import Experiment, Section
from pipelines.experiment.explain import explained, known_keys, nearest
from pipelines.experiment.yaml_file import merged, read_yaml

Settings = dict[str, Any]
"""Values of the searched keys, by their dotted names."""

WITNESSES = "witnesses"
# They spread the work or save it, and change nothing that is measured.
_MOST_CORNERS = 2_000
_STEM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
_NOT_SEARCHED = ("align.workers", "align.checkpoint_steps")


class Dimension(Section):
    """One searched key: a range (`low`, `high`, `scale`), or `choices`, or `subsets_of: witnesses`.

    `grid`: the values that a grid tries of a range. `why`: for the reader.
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
        """A number drawn from the range as a setting: four digits are enough, and can be read."""
        assert self.low is not None and self.high is not None
        if self.scale == "integer":
            return int(drawn)
        return min(max(float(f"{drawn:.4g}"), self.low), self.high)


@dataclass(frozen=True)
class Space:
    """A named space over one experiment.

    Attributes:
        name: of the sweep's folder. why: what for.
        ranges: dimensions with `low` and `high`, by key.
        choices: the values of every other key.
    """

    name: str
    why: str
    ranges: Mapping[str, Dimension]
    choices: Mapping[str, list[Any]]

    @property
    def keys(self) -> list[str]:
        """Every searched key."""
        return [*self.ranges, *self.choices]

    def grid(self) -> dict[str, list[Any]]:
        """Key -> values whose product is the grid. Raises InputError for a range without `grid`."""
        for key, dimension in self.ranges.items():
            if dimension.grid is None:
                raise InputError(f"space {self.name}: {key}: a grid needs `grid:`, the values to try of this range")
        tried = {key: [int(v) if d.scale == "integer" else v for v in d.grid or ()] for key, d in self.ranges.items()}
        return {**tried, **self.choices}

    def holds(self, settings: Settings) -> bool:
        """Whether these settings could have been drawn from this space."""
        return settings.keys() == set(self.keys) and all(
            (d.low or 0) <= settings[key] <= (d.high or 0)
            if (d := self.ranges.get(key))
            else value in self.choices[key]
            for key, value in settings.items()
        )

    @property
    def size(self) -> float:
        """How many settings there are; infinite where a range is not of whole numbers."""
        if any(dimension.scale != "integer" for dimension in self.ranges.values()):
            return math.inf
        counts = [int((d.high or 0) - (d.low or 0)) + 1 for d in self.ranges.values()]
        return math.prod(counts) * math.prod(map(len, self.choices.values()))

    @property
    def grid_size(self) -> int:
        """How many settings the grid holds."""
        return math.prod(map(len, self.grid().values()))


def load_space(name: str, experiment: Experiment) -> Space:
    """The space of this name, or in this file (a path that ends in .yaml), over an experiment. Raises InputError."""
    path = _place(name)
    content = read_yaml(path)
    try:
        dimensions = TypeAdapter(_SpaceFile).validate_python(content)
    except ValidationError as problem:
        raise InputError(f"{path}: " + explained(problem, _SpaceFile)) from problem
    choices: dict[str, list[Any]] = {}
    try:
        for key, dimension in dimensions.keys.items():
            _check_key(key)
            if dimension.low is None or key == WITNESSES:
                choices[key] = _choices(key, dimension, experiment)
        tried = {key: _extremes(dimension, choices.get(key)) for key, dimension in dimensions.keys.items()}
        for corner in islice(product(*tried.values()), _MOST_CORNERS):
            settled(experiment, dict(zip(tried, corner, strict=True)))
        if not any(d.low is not None for d in dimensions.keys.values()) and math.prod(map(len, choices.values())) < 2:
            only = ", ".join(f"{key} = {values[0]}" for key, values in choices.items())
            raise InputError(f"there is nothing to choose: {only} is all there is in this experiment")
    except InputError as problem:
        raise InputError(f"{path}: {problem}") from problem
    ranges = {key: dimension for key, dimension in dimensions.keys.items() if dimension.low is not None}
    return Space(path.stem, dimensions.why.strip(), ranges, choices)


class _SpaceFile(Section):
    why: str
    keys: dict[str, Dimension] = Field(min_length=1)


def _place(name: str) -> Path:
    folder = Path(tune_spaces.__file__).parent
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if not name.endswith((".yaml", ".yml")):
        if name not in known:
            raise InputError(
                f"--space {name}: there is no such space{nearest(name, known)}; a file of your own ends in .yaml"
            )
        return folder / f"{name}.yaml"
    path = Path(name)
    if not _STEM.fullmatch(path.stem):
        raise InputError(
            f"--space {name}: its folder is called as the file: 1 to 40 letters, digits, '_' and '-'; rename the file"
        )
    if path.stem in known and path.resolve().parent != folder.resolve():
        raise InputError(f"--space {name}: a space that ships with Witness is called {path.stem}; rename the file")
    return path


def _check_key(key: str) -> None:
    if key in _NOT_SEARCHED:
        raise InputError(f"keys.{key}: it changes nothing that a sweep measures, and cannot be searched")
    if key == WITNESSES:
        return
    top = key.partition(".")[0]
    known = [WITNESSES, *(name for name in _dotted_keys() if name not in _NOT_SEARCHED)]
    if top in Experiment.model_fields and top != "align":
        raise InputError(f"keys.{key}: a sweep searches `align.*` and `witnesses`; everything else stays as it is")
    if key not in known:
        raise InputError(f"keys.{key}: the experiment has no such key{nearest(key, known)}")


def _dotted_keys(place: tuple[str, ...] = ()) -> list[str]:
    found = []
    for name in known_keys(AlignConfig, place):
        below = _dotted_keys((*place, name))
        found += below or [".".join(("align", *place, name))]
    return found


def _choices(key: str, dimension: Dimension, experiment: Experiment) -> list[Any]:
    if (key == WITNESSES) != (dimension.subsets_of is not None or _are_lists(dimension.choices)):
        raise InputError(f"keys.{key}: `witnesses`, and it alone, takes subsets_of or choices that are lists of models")
    if dimension.subsets_of is not None:
        names = experiment.witnesses
        return [list(some) for count in range(1, len(names) + 1) for some in combinations(names, count)]
    assert dimension.choices is not None
    if key == WITNESSES:
        for witness in (name for choice in dimension.choices for name in choice):
            if witness not in experiment.witnesses:
                raise InputError(
                    f"keys.{key}: {witness} is no witness of this experiment{nearest(witness, experiment.witnesses)}"
                )
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


def label_of(value: Any) -> str:
    """A value in one word, for tables, MLflow and searchers."""
    if isinstance(value, list):
        return "+".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value)


def _extremes(dimension: Dimension, choices: list[Any] | None) -> list[Any]:
    if choices is not None:
        return choices
    assert dimension.low is not None and dimension.high is not None
    inside = dimension.low + 0.37 * (dimension.high - dimension.low)  # no whole number, where those alone will do
    ends = [dimension.value(dimension.low), dimension.value(dimension.high)]
    return ends if dimension.scale == "integer" else [*ends, dimension.value(inside)]


def settled(experiment: Experiment, settings: Settings) -> tuple[AlignConfig, tuple[str, ...]]:
    """The alignment's settings and its witnesses, with `settings` laid over the experiment's. Raises InputError."""
    nested: dict[str, Any] = {}
    for key, value in settings.items():
        *parents, last = key.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    own = merged(dataclasses.asdict(experiment.align), nested.get("align", {}))
    try:
        align = TypeAdapter(AlignConfig).validate_python(own)
    except ValidationError as problem:
        shown = ", ".join(f"{key} = {label_of(value)}" for key, value in settings.items())
        raise InputError(f"{shown}: {explained(problem, AlignConfig, within='align')}") from problem
    return align, tuple(nested.get(WITNESSES, experiment.witnesses))
