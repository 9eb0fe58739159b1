"""The page and the table of a comparison of several experiments: comparison.html and comparison.csv."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from align_core.errors import InputError, reason_of
from pipelines.report.comparison import COLUMNS, Comparison
from pipelines.report.drawing import as_svg, within_page
from pipelines.report.html_page import templates
from pipelines.report.relations import KindGain, relation_figures
from pipelines.report.shown import Cell, ShownTable, cell_of, limits_of
from pipelines.storage.credentials import without_credentials
from pipelines.storage.csv_table import to_csv
from pipelines.storage.store import Store


def comparison_files(comparison: Comparison) -> dict[str, bytes]:
    """The files of a comparison by their names."""
    gains = [
        KindGain(row["surrogate"], row["attack"], row["experiment"], row["gain"], row["gain_low"], row["gain_high"])
        for row in comparison.rows
        if row["target"] == "(mean)" and None not in (row["gain"], row["gain_low"], row["gain_high"])
    ]
    drawn = relation_figures(gains, "mean gain by experiment") if gains else []
    figures = [within_page(as_svg(figure), f"gain-{number}") for number, figure in enumerate(drawn, start=1)]
    page = templates().get_template("comparison.html")
    text = page.render(
        comparison=comparison,
        cells=side_by_side(comparison),
        differences=_differences(comparison),
        figures=[Markup(figure) for figure in figures],
    )
    return {"comparison.csv": to_csv(comparison.rows, COLUMNS), "comparison.html": f"{text}\n".encode()}


def write_comparison(comparison: Comparison, output: str) -> Path:
    """Writes the files of a comparison into a folder of this machine, and returns it.

    Raises InputError, and writes nothing, where the folder cannot be made, or a file in it cannot be written.
    """
    if "://" in output:
        raise InputError(f"--output {without_credentials(output)}: name a folder on this machine, not a URI")
    folder, files = Path(output), comparison_files(comparison)
    for above in (folder, *folder.absolute().parents):
        if os.path.lexists(above) and not above.is_dir():
            raise InputError(f"--output {output}: {above} is a file, and no folder; name another folder")
    for name in files:
        if (folder / name).is_dir():
            raise InputError(f"--output {output}: {folder / name} is a folder; remove it, or name another --output")
    try:
        store = Store(str(folder.absolute().parent), folder.absolute().name)
        store.check_writable()
        for name, content in files.items():
            store.write(name, content)
    except OSError as problem:
        raise InputError(
            f"--output {output}: it cannot be written ({reason_of(problem)}); name another folder"
        ) from problem
    return folder


def side_by_side(comparison: Comparison) -> ShownTable:
    """A row per cell: rate and gain of each experiment beside those of the others, blank where one has no such cell."""
    cells: dict[tuple[str, str, str], dict[str, Mapping[str, Any]]] = {}
    for row in comparison.rows:
        cells.setdefault((row["surrogate"], row["attack"], row["target"]), {})[row["experiment"]] = row
    has_targeted = any(row["targeted_rate"] is not None for row in comparison.rows)
    kinds = ("rate", *(["targeted_rate"] if has_targeted else []), "gain")
    rows = [
        [*(Cell(name, name) for name in names), *_shown(by_label, comparison.labels, kinds)]
        for names, by_label in cells.items()
    ]
    headings = [f"{kind.replace('_', ' ')}, {label}" for kind in kinds for label in comparison.labels]
    columns = ["surrogate", "attack", "target", *headings]
    means = {number for number, (_, _, target) in enumerate(cells) if target == "(mean)"}
    return ShownTable("cells", columns, [True] * 3 + [False] * (len(columns) - 3), rows, means)


def _shown(by_label: Mapping[str, Mapping[str, Any]], labels: Sequence[str], kinds: Sequence[str]) -> list[Cell]:
    found = []
    for kind in kinds:
        for label in labels:
            row = by_label.get(label, {})
            low, high = limits_of(kind)
            found.append(cell_of(kind, row.get(kind), (row.get(low), row.get(high))))
    return found


def _differences(comparison: Comparison) -> ShownTable:
    rows = [[Cell(text, text) for text in (key, *values)] for key, values in comparison.differences.items()]
    return ShownTable(
        "differences", ["setting", *comparison.labels], [True] * (1 + len(comparison.labels)), rows, set()
    )
