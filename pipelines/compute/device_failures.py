"""Devices that fail: a worker that meets a device error ends itself, and a GPU on which it happens twice is left alone.

After such an error a process can compute nothing more on its device, and everything that it then tried would fail too.
So it writes down what happened, on which device and at which work, and ends; Ray starts another, which tries the work
again. The notes lie in the store, where every worker and the driver find them, and are deleted when the run ends.

Where the same work meets a device error for the third time, the network or the attack is the likely cause, and not a
GPU: the error is then a failure of this work, and counts against no GPU.
"""

import os
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import NamedTuple

from align_core.errors import reason_of
from pipelines.storage.store import Store

FOLDER = ".devices"
"""The folder in the store that holds the notes."""

_TRIES = 3  # of the same work
_TOLERATED = 1  # failures of a GPU


class Device(NamedTuple):
    """What this process computes on: a node by Ray's id, one of its GPUs by Ray's id ("" for the CPUs), and a name."""

    node: str
    gpu: str
    name: str


@dataclass(frozen=True)
class DeviceFailure:
    """A note: the device, the work at which it failed, and what CUDA said."""

    device: Device
    work: str
    reason: str


class LeftAlone(RuntimeError):
    """This process was given a GPU that is to be left alone. It has done nothing; the driver must begin again."""


class _Guard:
    """Ends this process where its device fails, so that it takes no further work."""

    def __init__(self) -> None:
        self._at: tuple[Store, str] | None = None
        self._is_broken = False

    @contextmanager
    def over(self, store: Store, work: str) -> Iterator[None]:
        """Ends the process where a device error is met in the block, unless it was met at this work often enough.

        Args:
            work: tells it from all other work of the run.
        """
        if self._is_broken:
            os._exit(1)
        self._at = (store, work)
        try:
            yield
        except Exception as problem:
            self.meet(problem)
            raise
        finally:
            self._at = None

    def meet(self, problem: BaseException) -> bool:
        """Ends the process for a device error, but where this was met at the work often enough.

        Whoever catches exceptions of torch within the block calls this first. Returns whether there is a device error
        behind the exception: then the process will end as soon as it is given other work, and others may succeed.
        """
        from align_core.device_errors import device_error  # imports torch, which the driver must not

        error = device_error(problem)
        if error is None:
            return False
        if self._at is None:  # nobody would try the work again
            raise problem
        if self._is_broken:
            return True
        store, work = self._at
        failure = DeviceFailure(_this_device(), work, reason_of(error))
        store.write_json(f"{FOLDER}/{uuid.uuid4().hex}.json", asdict(failure) | {"device": failure.device._asdict()})
        if sum(own.work == work for own in device_failures(store)) < _TRIES:
            os._exit(1)
        self._is_broken = True
        return True


GUARD = _Guard()
"""Guards the work of this process."""


def given() -> tuple[str, str]:
    """The node of this process and the GPU that Ray has given it, by Ray's ids; "" for no GPU."""
    import ray

    context = ray.get_runtime_context()
    return context.get_node_id(), str(next(iter(context.get_accelerator_ids().get("GPU", [])), ""))


def _this_device() -> Device:
    import ray

    (node, gpu), host = given(), ray.util.get_node_ip_address()
    return Device(node, gpu, f"GPU {gpu} of node {host}{_card()}" if gpu else f"the CPUs of node {host}")


def _card() -> str:
    """What kind of GPU this process has, and which one, where it can still be asked."""
    import torch

    try:
        found = torch.cuda.get_device_properties(0)
    except (RuntimeError, AssertionError):  # a broken one may not answer; there may be no driver
        return ""
    return f" ({found.name}, {found.uuid})"


def device_failures(store: Store) -> list[DeviceFailure]:
    """The notes of this run."""
    found = (store.read_json(f"{FOLDER}/{name}") for name in store.listing(FOLDER).get(FOLDER, ()))
    return [DeviceFailure(Device(**own["device"]), own["work"], own["reason"]) for own in found if own]


def left_alone(failures: Sequence[DeviceFailure]) -> dict[Device, list[str]]:
    """The GPUs that failed twice, with what CUDA said. Failures at work that fails everywhere count for none."""
    times = Counter(own.work for own in failures)
    found: dict[Device, list[str]] = {}
    for own in failures:
        if own.device.gpu and times[own.work] < _TRIES:
            found.setdefault(own.device, []).append(own.reason)
    return {device: reasons for device, reasons in found.items() if len(reasons) > _TOLERATED}


def check_not_left_alone(store: Store) -> None:
    """Raises LeftAlone where this process has a GPU that is to be left alone."""
    node, gpu = given()
    for device, reasons in left_alone(device_failures(store)).items() if gpu else ():
        if (device.node, device.gpu) == (node, gpu):
            raise LeftAlone(said_of(device, reasons))


def said_of(device: Device, reasons: list[str]) -> str:
    """A sentence about a GPU that is left alone, without its full stop."""
    return f"{device.name} failed {len(reasons)} times and is left alone: {'; '.join(sorted(set(reasons)))}".rstrip(".")
