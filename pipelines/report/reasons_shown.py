"""What the page shows of the reasons: a row of measures for each surrogate, and which of them go with the gain."""

from pipelines.report.reason_rows import PERCENT, SHOWN, ReasonRow, over_all_attacks
from pipelines.report.shown import Cell, ShownTable, cell_of, shown
from pipelines.report.tabled import Report

_MOST_CORRELATIONS = 12


def reasons_summary(report: Report) -> ShownTable:
    """A row per surrogate with the measures that the claims are about; no column that no surrogate has."""
    known: dict[tuple[str, tuple[str, str, str]], ReasonRow] = {
        (row["surrogate"], (row["measure"], row["point"], row["counterpart"])): row for row in report.reasons
    }
    names = dict.fromkeys(row["surrogate"] for row in report.reasons)
    headings = {
        f"{own.heading}, %" if measure in PERCENT else own.heading: (measure, own.point, own.counterpart)
        for measure, own in SHOWN.items()
    }
    columns = {heading: key for heading, key in headings.items() if any((name, key) in known for name in names)}
    rows = []
    for name in names:
        found = [known.get((name, key)) for key in columns.values()]
        cells = [
            Cell("", None) if row is None else cell_of("value", row["value"], (row["value_low"], row["value_high"]))
            for row in found
        ]
        rows.append([Cell(name, name), *cells])
    return ShownTable("reasons_summary", ["surrogate", *columns], [True, *[False] * len(columns)], rows, set())


def telling_correlations(report: Report) -> ShownTable:
    """The correlations with the mean gain whose interval excludes zero, the strongest first, at most a dozen."""
    rows = [
        row
        for row in over_all_attacks(report.correlations)
        if None not in (row["correlation"], row["correlation_low"], row["correlation_high"])
        and (row["correlation_low"] or 0) * (row["correlation_high"] or 0) > 0
    ]
    strongest = sorted(rows, key=lambda row: -abs(row["correlation"] or 0))
    return shown("telling_correlations", strongest[:_MOST_CORRELATIONS])
