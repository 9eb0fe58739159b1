"""What changed between two runs of an entry: new cells, and rates whose confidence intervals no longer overlap."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, cast

_KEYS = ("surrogate", "attack", "target")
_FIGURES = ("n", "rate", "rate_low", "rate_high")
_TARGETED = {"rate": "targeted_rate", "rate_low": "targeted_low", "rate_high": "targeted_high"}


class Figures(TypedDict):
    """One transfer rate in percent with its 95 % interval, over `n` images. The rates are None where `n` is 0.

    Of a targeted attack it is the targeted rate.
    """

    n: int
    rate: float | None
    rate_low: float | None
    rate_high: float | None


class RateRow(Figures):
    """The columns of a row of transfer.csv that the history keeps, so that the next run can be compared with it."""

    surrogate: str
    attack: str
    target: str


class MovedRow(RateRow):
    """The row of a rate that moved, together with the figures of the run before."""

    before: Figures


@dataclass(frozen=True)
class Changes:
    """The differences between the tables of two runs.

    Attributes:
        new: rows of cells that the table of the earlier run does not contain.
        moved: rows whose 95 % interval does not overlap the interval of the earlier run.
    """

    new: list[RateRow]
    moved: list[MovedRow]

    def as_json(self) -> dict[str, Any]:
        """The two lists of rows under the names of the attributes, for `--json`."""
        return {"new": self.new, "moved": self.moved}

    def lines(self) -> list[str]:
        """One line of text per new cell and per moved rate, or a single line which says that there are none."""
        new = [f"new: {_cell_name(row)}: {_rate_text(row)}" for row in self.new]
        moved = [f"moved: {_cell_name(row)}: {_rate_text(row['before'])} -> {_rate_text(row)}" for row in self.moved]
        return [*new, *moved] or ["no detectable change: no new cell, and every interval overlaps the one before"]


def rate_rows(transfer: Sequence[Mapping[str, Any]]) -> list[RateRow]:
    """Reduces the rows of transfer.csv to the columns that later runs are compared with."""
    found = []
    for row in transfer:
        columns = _TARGETED if row.get("targeted_rate") is not None else {}
        found.append(cast(RateRow, {name: row[columns.get(name, name)] for name in (*_KEYS, *_FIGURES)}))
    return found


def compare(before: Sequence[RateRow], now: Sequence[RateRow]) -> Changes:
    """Finds the new cells and the moved rates of `now`, the table of the later run.

    Disjoint 95 % intervals are a stricter criterion than a test at the 5 % level, so a rate that is reported as moved
    is unlikely to be noise, while a small shift goes unreported. Rows that average over targets, such as `(mean)`, are
    not cells and are never new, but their rates can move.
    """
    known = {_key(row): row for row in before}
    new = [row for row in now if _key(row) not in known and not row["target"].startswith("(")]
    moved = [
        cast(MovedRow, {**row, "before": _figures(known[_key(row)])})
        for row in now
        if _key(row) in known and _intervals_are_disjoint(known[_key(row)], row)
    ]
    return Changes(new, moved)


def _key(row: RateRow) -> tuple[str, str, str]:
    return row["surrogate"], row["attack"], row["target"]


def _figures(row: RateRow) -> Figures:
    return {"n": row["n"], "rate": row["rate"], "rate_low": row["rate_low"], "rate_high": row["rate_high"]}


def _intervals_are_disjoint(one: Figures, other: Figures) -> bool:
    bounds = one["rate_low"], one["rate_high"], other["rate_low"], other["rate_high"]
    if any(bound is None for bound in bounds):  # no image counted
        return False
    one_low, one_high, other_low, other_high = cast(tuple[float, float, float, float], bounds)
    return one_high < other_low or other_high < one_low


def _cell_name(row: RateRow) -> str:
    return ", ".join(_key(row))


def _rate_text(figures: Figures) -> str:
    if figures["rate"] is None:
        return "no image counts"
    return f"{figures['rate']:.1f} ({figures['rate_low']:.1f} to {figures['rate_high']:.1f})"
