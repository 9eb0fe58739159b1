"""What changed between two runs of an entry: cells that are new, rates that the intervals can tell apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.report.page import Row

_KEYS = ("surrogate", "attack", "target")
_FIGURES = ("n", "rate", "rate_low", "rate_high")


@dataclass(frozen=True)
class Changes:
    """new: rows of cells that were not there. moved: rows whose interval left the former one, which is in `before`."""

    new: list[Row]
    moved: list[Row]

    def as_json(self) -> dict[str, Any]:
        """As it is kept, and for `--json`."""
        return {"new": self.new, "moved": self.moved}

    def lines(self) -> list[str]:
        """For people."""
        new = [f"new: {_cell(row)}: {_rate(row)}" for row in self.new]
        moved = [f"moved: {_cell(row)}: {_rate(row['before'])} -> {_rate(row)}" for row in self.moved]
        return [*new, *moved] or ["nothing changed that the intervals could tell"]


def kept(rows: Sequence[Row]) -> list[Row]:
    """Of transfer.csv, what a later run is compared with."""
    return [{name: row[name] for name in (*_KEYS, *_FIGURES)} for row in rows]


def changes(before: Sequence[Row], now: Sequence[Row]) -> Changes:
    """What `now` has that `before` had not; both as `kept` gives them.

    A mean over targets is no cell, but its rate may move.
    """
    known = {_key(row): row for row in before}
    new = [row for row in now if _key(row) not in known and not row["target"].startswith("(")]
    moved = [
        row | {"before": {name: known[_key(row)][name] for name in _FIGURES}}
        for row in now
        if _key(row) in known and _are_apart(known[_key(row)], row)
    ]
    return Changes(new, moved)


def _key(row: Row) -> tuple[str, ...]:
    return tuple(row[name] for name in _KEYS)


def _are_apart(one: Row, other: Row) -> bool:
    if one["rate"] is None or other["rate"] is None:  # no image counted
        return False
    return bool(one["rate_high"] < other["rate_low"] or other["rate_high"] < one["rate_low"])


def _cell(row: Row) -> str:
    return f"{row['surrogate']}, {row['attack']}, {row['target']}"


def _rate(row: Row) -> str:
    if row["rate"] is None:
        return "no image counts"
    return f"{row['rate']:.1f} ({row['rate_low']:.1f} to {row['rate_high']:.1f})"
