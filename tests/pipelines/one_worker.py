"""A worker on one thread of the CPU: what tests that compute in their own process give to the stages."""

from pipelines.compute.cluster import Worker
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.craft import Crafter, craft_job

WORKER = Worker(device="cpu", threads=1, cpus=1, gpus=0, resources={}, wanted=1)


def crafter_of(blueprint: Blueprint) -> Crafter:
    """Crafts chunk after chunk as a worker of a run does."""
    return Crafter(craft_job(blueprint, "cpu", threads=1, patience=60.0))
