"""The tables of a report for other programs: LaTeX, Markdown, and results.json."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.report.ranking import ranking
from pipelines.report.rows import COLUMNS
from pipelines.report.sentences import notes, verdicts
from pipelines.report.shown import ShownTable
from pipelines.report.tabled import Report

SCHEMA, VERSION = "witness-results", 1
"""What results.json says that it is. The version is raised when a key goes or changes its meaning; others may come."""

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip
_MARKDOWN = re.compile(r"([\\`*_\[\]<>|])")


def as_latex(table: ShownTable) -> bytes:
    """The table as a `tabular` with the rules of the package booktabs, or as a `longtable` where it has many rows."""
    kinds = "".join("l" if is_text else "r" for is_text in table.is_text)
    head = " & ".join(_in_latex(column) for column in table.columns) + r" \\"
    lines = [" & ".join(_in_latex(cell.text) for cell in row) + r" \\" for row in table.rows]
    if len(lines) > 40:
        start = ["% needs the packages booktabs and longtable", rf"\begin{{longtable}}{{{kinds}}}", r"\toprule"]
        between, end = [r"\midrule", r"\endhead", r"\bottomrule", r"\endfoot"], [r"\end{longtable}"]
    else:
        start = ["% needs the package booktabs", rf"\begin{{tabular}}{{{kinds}}}", r"\toprule"]
        between, end = [r"\midrule"], [r"\bottomrule", r"\end{tabular}"]
    return ("\n".join([*start, head, *between, *lines, *end]) + "\n").encode()


def as_markdown(table: ShownTable) -> bytes:
    """The table as one of GitHub's Markdown."""
    rows = [table.columns, ["---" if is_text else "---:" for is_text in table.is_text]]
    rows[0] = [_in_markdown(column) for column in rows[0]]
    rows += [[_in_markdown(cell.text) for cell in row] for row in table.rows]
    return ("".join(f"| {' | '.join(row)} |\n" for row in rows)).encode()


def as_results(report: Report, about: Mapping[str, Any], remarks: Sequence[str], figures: Sequence[str]) -> bytes:
    """results.json: everything that the report says, for programs. pipelines/README.md describes its keys.

    Args:
        report: the tables, which are held in full.
        about: what was asked and found, by the keys under which the file has it.
        remarks: what has to be known before the tables are read.
        figures: the names of the files of figures.
    """
    content = {
        "schema": SCHEMA,
        "version": VERSION,
        "fingerprint": report.fingerprint,
        **about,
        "remarks": list(remarks),
        "ranking": ranking(report),
        "verdicts": verdicts(report),
        "notes": notes(report),
        "figures": list(figures),
    }
    text = json.dumps(content, indent=1, allow_nan=False)
    tables = ",\n".join(_table(name, rows) for name, rows in report.tables().items())
    return (text.removesuffix("\n}") + f',\n "tables": {{\n{tables}\n }}\n}}\n').encode()


def _table(name: str, rows: Sequence[Mapping[str, object]]) -> str:
    """A table as JSON: its columns, and a line per row."""
    columns = COLUMNS[name]
    lines = ",\n".join("   " + json.dumps([row[column] for column in columns], allow_nan=False) for row in rows)
    return f'  "{name}": {{"columns": {json.dumps(columns)}, "rows": [\n{lines}\n  ]}}'


def _in_latex(text: str) -> str:
    escaped = "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))
    return re.sub(r"(?<![^\s(\[])-(?=\d)", "$-$", escaped)  # a minus where a number begins; within a name, a hyphen


def _in_markdown(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))
