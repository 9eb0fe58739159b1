"""Nodes that the cluster has still to start: work waits for the first, and does not count that as no progress."""

import time
from typing import Any

from align_core.errors import reason_of
from pipelines.compute.cluster import Worker
from pipelines.failure import ONCE_MENDED, RunFailed
from pipelines.storage.store import Say

_SAID_EVERY = 60.0  # seconds
_LONGEST = 3600.0  # seconds, for nodes that are scarce or whose images are large


def await_node(worker: Worker, say: Say) -> None:
    """Returns once a node is up that is large enough for one such worker: at once where there is one.

    A GPU node may take ten minutes to start, which is longer than a pipeline of Ray Data may show no progress. Here the
    cluster's autoscaler is asked for it by a task that takes what the worker takes, and `say` is told every minute.
    Raises RunFailed where none is there after an hour.
    """
    if _is_up(worker):
        return
    import ray

    needs = ", ".join(f"{name}: {need:g}" for name, need in worker.needs.items())
    begin, place = time.monotonic(), ray.remote(_nothing).options(**worker.ray_options, max_retries=-1).remote()
    say(f"waiting for the cluster to start a node that has room for a worker ({needs})")
    try:
        while not _has_run(place, needs):
            waited = time.monotonic() - begin
            if waited > _LONGEST:
                raise RunFailed(
                    f"the cluster has started no node with room for a worker ({needs}) in {waited / 60:.0f} minutes; "
                    f"`ray status` says what its autoscaler does. {ONCE_MENDED}"
                )
            say(f"waiting for a node ({needs}) for {waited / 60:.0f} min")
    finally:
        ray.cancel(place)


def _nothing() -> None:
    """What runs on the node once it is up."""


def _has_run(place: Any, needs: str) -> bool:
    """Waits for a while, and returns whether the task has run. Raises RunFailed where it failed."""
    import ray

    done, _ = ray.wait([place], timeout=_SAID_EVERY)
    try:
        ray.get(done)
    except ray.exceptions.RayError as problem:
        raise RunFailed(
            f"the node that the cluster started for a worker ({needs}) cannot be used: {reason_of(problem)}. "
            f"{ONCE_MENDED}"
        ) from problem
    return bool(done)


def _is_up(worker: Worker) -> bool:
    """Whether a node that is up is large enough for the worker, whatever else works there."""
    import ray

    up = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return any(all(node.get(name, 0) >= need for name, need in worker.needs.items()) for node in up)
