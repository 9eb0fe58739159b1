"""A worker on one thread of the CPU: what tests that compute in their own process give to the stages."""

import json

from pipelines.compute.cluster import Worker
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.craft import Crafter, craft_job
from pipelines.stages.reasons import Measurer, ReasonsItem, read_both, reasons_job

WORKER = Worker(device="cpu", threads=1, cpus=1, gpus=0, resources={}, wanted=1)


def crafter_of(blueprint: Blueprint) -> Crafter:
    """Crafts chunk after chunk as a worker of a run does."""
    return Crafter(craft_job(blueprint, "cpu", threads=1, patience=60.0))


def measure(blueprint: Blueprint, chunks: int | None = None) -> None:
    """Measures what is missing of all reasons, as a worker of a run does, or no more than the first chunks of it."""
    if not blueprint.measurings:
        return
    job, store, rows = reasons_job(blueprint, "cpu", threads=1, patience=60.0), blueprint.store, blueprint.sample.rows
    measurer = Measurer(job)
    for number, one in enumerate(blueprint.measurings):
        if not one.joint.is_finished(store.listing()):
            missing = list(one.joint.missing(store, store.listing(), len(rows)).items())[:chunks]
            for chunk, lacking in missing:
                measurer(read_both(job, ReasonsItem(number=number, chunk=chunk, lacking=json.dumps(lacking))))
            if chunks is None:
                one.joint.finish(store, rows)
