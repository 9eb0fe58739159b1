"""GPUs that are left alone are kept from all workers: an actor that does nothing holds each of them.

Ray gives a process any free GPU of a node, and has no way to exclude one. So actors take every free GPU of the node,
and those that got another one give it back.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock
from typing import Any

from pipelines.compute.device_failures import FOLDER, device_failures, given, left_alone, said_of
from pipelines.storage.store import Say, Store

_PATIENCE_S = 60.0  # workers that have just been told to end still hold their GPUs


class _Holder:
    """Holds a GPU for as long as it lives."""

    def where(self) -> tuple[str, str]:
        """The GPU that it holds, by Ray's ids of its node and of itself."""
        return given()


class _Kept:
    """The GPUs that this process, the driver of a run, keeps from its workers."""

    def __init__(self) -> None:
        self._holders: dict[tuple[str, str], Any] = {}
        self._lock = Lock()  # fine-tunes run side by side

    def keep(self, store: Store) -> None:
        """Keeps the GPUs that failed twice, as far as Ray can give them to this run, and no other ones."""
        wanted = {(own.node, own.gpu) for own in left_alone(device_failures(store))}
        with self._lock:
            self._release(self._holders.keys() - wanted)
            for node in {node for node, _ in wanted - self._holders.keys()}:
                self._keep_on(node, {own for own in wanted - self._holders.keys() if own[0] == node})

    def misses(self, store: Store) -> bool:
        """Whether there is a GPU that failed twice and that this process does not keep."""
        return any((own.node, own.gpu) not in self._holders for own in left_alone(device_failures(store)))

    def by_node(self) -> Counter[str]:
        """How many GPUs are kept of each node, by Ray's id of the node."""
        return Counter(node for node, _ in self._holders)

    def release(self) -> None:
        """Gives all of them back."""
        with self._lock:
            self._release(set(self._holders))

    def _keep_on(self, node: str, wanted: set[tuple[str, str]]) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        gpus = sum(int(own["Resources"].get("GPU", 0)) for own in ray.nodes() if own["NodeID"] == node and own["Alive"])
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        options = ray.remote(_Holder).options(num_cpus=0, num_gpus=1, scheduling_strategy=there)
        holders = [options.remote() for _ in range(gpus)]
        waiting = {holder.where.remote(): holder for holder in holders}
        while waiting and not wanted <= self._holders.keys():
            answered, _ = ray.wait(list(waiting), timeout=_PATIENCE_S)
            if not answered:
                break
            for answer in answered:
                holder = waiting.pop(answer)
                with suppress(ray.exceptions.RayError):  # the node may be lost meanwhile, and the GPU with it
                    found = ray.get(answer)
                    if found in wanted:
                        self._holders[found] = holder
        for holder in holders:
            if holder not in self._holders.values():
                ray.kill(holder)

    def _release(self, devices: set[tuple[str, str]]) -> None:
        import ray

        for device in devices:
            holder = self._holders.pop(device)
            if ray.is_initialized():
                ray.kill(holder)


KEPT = _Kept()
"""The GPUs that this process keeps from its workers."""


@contextmanager
def naming_failed_devices(store: Store, say: Say) -> Iterator[None]:
    """Begins without notes of failures; says at the end of the block which devices failed, and gives them back."""
    store.delete_folder(FOLDER)
    try:
        yield
    finally:
        failures = device_failures(store)
        alone = left_alone(failures)
        for device, reasons in alone.items():
            say(f"{said_of(device, reasons)}. It should be looked at; the next run uses it again")
        others = Counter(own.device.name for own in failures if own.device not in alone)
        for name, times in others.items():
            say(f"{name}: {times} device error{'s' * (times > 1)}, after which a worker was started anew")
        KEPT.release()
        store.delete_folder(FOLDER)
