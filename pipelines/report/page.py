"""Makes the report from the outcomes: tables, figures, results.json, and an HTML page that needs no other file.

A report is made again only when something that it is computed from has changed.
"""

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

from pipelines.failure import RunFailed
from pipelines.report.facts import Facts, about, facts_of
from pipelines.report.remarks import remarks_on, uneven
from pipelines.report.rows import COLUMNS
from pipelines.report.shown import TEXT_COLUMNS, shown_tables, summary
from pipelines.report.tabled import Report
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.effects import effect_of
from pipelines.storage.csv_table import from_csv, to_csv
from pipelines.storage.store import Say, Store, fingerprint_of

FILES = (
    *(f"{table}.csv" for table in COLUMNS),
    *(f"{figure}.{kind}" for figure in ("gain", "transfer", "pareto") for kind in ("png", "svg")),
    "results.json",
    "report.html",
)
"""The files that every report has, in the folder `report`. What else was written, such as further figures, is listed in
report.json, which says what the report was made from, and holds the hash of every file."""
_KEPT = "report/report.json"
_REVISION = 19  # to be raised when the same outcomes give other figures, or are no longer taken for sound
_WHOLE_COLUMNS = {
    "n", "gradients", "images", "seed", "seeds", "severity", "steps", "images_seen", "forward_passes", "backward_passes"
}  # fmt: skip


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
    warning = [{"warning": blueprint.experiment.warning}] if blueprint.experiment.warning else []
    made = {name: own.compare_with for name, own in blueprint.experiment.made_elsewhere.items()}
    reasons = [{"/".join(pair): table.fingerprint for pair, table in blueprint.reasons().items()}]
    reasons = reasons if blueprint.experiment.reasons else []
    further = [*holes, *groups, *contrasts, *warning, *reasons, *([{"made_elsewhere": made}] if made else [])]
    return fingerprint_of([_REVISION, *named, tables, cells, relations, *further, effects])


def make_report(blueprint: Blueprint, say: Say = lambda line: None) -> tuple[Report, bool]:
    """Returns the report of a finished experiment, and whether it had to be made.

    A report that is up to date is read from its files; otherwise all of them are written. One whose files are not those
    that were written, because someone edited or damaged them, is made again, and `say` is told. Raises RunFailed if a
    table of outcomes is damaged, or something else lies where a file of the report has to be written.
    """
    store, wanted = blueprint.store, report_fingerprint(blueprint)
    store.check_free(f"report/{file}" for file in ("report.json", "logged.json", *FILES))
    if (store.read_json(_KEPT) or {}).get("fingerprint") == wanted:
        changed = changed_files(store)
        if not changed:
            return read_report(store), False
        say(f"report: {', '.join(changed)} {'is' if len(changed) == 1 else 'are'} not as written; it is made again")
    report, remarks, facts = _computed(blueprint, say)
    _write(blueprint, report, remarks, facts())
    return report, True


def computed_report(blueprint: Blueprint) -> Report:
    """The report, computed from the outcomes. Raises RunFailed if a table of outcomes is damaged, or there are none."""
    return _computed(blueprint)[0]


def _computed(blueprint: Blueprint, say: Say = lambda line: None) -> tuple[Report, list[str], Callable[[], Facts]]:
    """The report, what its page has to say before its tables, and a function that gathers what it says besides.

    `say` is told those remarks that no stage has said.
    """
    from pipelines.report.outcomes import read_outcomes
    from pipelines.report.over_seeds import TablesOverSeeds
    from pipelines.report.reasons import tables_of_reasons
    from pipelines.report.robustness import Robustness
    from pipelines.report.surrogate_rows import with_clean_intervals
    from pipelines.report.tables import TableMaker

    outcomes = read_outcomes(blueprint)
    for line in uneven(outcomes):
        say(line)
    by_itself = TableMaker(blueprint, outcomes)
    maker = TablesOverSeeds(by_itself) if blueprint.experiment.seeds else by_itself
    robustness = Robustness(blueprint, outcomes).rows()
    surrogates = with_clean_intervals(maker.surrogates(), robustness)
    tables = maker.transfer(), maker.contrasts(), surrogates, robustness, maker.seeds(), maker.times()
    report = Report(report_fingerprint(blueprint), *tables, *tables_of_reasons(blueprint, tables[0]))
    if not report.transfer:
        every = " that every seed has" if blueprint.experiment.seeds else ""
        raise RunFailed(f"there is nothing to report{every}: " + "; ".join(blueprint.holes()))
    return report, remarks_on(blueprint, outcomes, report.transfer), lambda: facts_of(blueprint, outcomes)


def changed_files(store: Store, names: Sequence[str] = ()) -> list[str]:
    """Those files of a report that are missing, or whose bytes are not those of which report.json has the hash.

    `names` are the files that are looked at; by default all that were written, and all that every report has.
    """
    written, there = written_files(store), _listed(store)
    wanted = names or dict.fromkeys([*FILES, *written])
    return [name for name in wanted if name not in there or store.sha256(f"report/{name}") != written.get(name)]


def written_files(store: Store) -> dict[str, str]:
    """The hash of every file of a report, by its name in the folder `report`, as report.json has it."""
    hashes = (store.read_json(_KEPT) or {}).get("files")
    return hashes if isinstance(hashes, dict) else {}


def _listed(store: Store) -> set[str]:
    """The files below the folder `report`, by their names in it."""
    listing = store.listing("report").items()
    return {f"{folder}/{name}".removeprefix("report/") for folder, names in listing for name in names}


def _write(blueprint: Blueprint, report: Report, remarks: Sequence[str], facts: Facts) -> None:
    store, files = blueprint.store, report_files(blueprint, report, remarks, facts)
    store.check_free(f"report/{file}" for file in files)
    # report.json goes first and comes back last: a run that is killed in between leaves a report that counts as absent.
    before = written_files(store).keys() & _listed(store)
    store.delete(_KEPT)
    for file, content in files.items():
        store.write(f"report/{file}", content)
    for file in before - files.keys():  # such as a figure for which there is nothing to show any more
        store.delete(f"report/{file}")
    hashes = {file: sha256(content).hexdigest() for file, content in files.items()}
    store.write_json(_KEPT, {"fingerprint": report.fingerprint, "files": hashes})


def report_files(blueprint: Blueprint, report: Report, remarks: Sequence[str], facts: Facts) -> dict[str, bytes]:
    """Every file of a report but report.json, by its name in the folder `report`."""
    from pipelines.report.drawing import as_png, as_svg, within_page
    from pipelines.report.drawn import draw_figures
    from pipelines.report.exports import as_latex, as_markdown, as_results
    from pipelines.report.html_page import Page, html_page

    files = {f"{table}.csv": to_csv(rows, COLUMNS[table]) for table, rows in report.tables().items()}
    for table in (summary(report), *shown_tables(report)):
        files[f"tables/{table.name}.tex"] = as_latex(table)
        files[f"tables/{table.name}.md"] = as_markdown(table)
    elements = {}
    for name, figure in draw_figures(blueprint, report).items():
        files[f"{name}.svg"], files[f"{name}.png"] = as_svg(figure), as_png(figure)
        elements[name] = within_page(files[f"{name}.svg"], name)
    pictures = [file for file in files if file.endswith((".png", ".svg"))]
    files["results.json"] = as_results(report, about(blueprint), remarks, pictures)
    page = Page(blueprint.experiment.name, report, elements, remarks, facts)
    files["report.html"] = html_page(page).encode()
    return files


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
        if column in TEXT_COLUMNS:
            return cell
        if cell == "":
            return None
        return int(cell) if column in _WHOLE_COLUMNS else float(cell)

    return [{column: value(column, cell) for column, cell in row.items()} for row in from_csv(content)]
