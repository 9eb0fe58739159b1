"""Tables as people read them: few digits, intervals beside their estimate, no column that is blank throughout.

The page, LaTeX and Markdown show them alike. The CSV files and results.json hold every figure in full.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pipelines.report.means import is_mean, kind_of, without_repeats
from pipelines.report.tabled import Report

TEXT_COLUMNS = {"surrogate", "attack", "target", "relation", "baseline", "worker", "refinement"}
"""Columns of the tables that hold text; all others hold numbers."""

_INTERVALS = {
    "rate": ("rate_low", "rate_high"),
    "targeted_rate": ("targeted_low", "targeted_high"),
    "gain": ("gain_low", "gain_high"),
    "clean_accuracy": ("clean_accuracy_low", "clean_accuracy_high"),
    "clean_change": ("clean_change_low", "clean_change_high"),
}
"""Columns, and those of their interval, which is shown beside them."""

_ALONE = {"gain_both_low": ("gain_both", "gain_both_low", "gain_both_high")}
"""First columns of intervals without an estimate of their own: under what name they are shown."""

_SIGNED = {"gain", "gain_both", "clean_change", "agreement_change"}


class Cell(NamedTuple):
    """What is shown in a cell, and the number or text by which its column is sorted."""

    text: str
    order: str | float | None


class ShownTable(NamedTuple):
    """A table as it is shown.

    Attributes:
        name: of the table.
        columns: their headings.
        is_text: whether each column holds text.
        rows: as many cells in each as there are columns.
        means: the numbers of those rows that are means over targets.
    """

    name: str
    columns: list[str]
    is_text: list[bool]
    rows: list[list[Cell]]
    means: set[int]


def shown_tables(report: Report) -> list[ShownTable]:
    """The tables of a report, in the order of the page. `seeds` is left out where there is one seed."""
    tables = report.tables() | {"transfer": without_repeats(report.transfer)}
    return [shown(name, rows) for name, rows in tables.items() if rows or name != "seeds"]


def summary(report: Report) -> ShownTable:
    """A row per surrogate and attack: mean rate and gain, what it is by itself, and what both cost."""
    about = {row["surrogate"]: row for row in report.surrogates if row["attack"] == "(all)"}
    rows = []
    for mean in report.means():
        own = about.get(mean["surrogate"])
        passes = (own["forward_passes"], own["backward_passes"]) if own else (None, None)
        rows.append(
            {name: mean[name] for name in ("surrogate", "attack")}  # type: ignore[literal-required]
            | _with_interval(mean, "rate")
            | _with_interval(mean, "targeted_rate")
            | _with_interval(mean, "gain")
            | {name: mean[name] for name in ("gain_spread", "gain_both_low", "gain_both_high")}  # type: ignore[literal-required]
            | (_with_interval(own, "clean_accuracy") | _with_interval(own, "clean_change") if own else {})
            | {"witness_agreement": own["witness_agreement"] if own else None}
            | {"gradients": mean["gradients"], "passes": None if None in passes else sum(passes)}  # type: ignore[arg-type]
        )
    return shown("summary", rows)


def gains_by_relation(report: Report) -> ShownTable:
    """A row per surrogate and attack: the mean gain over all targets and over those of each relation or group."""
    means = [row for row in without_repeats(report.transfer) if is_mean(row["target"]) and row["gain"] is not None]
    kinds = list(dict.fromkeys(row["target"] for row in means))
    pairs = dict.fromkeys((row["surrogate"], row["attack"]) for row in means)
    by_key = {(row["surrogate"], row["attack"], row["target"]): row for row in means}
    lines = []
    for surrogate, attack in pairs:
        found = [by_key.get((surrogate, attack, kind)) for kind in kinds]
        gains = [
            Cell("", None) if row is None else _cell("gain", row["gain"], (row["gain_low"], row["gain_high"]))
            for row in found
        ]
        lines.append([Cell(surrogate, surrogate), Cell(attack, attack), *gains])
    headings = [kind_of(kind).replace("_", " ") or "all targets" for kind in kinds]
    columns = ["surrogate", "attack", *headings]
    return ShownTable("gains", columns, [True, True, *[False] * len(kinds)], lines, set())


def shown(name: str, rows: Sequence[Mapping[str, object]]) -> ShownTable:
    """Rows as a table that is shown, without the columns that are blank in all of them."""
    there = [column for column in (rows[0] if rows else ()) if any(row.get(column) not in (None, "") for row in rows)]
    limits = {limit for low_high in _INTERVALS.values() for limit in low_high} | {"gain_both_high"}
    columns = [column for column in there if column not in limits]
    lines = []
    for row in rows:
        line = []
        for column in columns:
            heading, low, high = _ALONE.get(column, (column, *_INTERVALS.get(column, ("", ""))))
            value = None if column in _ALONE else row.get(column)
            line.append(_cell(heading, value, (row.get(low), row.get(high))))
        lines.append(line)
    headings = [_ALONE.get(column, (column,))[0].replace("_", " ") for column in columns]
    means = {number for number, row in enumerate(rows) if is_mean(str(row.get("target", "")))}
    return ShownTable(name, headings, [column in TEXT_COLUMNS for column in columns], lines, means)


def _with_interval(row: Mapping[str, object], column: str) -> dict[str, object]:
    return {name: row[name] for name in (column, *_INTERVALS[column])}


def _cell(column: str, value: object, limits: tuple[object, object]) -> Cell:
    """A value in few digits, with its interval."""
    sign = "+" if column in _SIGNED else ""
    interval = f"{limits[0]:{sign}.2f} to {limits[1]:{sign}.2f}" if None not in limits else ""
    if value is None:
        return Cell(interval, limits[0] if isinstance(limits[0], float) else None)
    if isinstance(value, str):
        return Cell(value, value)
    if isinstance(value, int):
        return Cell(f"{value:,}" if column not in ("seed",) else str(value), value)
    assert isinstance(value, float)
    text = f"{value:.2g}" if column in ("p_value", "p_holm") else f"{value:{sign}.2f}"
    return Cell(f"{text} ({interval})" if interval else text, value)
