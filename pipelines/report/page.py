"""Outcomes -> tables, figures and one HTML page. Made again only when what it is computed from has changed."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.stages.blueprint import Blueprint
from pipelines.storage.csv_table import from_csv, to_csv
from pipelines.storage.store import Store, fingerprint_of

Row = dict[str, Any]

TABLES = ("transfer", "contrasts", "surrogates")
FIGURES = ("gain", "transfer")
FILES = (*(f"{table}.csv" for table in TABLES), *(f"{figure}.png" for figure in FIGURES), "report.html")
_REVISION = 2
_TEXT_COLUMNS = {"surrogate", "attack", "target", "relation", "baseline"}

NOTES = (
    "Rates, gains and accuracies are in percent and points. A rate is over the test images that the original source "
    "and the target both classify correctly when clean: the same images for every surrogate and attack.",
    "Intervals (95 %) are over images, not over training seeds: another run of the same training would move the "
    "figures by more than they say. p-values (exact McNemar) are not corrected for the number of comparisons.",
    "robust_accuracy is the share still right under every attack of this experiment: an upper bound on true "
    "robustness.",
)

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:76rem;padding:0 1rem;color:#1b1f24}"
    "h1{font-size:1.6rem}h2{font-size:1.1rem;margin-top:2.5rem}img{max-width:100%;display:block;margin:2rem auto}"
    "aside{border-left:3px solid #0072b2;padding:.1rem 1rem;background:#eef1f5;font-size:13px}aside p{margin:.5rem 0}"
    "div{overflow:auto;max-height:40rem}table{border-collapse:collapse;font-size:13px}"
    "td,th{padding:.2rem .7rem;border-bottom:1px solid #dde1e6;text-align:right;font-variant-numeric:tabular-nums}"
    "th{position:sticky;top:0;background:#fff}.text{text-align:left;white-space:nowrap}"
    ".mean td{background:#eef1f5;font-weight:600}"
)


@dataclass(frozen=True)
class Report:
    """The tables, as rows; blank cells are None."""

    fingerprint: str
    transfer: list[Row]
    contrasts: list[Row]
    surrogates: list[Row]

    def means(self) -> list[Row]:
        """The `(mean)` row of every surrogate and attack, with the surrogate's clean accuracy."""
        clean = {row["surrogate"]: row for row in self.surrogates}
        return [
            row | {"clean_accuracy": clean[row["surrogate"]]["clean_accuracy"]}
            for row in self.transfer
            if row["target"] == "(mean)"
        ]


def report_fingerprint(blueprint: Blueprint) -> str:
    """Of everything that the tables are computed from."""
    relations = {name: [m.config.architecture, m.config.family] for name, m in blueprint.networks.items()}
    tables = [cell.table.fingerprint for cell in blueprint.cells()]
    tables += [table.fingerprint for _, table in blueprint.clean().values()]
    cells = [[cell.surrogate, cell.attack, cell.target] for cell in blueprint.cells()]
    return fingerprint_of([_REVISION, blueprint.experiment.name, blueprint.experiment.seed, tables, cells, relations])


def make_report(blueprint: Blueprint) -> tuple[Report, bool]:
    """The report, and whether it had to be made: where its files are up to date they are read."""
    wanted = report_fingerprint(blueprint)
    stored = blueprint.store.read_json("report/report.json")
    there = blueprint.store.listing("report").get("report", [])
    if stored is not None and stored["fingerprint"] == wanted and set(FILES) <= set(there):
        return read_report(blueprint.store), False
    from pipelines.report.figures import gain_figure, transfer_heatmap
    from pipelines.report.outcomes import read_outcomes
    from pipelines.report.tables import COLUMNS, TableMaker

    maker = TableMaker(blueprint, read_outcomes(blueprint))
    report = Report(wanted, maker.transfer(), maker.contrasts(), maker.surrogates())
    name = blueprint.experiment.name
    figures = {
        "gain": gain_figure(report.transfer, f"{name}: gain in transfer"),
        "transfer": transfer_heatmap(report.transfer, f"{name}: transfer rate, %"),
    }
    blueprint.store.delete("report/report.json")  # until all files are there they are nobody's
    for table in TABLES:
        blueprint.store.write(f"report/{table}.csv", to_csv(getattr(report, table), COLUMNS[table]))
    for figure, content in figures.items():
        blueprint.store.write(f"report/{figure}.png", content)
    blueprint.store.write("report/report.html", html_page(name, report, figures).encode())
    blueprint.store.write_json("report/report.json", {"fingerprint": wanted})
    return report, True


def read_report(store: Store) -> Report:
    """The report that lies in the store. Raises FileNotFoundError where there is none."""
    tables = {table: _rows(store.read(f"report/{table}.csv")) for table in TABLES}
    stored = store.read_json("report/report.json") or {}
    return Report(fingerprint=str(stored.get("fingerprint")), **tables)


def _rows(content: bytes) -> list[Row]:
    def value(column: str, cell: str) -> Any:
        if column in _TEXT_COLUMNS:
            return cell
        return None if cell == "" else (int(cell) if column == "n" else float(cell))

    return [{column: value(column, cell) for column, cell in row.items()} for row in from_csv(content)]


def verdicts(report: Report) -> list[str]:
    """What the mean gains say, in words, and no more than their intervals bear."""
    lines = []
    for row in report.means():
        if row["gain"] is None:
            continue
        interval = f"{row['gain']:+.1f} points ({row['gain_low']:+.1f} to {row['gain_high']:+.1f})"
        if row["gain_low"] > 0:
            said = f"transfers better than the source: {interval}"
        elif row["gain_high"] < 0:
            said = f"transfers worse than the source: {interval}"
        else:
            said = f"shows no difference from the source that the images could tell: {interval}"
        lines.append(f"{row['surrogate']} under {row['attack']}: {said}")
    return lines


def html_page(name: str, report: Report, figures: dict[str, bytes]) -> str:
    """One page that needs no other file."""
    images = "".join(
        f'<img alt="{figure}" src="data:image/png;base64,{base64.b64encode(content).decode()}">'
        for figure, content in figures.items()
    )
    said = "".join(f"<li>{html.escape(line)}</li>" for line in verdicts(report))
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in NOTES)
    tables = "".join(f"<h2>{table}.csv</h2>{_html_table(getattr(report, table))}" for table in TABLES)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(name)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{html.escape(name)}</h1><ul>{said}</ul><aside>{notes}</aside>{images}{tables}</body></html>\n"
    )


def _html_table(rows: Sequence[Row]) -> str:
    if not rows:
        return "<p>none</p>"

    def cell(tag: str, column: str, text: str) -> str:
        kind = ' class="text"' if column in _TEXT_COLUMNS else ""
        return f"<{tag}{kind}>{html.escape(text)}</{tag}>"

    head = "".join(cell("th", column, column.replace("_", " ")) for column in rows[0])
    body = []
    for row in rows:
        kind = ' class="mean"' if str(row.get("target", "")).startswith("(mean") else ""
        cells = "".join(cell("td", column, _shown(column, value)) for column, value in row.items())
        body.append(f"<tr{kind}>{cells}</tr>")
    return f"<div><table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"


def _shown(column: str, value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.2g}" if column == "p_value" else f"{value:.2f}"
