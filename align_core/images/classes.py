"""The classes of an experiment: one list for all of its image sets, so that a class has the same index in each of them.

A set labels its images with class names or with class indices. Names become indices only here, where the labels of all
sets are known: a class that one set lacks shifts no other class.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from align_core.errors import InputError
from align_core.images.files import open_text
from align_core.images.labels import Labels, RawLabels

_SHOWN = 10
_MEND = "give `data.classes` a file with one class name per line, in the order of the models' outputs"


def read_classes(path: Path) -> tuple[str, ...]:
    """The class names in a text file, one a line; a class's index is its line, counted from 0.

    Empty lines at the end are ignored. Raises InputError for a file that is unreadable, or holds an empty line, a name
    twice, or fewer than two names.
    """
    try:
        with open_text(path) as file:
            lines = [line.strip() for line in file.read().rstrip().splitlines()]
    except (OSError, ValueError) as problem:
        raise InputError(f"{path}: cannot be read as a list of class names ({problem})") from problem
    first: dict[str, int] = {}
    for number, name in enumerate(lines, start=1):
        if not name:
            raise InputError(f"{path}, line {number}: is empty; every line names the class of that index")
        if name in first:
            raise InputError(f"{path}, line {number}: the class {name!r} is named in line {first[name]} already")
        first[name] = number
    if len(lines) < 2:
        raise InputError(f"{path}: names {len(lines)} classes; a classifier needs at least two")
    return tuple(lines)


@dataclass(frozen=True)
class ClassList:
    """The classes of an experiment.

    Attributes:
        count: their number.
        names: their names by index; None where only indices are known.
        origin: what `names` come from, as messages call it.
    """

    count: int
    names: tuple[str, ...] | None = None
    origin: str = "data.classes"

    def name(self, index: int) -> str:
        """A class as messages name it."""
        return str(index) if self.names is None else self.names[index]

    def indices(self, role: str, raw: RawLabels) -> Labels:
        """The class index of every label of one set, int64 [N]; indices out of range are not refused here.

        Raises InputError for names that are not in the list. `role` is the set's key below `data`.
        """
        if not raw.are_names and not (raw.is_ordered and self.names not in (None, raw.names)):
            return raw.values
        texts, inverse = np.unique(raw.values, return_inverse=True)
        if raw.is_ordered:
            _check_positions(role, raw)
            texts = np.array([raw.names[position] for position in texts], dtype=np.str_)
        elif self.names is None or (are_integers(texts) and not set(texts.tolist()) <= set(self.names)):
            return np.array([int(text) for text in texts], dtype=np.int64)[inverse]
        known = {name: index for index, name in enumerate(self.names or ())}
        unknown = [name for name in texts.tolist() if name not in known]
        if unknown:
            more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
            listed = ", ".join(f"`{name}`{_near(name, known)}" for name in unknown[:_SHOWN])
            raise InputError(
                f"data.{role}: names {len(unknown)} classes that are not in {self.origin}: {listed}{more}. Rename "
                "them, or correct the list"
            )
        return np.array([known[name] for name in texts.tolist()], dtype=np.int64)[inverse]


def class_list(sets: Mapping[str, RawLabels], classes: int, names: tuple[str, ...] | None = None) -> ClassList:
    """The classes of an experiment with these image sets.

    Args:
        sets: the labels of every set, by its key below `data`.
        classes: the number of classes.
        names: their names in order, where `data.classes` is a file.

    Raises InputError where the sets do not agree on the classes, with the names in which they differ.
    """
    if names is not None:
        return ClassList(len(names), names, "the file of data.classes")
    ordered = {role: raw.names for role, raw in sets.items() if raw.is_ordered}
    if ordered:
        return ClassList(classes, _the_one_list(ordered, classes), f"the schema of data.{next(iter(ordered))}")
    named = {role: raw for role, raw in sets.items() if raw.are_names}
    if all(are_integers(raw.names) for raw in named.values()):
        for role, raw in named.items():
            _check_distinct(role, raw.names)
        return ClassList(classes)
    _check_not_negative(named)
    if len(named) < len(sets):
        others = " and ".join(f"data.{role}" for role in sets if role not in named)
        shown = _listed([name for raw in named.values() for name in raw.names])
        raise InputError(
            f"data.classes: {' and '.join(f'data.{role}' for role in named)} has class names ({shown}), and {others} "
            f"has class indices, so nothing says which index a name has: {_MEND}"
        )
    return ClassList(classes, _union(named, classes), "the class names of all image sets")


def are_integers(names: Iterable[str]) -> bool:
    """Whether all names are integers of at most 18 digits, and therefore class indices."""
    return all(name.isascii() and name.isdigit() and len(name) <= 18 for name in names)


def _the_one_list(ordered: Mapping[str, Sequence[str]], classes: int) -> tuple[str, ...]:
    (role, names), *others = ordered.items()
    for other, its in others:
        if its != names:
            differing = sorted(set(its) ^ set(names))
            how = f"differ in {_listed(differing)}" if differing else "are in another order"
            raise InputError(
                f"data.classes: the class names in the schemas of data.{role} and data.{other} {how}; {_MEND}"
            )
    if len(names) != classes:
        raise InputError(f"data.classes is {classes}, but the schema of data.{role} names {len(names)} classes")
    return tuple(names)


def _union(named: Mapping[str, RawLabels], classes: int) -> tuple[str, ...]:
    union = sorted({name for raw in named.values() for name in raw.names})
    if len(union) < classes:
        raise InputError(
            f"data.classes is {classes}, but the image sets name {len(union)} classes ({_listed(union)}). Which index "
            f"each of them has cannot be known: {_MEND}, or set data.classes: {len(union)}"
        )
    if len(union) > classes:
        alone = [
            f"only data.{role} has `{name}`{_near(name, set(union) - {name})}"
            for role, raw in named.items()
            for name in sorted(set(raw.names).difference(*(other.names for r, other in named.items() if r != role)))
        ]
        more = f" and {len(alone) - _SHOWN} more" if len(alone) > _SHOWN else ""
        differing = f": {', '.join(alone[:_SHOWN])}{more}" if alone and len(named) > 1 else f" ({_listed(union)})"
        raise InputError(
            f"data.classes is {classes}, but the image sets name {len(union)} classes{differing}. Rename what differs, "
            f"set data.classes: {len(union)}, or {_MEND}"
        )
    return tuple(union)


def _check_distinct(role: str, names: Sequence[str]) -> None:
    seen: dict[int, str] = {}
    for name in names:
        if (other := seen.setdefault(int(name), name)) != name:
            raise InputError(f"data.{role}: the classes `{other}` and `{name}` are the same index; rename one of them")


def _check_not_negative(named: Mapping[str, RawLabels]) -> None:
    """Sorted as names, numbers of which some are negative would be indices other than they say."""
    negative = [(role, name) for role, raw in named.items() for name in raw.names if name.startswith("-")]
    if negative and are_integers(name.removeprefix("-") for raw in named.values() for name in raw.names):
        role, name = negative[0]
        raise InputError(
            f"data.{role}: the class `{name}` is a negative number, and all others are numbers, too, but indices of "
            f"classes begin at 0. Rename the classes, or, where these numbers are names, {_MEND}"
        )


def _check_positions(role: str, raw: RawLabels) -> None:
    outside = np.flatnonzero((raw.values < 0) | (raw.values >= len(raw.names)))
    if len(outside):
        raise InputError(
            f"data.{role}: {len(outside)} labels, such as {int(raw.values[outside[0]])}, have no name in the schema, "
            f"which names {len(raw.names)} classes"
        )


def _near(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" (did you mean `{close[0]}`?)" if close else ""


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
