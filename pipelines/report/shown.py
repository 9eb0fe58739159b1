"""Tables as people read them: few digits, intervals beside their estimate, no column that is blank throughout.

The page, LaTeX and Markdown show them alike. The CSV files and results.json hold every figure in full.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pipelines.report.means import is_mean, kind_of, without_repeats
from pipelines.report.tabled import Report

TEXT_COLUMNS = {"surrogate", "attack", "target", "relation", "baseline", "worker", "refinement", "witnesses"}
TEXT_COLUMNS |= {"kind", "name", "measure", "point", "counterpart", "role", "before_crafting", "witness"}
"""Columns of the tables that hold text; all others hold numbers."""

_ON_DEMAND = ("seeds", "reasons", "correlations", "soft_labels")
"""Tables that are shown where they have rows."""

_TARGETED = {"targeted_rate": ("targeted_low", "targeted_high")}
"""Columns whose interval is not in columns of their own name, with `_low` and `_high` at the end."""

_SIGNED = {
    "gain",
    "gain_both",
    "clean_change",
    "clean_change_both",
    "agreement_change",
    "change",
    "change_both",
    "reasons.change",
    "reasons.change_both",
    "correlation",
}
_DIGITS = {
    "value": ".3g",
    "reasons.change": ".3g",
    "reasons.change_both": ".3g",
    "correlation": ".2f",
    "entropy": ".3f",
    "temperature": "g",
    "mean_l2": ".3f",
    "mean_ssim": ".4f",
    "loss_before": ".4f",
    "loss_after": ".4f",
    "p_value": ".2g",
    "p_holm": ".2g",
}
"""How numbers are written that are neither percentages nor points; those have one decimal. The changes of reasons are
in the units of their measures."""
_IN_FULL = range(1_000, 10_000_000)
"""Numbers of few digits that are written in full, and not as powers of ten."""

_OF_MEAN = (
    "surrogate", "attack", "rate", "rate_low", "rate_high", "targeted_rate", "targeted_low", "targeted_high",
    "gain", "gain_low", "gain_high", "gain_spread", "gain_both_low", "gain_both_high",
)  # fmt: skip
_OF_SURROGATE = (
    "clean_accuracy", "clean_accuracy_low", "clean_accuracy_high", "clean_change", "clean_change_low",
    "clean_change_high", "clean_change_both_low", "clean_change_both_high", "witness_agreement",
)  # fmt: skip


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
    """The tables of a report, in the order of the page. Some are left out where they are empty."""
    tables = report.tables() | {"transfer": without_repeats(report.transfer)}
    return [shown(name, rows) for name, rows in tables.items() if rows or name not in _ON_DEMAND]


def summary(report: Report) -> ShownTable:
    """A row per surrogate and attack: mean rate and gain, what it is by itself, and what both cost."""
    about: dict[str, Mapping[str, Any]] = {
        row["surrogate"]: row for row in report.surrogates if row["attack"] == "(all)"
    }
    rows = []
    for mean in report.means():
        own = about.get(mean["surrogate"], {})
        passes = [own.get(kind) for kind in ("forward_passes", "backward_passes")]
        rows.append(
            {column: mean.get(column) for column in _OF_MEAN}
            | {column: own.get(column) for column in _OF_SURROGATE}
            | {"gradients": mean["gradients"], "passes": sum(own for own in passes if own) or None}
        )
    return shown("summary", rows)


def gains_by_relation(report: Report) -> ShownTable:
    """A row per surrogate and attack: the mean gain over all targets and over those of each relation or group.

    No row where all targets have one relation, and there are no groups.
    """
    means = [row for row in without_repeats(report.transfer) if is_mean(row["target"]) and row["gain"] is not None]
    kinds = list(dict.fromkeys(row["target"] for row in means))
    # Where there is but the mean over all targets, the table would repeat the summary.
    pairs = dict.fromkeys((row["surrogate"], row["attack"]) for row in means if len(kinds) > 1)
    by_key = {(row["surrogate"], row["attack"], row["target"]): row for row in means}
    lines = []
    for surrogate, attack in pairs:
        found = [by_key.get((surrogate, attack, kind)) for kind in kinds]
        gains = [
            Cell("", None) if row is None else cell_of("gain", row["gain"], (row["gain_low"], row["gain_high"]))
            for row in found
        ]
        lines.append([Cell(surrogate, surrogate), Cell(attack, attack), *gains])
    headings = [kind_of(kind).replace("_", " ") or "all targets" for kind in kinds]
    columns = ["surrogate", "attack", *headings]
    return ShownTable("gains", columns, [True, True, *[False] * len(kinds)], lines, set())


def shown(name: str, rows: Sequence[Mapping[str, object]]) -> ShownTable:
    """Rows as a table that is shown, without the columns that are blank in all of them."""
    there = [column for column in (rows[0] if rows else ()) if any(row.get(column) not in (None, "") for row in rows)]
    limits = {limit for column in there for limit in limits_of(column)}
    columns = [column for column in there if column not in limits and not column.endswith("_both_high")]
    lines = []
    for row in rows:
        line = []
        for column in columns:
            is_alone = column.endswith("_both_low")  # an interval without an estimate of its own
            low, high = limits_of(column.removesuffix("_low") if is_alone else column)
            value = None if is_alone else row.get(column)
            own = column.removesuffix("_low")
            kind = f"{name}.{own}" if f"{name}.{own}" in _DIGITS else own
            line.append(cell_of(kind, value, (row.get(low), row.get(high))))
        lines.append(line)
    headings = [column.removesuffix("_low").replace("_", " ") for column in columns]
    means = {number for number, row in enumerate(rows) if is_mean(str(row.get("target", "")))}
    return ShownTable(name, headings, [column in TEXT_COLUMNS for column in columns], lines, means)


def limits_of(column: str) -> tuple[str, str]:
    """The columns of a column's interval, where it has one."""
    return _TARGETED.get(column, (f"{column}_low", f"{column}_high"))


def cell_of(column: str, value: object, limits: tuple[object, object]) -> Cell:
    """A value in few digits, with its interval."""
    form = ("+" if column in _SIGNED else "") + _DIGITS.get(column, ".1f")
    interval = "" if None in limits else " to ".join(_in_digits(limit, form) for limit in limits)
    if value is None:
        return Cell(interval, limits[0] if isinstance(limits[0], float) else None)
    if isinstance(value, int):
        return Cell(str(value) if column == "seed" else f"{value:,}", value)
    if not isinstance(value, float):
        return Cell(str(value), str(value))
    text = _written(value, form)
    return Cell(f"{text} ({interval})" if interval else text, value)


def _written(value: Any, form: str) -> str:
    """An estimate in few digits; one that rounds to zero has no minus. At an end of an interval a minus tells much."""
    text = _in_digits(value, form)
    return (
        text.replace("-", "+" if "+" in form else "") if text.startswith("-") and not re.search("[1-9]", text) else text
    )


def _in_digits(value: Any, form: str) -> str:
    """A number in a form of `_DIGITS`; where that means few digits, thousands are whole numbers."""
    is_whole = form.endswith("g") and int(abs(value)) in _IN_FULL
    return f"{value:{'+' if '+' in form else ''},.0f}" if is_whole else f"{value:{form}}"
