"""The check of the tables of reasons: whether each is of these networks, settings and images, and whole."""

import pyarrow as pa

from align_core.errors import reason_of
from pipelines.failure import RunFailed
from pipelines.report.outcomes import read_table
from pipelines.run.verification import Verification
from pipelines.stages.blueprint import Blueprint
from pipelines.storage.chunked_table import ChunkedTable

# Whatever a file that was damaged, or that someone else wrote, can raise when it is read.
_UNREADABLE = (
    OSError, ValueError, KeyError, TypeError, IndexError, OverflowError, MemoryError, pa.ArrowException, RunFailed
)  # fmt: skip


def check_reasons(blueprint: Blueprint, found: Verification) -> None:
    """Reads every table of reasons; what it holds is trusted, and the tables of the report are computed from it."""
    tables = blueprint.reasons().values()
    manifest = blueprint.inspected.manifests["test"]
    ids = [manifest.ids[position] for position in blueprint.sample.positions]
    labels = [int(manifest.labels[position]) for position in blueprint.sample.positions]
    for table in tables:
        found.checked["tables"] += 1
        try:
            problem = _problem_of(blueprint, table, ids, labels)
        except _UNREADABLE as raised:
            problem = f"cannot be read ({reason_of(raised)})"
        if problem:
            found.report(f"{table.folder}: {problem}")
        else:
            found.checked["rows"] += len(ids)
    if tables:
        found.trusted.append("the reasons of single images, from which the report's tables are computed")


def _problem_of(blueprint: Blueprint, table: ChunkedTable, ids: list[str], labels: list[int]) -> str | None:
    about = table.about(blueprint.store)
    if about.get("fingerprint") != table.fingerprint or about["inputs"] != table.inputs:
        return "the settings recorded in the file are not those that its name stands for"
    if about.get("rows") != blueprint.sample.rows or about["groups"] != blueprint.sample.rows:
        return f"holds {sum(about['groups'])} rows in {len(about['groups'])} chunks, which are not those of the sample"
    rows = read_table(blueprint.store, table, ["image_id", "label"])
    if rows["image_id"].to_pylist() != ids or rows["label"].to_pylist() != labels:
        return "does not hold the images, or the labels, of the sample"
    return None
