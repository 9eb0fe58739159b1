"""Tables for LaTeX and Markdown: the rows that are shown, with whatever a name holds escaped."""

import re

from pipelines.report.exports import as_latex, as_markdown
from pipelines.report.page import computed_report, read_report
from pipelines.report.shown import Cell, ShownTable, cell_of, shown_tables, summary

EVIL = r"a_b & 5% #1 \x {y} ~^ | <b> *z* `q`"


def one_row(*texts: str) -> ShownTable:
    return ShownTable("t", ["name", "n"], [True, False], [[Cell(text, text) for text in texts]], set())


def test_latex_is_escaped_and_a_minus_is_one():
    text = as_latex(one_row(EVIL, "-3.2 (-4.0 to +1.0)")).decode()
    escaped = r"a\_b \& 5\% \#1 \textbackslash{}x \{y\} \textasciitilde{}\textasciicircum{} | "
    escaped += r"\textless{}b\textgreater{} *z* `q`"
    start = "% needs the package booktabs\n\\begin{tabular}{lr}\n\\toprule\nname & n \\\\\n\\midrule\n"
    assert text == f"{start}{escaped} & $-$3.2 ($-$4.0 to +1.0) \\\\\n\\bottomrule\n\\end{{tabular}}\n"


def test_a_hyphen_within_a_name_stays_one():
    for name, escaped in {"x_1.-2": r"x\_1.-2", "a--1": "a--1", "t-16": "t-16"}.items():
        assert f"\n{escaped} & [$-$1 ($-$2 to $-$1)] " in as_latex(one_row(name, "[-1 (-2 to -1)]")).decode()


def test_markdown_is_escaped():
    head, rule, row = as_markdown(one_row(EVIL, "-3.2")).decode().splitlines()
    assert (head, rule) == ("| name | n |", "| --- | ---: |")
    assert row == r"| a\_b & 5% #1 \\x {y} ~^ \| \<b\> \*z\* \`q\` | -3.2 |"


def test_a_table_of_many_rows_goes_on_over_pages():
    many = one_row("a", "1")._replace(rows=[[Cell("a", "a"), Cell("1", 1)]] * 41)
    text = as_latex(many).decode()
    assert text.count("\\begin{longtable}{lr}") == text.count("\\end{longtable}") == text.count("\\endhead") == 1
    assert text.count("a & 1") == 41


def test_both_hold_every_row_and_column_of_the_page(reported):
    report = read_report(reported.blueprint().store)
    for table in (summary(report), *shown_tables(report)):
        latex = (reported.report / "tables" / f"{table.name}.tex").read_text()
        markdown = (reported.report / "tables" / f"{table.name}.md").read_text().splitlines()
        assert len(markdown) == 2 + len(table.rows)
        assert len([line for line in latex.splitlines() if line.endswith(r"\\")]) == 1 + len(table.rows)
        for line, cells in zip(markdown[2:], table.rows, strict=True):
            assert [re.sub(r"\\(.)", r"\1", cell.strip()) for cell in line[1:-1].split(" | ")] == [
                c.text for c in cells
            ]


def test_an_interval_stands_beside_its_estimate(blueprint):
    report = computed_report(blueprint)
    (transfer,) = (table for table in shown_tables(report) if table.name == "transfer")
    assert not [column for column in transfer.columns if column.endswith((" low", " high"))]
    for row, cells in zip(report.transfer, transfer.rows, strict=True):
        gain = cells[transfer.columns.index("gain")]
        assert gain.order == row["gain"]
        wanted = (
            "" if row["gain"] is None else f"{row['gain']:+.1f} ({row['gain_low']:+.1f} to {row['gain_high']:+.1f})"
        )
        assert gain.text == wanted
    own = {(row["surrogate"], row["attack"]): row for row in report.means()}
    for cells in summary(report).rows:
        assert cells[2].order == own[cells[0].text, cells[1].text]["rate"]


def test_what_rounds_to_zero_has_no_minus():
    assert cell_of("gain", -0.04, (-0.9, 0.8)).text == "+0.0 (-0.9 to +0.8)"
    assert cell_of("rate", -0.0, (None, None)).text == "0.0"
    assert cell_of("gain", -0.06, (-0.9, -0.04)).text == "-0.1 (-0.9 to -0.0)"
