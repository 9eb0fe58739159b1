"""Which chunks of the tables of an experiment are there."""

from collections.abc import Collection

from pipelines.stages.blueprint import Blueprint
from pipelines.storage.chunked_table import Listing


def done_chunks(blueprint: Blueprint, listing: Listing) -> dict[str, Collection[int]]:
    """By the folder of every table, the numbers of the chunks that are there: all of them once it is finished."""
    tables = list(blueprint.all_adversarial().values())
    found: dict[str, Collection[int]] = {table.folder: table.done_chunks(listing) for table in tables}
    for one in blueprint.evaluations:
        found |= one.joint.done_chunks(blueprint.store, listing)
        tables = tables + one.joint.tables
    found |= {table.folder: range(len(blueprint.rows)) for table in tables if table.is_finished(listing)}
    for own in (own.joint for own in blueprint.measurings):
        found |= own.within.done_chunks(blueprint.store, listing)
        chunks = range(len(blueprint.sample.chunks))
        found |= {table.folder: chunks for table in own.tables if table.is_finished(listing)}
    return found
