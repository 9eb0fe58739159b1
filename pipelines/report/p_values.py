"""The p-values of the tables: rounded, and corrected for the number of comparisons."""

from typing import TypeVar

from align_core.multiplicity import holm
from pipelines.report.rounding import significant
from pipelines.report.rows import ContrastRow, TransferRow

Row = TypeVar("Row", TransferRow, ContrastRow)


def p_value(value: float | None) -> float | None:
    """Six significant digits: p-values may be far smaller than four decimals can show."""
    return significant(value)


def corrected(rows: list[Row]) -> list[Row]:
    """The rows with `p_holm`: Holm's correction over those rows of each attack that have a p-value."""
    for attack in dict.fromkeys(row["attack"] for row in rows):
        tested = [row for row in rows if row["attack"] == attack and row["p_value"] is not None]
        for row, value in zip(tested, holm([float(row["p_value"] or 0) for row in tested]), strict=True):
            row["p_holm"] = p_value(value)
    return rows
