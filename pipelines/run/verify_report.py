"""The checks of what people read: the report's tables, figures and page, and the settings in experiment.yaml."""

from collections.abc import Mapping
from typing import Any

import yaml

from align_core.errors import reason_of
from pipelines.failure import RunFailed
from pipelines.report.page import changed_files, computed_report, report_fingerprint
from pipelines.report.rows import COLUMNS
from pipelines.run.resolved import FOUND, resolved_hashes, resolved_settings
from pipelines.run.verification import Verification
from pipelines.stages.blueprint import Blueprint
from pipelines.storage.csv_table import to_csv

_NOT_DECIDING = {
    "output",
    "warning",
    "tracking",
    "factories",
    "compute",
    "path",
    "weights",
    "aligned",
    "checkpoint_steps",
    "labels",
}


def check_report(blueprint: Blueprint, found: Verification) -> None:
    """Computes the tables from the outcomes and compares them with the files; compares the others' hashes.

    Times were measured, and cannot be computed again: of their table the hash is compared.

    A report that was never made is no finding, and nor is one that was made from other results and counts as absent:
    `witness report` makes it.
    """
    store = blueprint.store
    kept = store.read_json("report/report.json")
    if kept is None or kept.get("fingerprint") != report_fingerprint(blueprint):
        found.trusted.append("the report, which is missing or out of date: `witness report` makes it")
        return
    changed = set(changed_files(store))
    try:
        tables = {name: rows for name, rows in computed_report(blueprint).tables().items() if name != "times"}
    except (RunFailed, OSError, KeyError) as problem:
        found.report(f"report: its tables cannot be computed from the outcomes ({reason_of(problem)})")
        tables = {}
    for name, rows in tables.items():
        found.checked["files of the report"] += 1
        file = f"{name}.csv"
        if not store.exists(f"report/{file}"):
            found.report(f"report/{file}: missing; `witness report` makes it again")
        elif store.read(f"report/{file}") != to_csv(rows, COLUMNS[name]):
            found.report(f"report/{file}: not the table that the outcomes give; `witness report` makes it again")
        elif file in changed:
            found.report("report/report.json: the hashes that it holds are not those of the tables")
        changed.discard(file)
    for file in sorted(changed):
        found.report(f"report/{file}: edited, damaged or missing since it was made; `witness report` makes it again")


def check_resolved(blueprint: Blueprint, found: Verification) -> None:
    """Compares the settings and hashes in experiment.yaml with those of the results.

    Where files and results lie, and how many workers there were, determines no result, and may have changed since.
    """
    try:
        text = blueprint.store.read("experiment.yaml").decode()
    except (OSError, UnicodeDecodeError) as problem:
        found.report(f"experiment.yaml: cannot be read ({reason_of(problem)})")
        return
    settings, _, comments = text.partition(FOUND)
    try:
        is_true = _deciding(yaml.safe_load(settings)) == _deciding(yaml.safe_load(resolved_settings(blueprint)))
    except yaml.YAMLError:
        is_true = False
    if not is_true:
        found.report("experiment.yaml: not the settings of these results; `witness run` writes it again")
    if not _are_hashes_true(comments, resolved_hashes(blueprint)):
        found.report("experiment.yaml: the hashes in its comments are not those of the weights and images")


def _deciding(settings: Any) -> Any:
    """The settings without those that only say where something lies or how the work is shared out."""
    if isinstance(settings, list):
        return [_deciding(item) for item in settings]
    if not isinstance(settings, dict):
        return settings
    kept = {key: _deciding(value) for key, value in settings.items() if key not in _NOT_DECIDING}
    if isinstance(compute := settings.get("compute"), dict):
        kept["compute"] = [compute.get("precision"), compute.get("chunk"), compute.get("pass")]
    return kept


def _are_hashes_true(comments: str, wanted: Mapping[str, Mapping[str, str | None]]) -> bool:
    """Whether each hash in the comments is that of the network or image set; one without weights then has none."""
    try:
        hashes = yaml.safe_load("\n".join(line.removeprefix("# ") for line in comments.splitlines()))
        return all(
            digest in (None, wanted[kind].get(name, digest)) for kind in wanted for name, digest in hashes[kind].items()
        )
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):
        return False
