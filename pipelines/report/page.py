"""Makes the report from the outcomes: eight tables, three figures and an HTML page that needs no other file.

A report is made again only when something that it is computed from has changed.
"""

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from pipelines.failure import RunFailed
from pipelines.report.reason_rows import CorrelationRow, ReasonRow, SoftLabelRow
from pipelines.report.remarks import remarks_on, uneven
from pipelines.report.robustness_rows import RobustnessRow
from pipelines.report.rows import COLUMNS, ContrastRow, MeanRow, SeedRow, SurrogateRow, TimeRow, TransferRow
from pipelines.report.sentences import notes, verdicts
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.effects import effect_of
from pipelines.storage.csv_table import from_csv, to_csv
from pipelines.storage.store import Say, Store, fingerprint_of

FIGURES = ("gain", "transfer", "pareto")
FILES = (*(f"{table}.csv" for table in COLUMNS), *(f"{figure}.png" for figure in FIGURES), "report.html")
"""Every file of a report, in the folder `report`. Beside them, report.json says what they were made from, and holds
their hashes."""
_KEPT = "report/report.json"
_REVISION = 11  # to be raised when the same outcomes give other figures, or are no longer taken for sound
_WHOLE_COLUMNS = {
    "n", "gradients", "images", "seed", "seeds", "severity", "steps", "images_seen", "forward_passes", "backward_passes"
}  # fmt: skip
_TEXT_COLUMNS = {"surrogate", "attack", "target", "relation", "baseline", "worker", "refinement"}
_TEXT_COLUMNS |= {"kind", "name", "measure", "point", "counterpart", "role", "before_crafting", "witness"}
_ON_DEMAND = ("seeds", "reasons", "correlations", "soft_labels")  # tables that stand on the page where they have rows

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:76rem;padding:0 1rem;color:#1b1f24}"
    "h1{font-size:1.6rem}h2{font-size:1.1rem;margin-top:2.5rem}img{max-width:100%;display:block;margin:2rem auto}"
    "aside{border-left:3px solid #0072b2;padding:.1rem 1rem;background:#eef1f5;font-size:13px}aside p{margin:.5rem 0}"
    ".remarks{border-color:#d55e00;background:#fdf1e8}"
    "div{overflow:auto;max-height:40rem}table{border-collapse:collapse;font-size:13px}"
    "td,th{padding:.2rem .7rem;border-bottom:1px solid #dde1e6;text-align:right;font-variant-numeric:tabular-nums}"
    "th{position:sticky;top:0;background:#fff}.text{text-align:left;white-space:nowrap}"
    ".mean td{background:#eef1f5;font-weight:600}"
)


@dataclass(frozen=True)
class Report:
    """The tables of a finished experiment, row by row; a cell that is empty in the CSV file is None.

    Attributes:
        fingerprint: hash of everything that the tables are computed from.
        transfer: how well every surrogate transfers to every target.
        contrasts: aligned surrogates against the controls.
        surrogates: accuracy and robustness of the surrogates themselves.
        robustness: how accurate the surrogates themselves are: clean, attacked, and with common corruptions.
        seeds: what each of several seeds gave by itself; empty where there is one.
        times: how long crafting took. They are measured, so that they differ from run to run.
        reasons: what may explain the gains, of each surrogate. This and the next two are empty unless the experiment
            asks for reasons.
        correlations: which reasons go with the gain, across surrogates.
        soft_labels: what aligned surrogates were taught, by temperature.

    `rows.py` says what each column means.
    """

    fingerprint: str
    transfer: list[TransferRow]
    contrasts: list[ContrastRow]
    surrogates: list[SurrogateRow]
    robustness: list[RobustnessRow]
    seeds: list[SeedRow]
    times: list[TimeRow]
    reasons: list[ReasonRow] = field(default_factory=list)
    correlations: list[CorrelationRow] = field(default_factory=list)
    soft_labels: list[SoftLabelRow] = field(default_factory=list)

    def tables(self) -> dict[str, Sequence[Mapping[str, object]]]:
        """The rows of each table, by the name of its CSV file and in the order of the page."""
        return {name: getattr(self, name) for name in COLUMNS}

    def means(self) -> list[MeanRow]:
        """The `(mean)` row of every surrogate and attack, with the surrogate's clean accuracy."""
        accuracy = {row["surrogate"]: row["clean_accuracy"] for row in self.surrogates}
        means: list[MeanRow] = []
        for row in self.transfer:
            if row["target"] == "(mean)":
                means.append({**row, "clean_accuracy": accuracy.get(row["surrogate"])})
        return means


def report_fingerprint(blueprint: Blueprint) -> str:
    """Hashes everything that the tables are computed from, and the names that they contain."""
    relations = {name: [m.config.structure, m.config.family] for name, m in blueprint.networks.items()}
    tables = [cell.table.fingerprint for cell in blueprint.cells()]
    tables += [own.table.fingerprint for own in (*blueprint.clean().values(), *blueprint.corrupted().values())]
    cells = [[cell.surrogate, cell.attack, cell.target] for cell in blueprint.cells()]
    holes = [blueprint.holes()] if blueprint.holes() else []
    named = [blueprint.experiment.name, blueprint.experiment.seed]
    groups = [list(blueprint.experiment.groups.items())] if blueprint.experiment.groups else []
    effects = {own.name: effect.as_dict() for own in blueprint.surrogates if (effect := effect_of(blueprint, own.name))}
    contrasts = [{"contrasts": blueprint.experiment.contrasts}] if blueprint.experiment.contrasts else []
    reasons = [{"/".join(pair): table.fingerprint for pair, table in blueprint.reasons().items()}]
    reasons = reasons if blueprint.experiment.reasons else []
    return fingerprint_of([_REVISION, *named, tables, cells, relations, *holes, *groups, *contrasts, *reasons, effects])


def make_report(blueprint: Blueprint, say: Say = lambda line: None) -> tuple[Report, bool]:
    """Returns the report of a finished experiment, and whether it had to be made.

    A report that is up to date is read from its files; otherwise all of them are written. One whose files are not those
    that were written, because someone edited or damaged them, is made again, and `say` is told. Raises RunFailed if a
    table of outcomes is damaged.
    """
    store, wanted = blueprint.store, report_fingerprint(blueprint)
    if (store.read_json(_KEPT) or {}).get("fingerprint") == wanted:
        changed = changed_files(store)
        if not changed:
            return read_report(store), False
        say(f"report: {', '.join(changed)} {'is' if len(changed) == 1 else 'are'} not as written; it is made again")
    report, remarks = _computed(blueprint, say)
    _write(blueprint, report, remarks)
    return report, True


def computed_report(blueprint: Blueprint) -> Report:
    """The report, computed from the outcomes. Raises RunFailed if a table of outcomes is damaged, or there are none."""
    return _computed(blueprint)[0]


def _computed(blueprint: Blueprint, say: Say = lambda line: None) -> tuple[Report, list[str]]:
    """The report, and what its page has to say before its tables, of which `say` is told what no stage has said."""
    from pipelines.report.outcomes import read_outcomes
    from pipelines.report.over_seeds import TablesOverSeeds
    from pipelines.report.reasons import tables_of_reasons
    from pipelines.report.robustness import Robustness
    from pipelines.report.tables import TableMaker

    outcomes = read_outcomes(blueprint)
    for line in uneven(outcomes):
        say(line)
    by_itself = TableMaker(blueprint, outcomes)
    maker = TablesOverSeeds(by_itself) if blueprint.experiment.seeds else by_itself
    robustness = Robustness(blueprint, outcomes).rows()
    tables = maker.transfer(), maker.contrasts(), maker.surrogates(), robustness, maker.seeds(), maker.times()
    report = Report(report_fingerprint(blueprint), *tables, *tables_of_reasons(blueprint, tables[0]))
    if not report.transfer:
        every = " that every seed has" if blueprint.experiment.seeds else ""
        raise RunFailed(f"there is nothing to report{every}: " + "; ".join(blueprint.holes()))
    return report, remarks_on(blueprint, outcomes, report.transfer)


def changed_files(store: Store, names: Sequence[str] = FILES) -> list[str]:
    """Those files of a report that are missing, or whose bytes are not those of which report.json has the hash."""
    hashes = (store.read_json(_KEPT) or {}).get("files")
    written = hashes if isinstance(hashes, dict) else {}
    there = store.listing("report").get("report", [])
    return [name for name in names if name not in there or store.sha256(f"report/{name}") != written.get(name)]


def _write(blueprint: Blueprint, report: Report, remarks: Sequence[str]) -> None:
    from pipelines.report.figures import gain_figure, transfer_heatmap
    from pipelines.report.pareto import pareto_figure

    store, experiment = blueprint.store, blueprint.experiment
    name = experiment.name
    over = "; means are over each surrogate's own targets" if experiment.matrix else ""
    in_brackets = "; in brackets white-box" if experiment.matrix else ""
    figures = {
        "gain": gain_figure(report.transfer, f"{name}: gain in transfer{over}"),
        "transfer": transfer_heatmap(
            report.transfer,
            f"{name}: transfer rate, %{over}{in_brackets}",
            white_box_rates(blueprint, report.surrogates),
        ),
        "pareto": pareto_figure(
            report.transfer, experiment.attacks, list(experiment.groups), f"{name}: transfer rate against cost{over}"
        ),
    }
    # report.json goes first and comes back last: a run that is killed in between leaves a report that counts as absent.
    store.delete(_KEPT)
    files = {f"{table}.csv": to_csv(rows, COLUMNS[table]) for table, rows in report.tables().items()}
    files |= {f"{figure}.png": content for figure, content in figures.items()}
    files["report.html"] = html_page(name, report, figures, remarks).encode()
    for file, content in files.items():
        store.write(f"report/{file}", content)
    hashes = {file: sha256(content).hexdigest() for file, content in files.items()}
    store.write_json(_KEPT, {"fingerprint": report.fingerprint, "files": hashes})


def white_box_rates(
    blueprint: Blueprint, surrogates: Sequence[SurrogateRow]
) -> dict[tuple[str, str, str], float | None]:
    """(attack, surrogate, target) -> the white-box rate of every surrogate that is a target by itself, as in a matrix.

    The images that count are those that it classifies correctly, as both source and target.
    """
    alone = {own.series: own.members[0] for own in blueprint.surrogates if len(own.members) == 1}
    return {
        (row["attack"], row["surrogate"], target): row["whitebox_rate"]
        for row in surrogates
        if (target := alone.get(row["surrogate"])) in blueprint.targets and row["attack"] != "(all)"
    }


def read_report(store: Store) -> Report:
    """Reads the report of an experiment from its folder.

    Raises FileNotFoundError if it has none, and ValueError if its tables are not those that were written.
    """
    if not store.exists(_KEPT):
        raise FileNotFoundError(f"{store.location}/{_KEPT}")
    if changed := changed_files(store, [f"{table}.csv" for table in COLUMNS]):
        raise ValueError(f"{', '.join(changed)}: edited, damaged or missing since the report was made")
    tables = {table: _rows(store.read(f"report/{table}.csv")) for table in COLUMNS}
    return Report(str((store.read_json(_KEPT) or {}).get("fingerprint")), **tables)


def _rows(content: bytes) -> list[Any]:
    """The rows of a CSV file with its cells as text, whole number, fraction or None, by the name of their column."""

    def value(column: str, cell: str) -> str | int | float | None:
        if column in _TEXT_COLUMNS:
            return cell
        if cell == "":
            return None
        return int(cell) if column in _WHOLE_COLUMNS else float(cell)

    return [{column: value(column, cell) for column, cell in row.items()} for row in from_csv(content)]


def html_page(name: str, report: Report, figures: dict[str, bytes], remarks: Sequence[str] = ()) -> str:
    """The report as one HTML page with its figures embedded, so that the file can be mailed or archived by itself.

    Args:
        name: the experiment's name, the heading of the page.
        figures: PNG files by their name.
        remarks: what has to be known of this experiment before its tables are read, a sentence each.
    """
    images = "".join(
        f'<img alt="{figure}" src="data:image/png;base64,{base64.b64encode(content).decode()}">'
        for figure, content in figures.items()
    )
    sentences = "".join(f"<li>{html.escape(line)}</li>" for line in verdicts(report))
    explained = "".join(f"<p>{html.escape(note)}</p>" for note in notes(report))
    warned = "".join(f"<p>{html.escape(remark)}</p>" for remark in remarks)
    warned = f'<aside class="remarks">{warned}</aside>' if warned else ""
    there = {table: rows for table, rows in report.tables().items() if rows or table not in _ON_DEMAND}
    tables = "".join(f"<h2>{table}.csv</h2>{_html_table(rows)}" for table, rows in there.items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(name)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{html.escape(name)}</h1>{warned}<ul>{sentences}</ul><aside>{explained}</aside>{images}{tables}</body></html>\n"
    )


def _html_table(rows: Sequence[Mapping[str, object]]) -> str:
    """The rows as a table of the page, without the columns that are blank in all of them; the CSV files have all."""
    if not rows:
        return "<p>none</p>"
    shown = [column for column in rows[0] if any(row[column] not in (None, "") for row in rows)]

    def cell(tag: str, column: str, text: str) -> str:
        kind = ' class="text"' if column in _TEXT_COLUMNS else ""
        return f"<{tag}{kind}>{html.escape(text)}</{tag}>"

    head = "".join(cell("th", column, column.replace("_", " ")) for column in shown)
    body = []
    for row in rows:
        kind = ' class="mean"' if str(row.get("target", "")).startswith("(mean") else ""
        cells = "".join(cell("td", column, _shown(column, row[column])) for column in shown)
        body.append(f"<tr{kind}>{cells}</tr>")
    return f"<div><table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"


def _shown(column: str, value: object) -> str:
    """A value of a table in few digits; the CSV files hold it in full."""
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.2g}" if column in ("p_value", "p_holm") else f"{value:.2f}"
