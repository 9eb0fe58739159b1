"""The courier: a process on the command's own node that hands out the experiment's files to nodes that lack them.

It hands out weights, and image sets of up to `MOST_IMAGES`, and no other file: whatever is asked for is looked up among
the files that it has listed itself. `on_node` asks it, and keeps what arrives.
"""

import os
import socket
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from align_core.errors import InputError, reason_of
from align_core.images import ImageSetConfig, open_image_set, selected
from align_core.images.files import check_regular
from pipelines.compute.here import images_here
from pipelines.compute.ray_internals import startable_nodes
from pipelines.experiment.paths import PLACES
from pipelines.storage.cache import unwatched
from pipelines.storage.far import is_far

if TYPE_CHECKING:
    from pipelines.experiment.config import Experiment

MOST_IMAGES = 2 * 10**9
"""Bytes of the largest image set that is sent."""
WAYS = "Put it on a shared disk, at the same path on every node, or into an object store (s3://, gs://, hf://)"
"""How nodes come to have what is not sent to them."""
UNCHANGED = "Run again, and leave images and weights as they are while a run is at work"
"""How a message goes on where something did not arrive as it was."""

_AT_ONCE = 4  # requests that are answered at the same time
_RESTARTS = 3


class File(NamedTuple):
    """A file: its path relative to the place that the experiment names, or "." for that place itself, and its state.

    `modified` and `changed` are times in nanoseconds. Copying can set the first, and no program the second.
    """

    name: str
    size: int
    modified: int
    changed: int


class Span(NamedTuple):
    """The bytes of a file from `start` to `stop`."""

    file: File
    start: int
    stop: int


class Refused(NamedTuple):
    """Why the courier does not hand out what is at a place, as the rest of a sentence, and how that can be mended."""

    why: str
    mend: str


class Courier:
    """What the process does.

    Args:
        weights: paths of weights files.
        image_sets: the image sets; of a folder, the images that are selected are handed out.
    """

    def __init__(self, weights: Sequence[str], image_sets: Sequence[ImageSetConfig]) -> None:
        self._weights, self._image_sets = weights, image_sets
        self._listed: dict[str, dict[str, File]] = {}  # what is handed out, by place and name
        self._lock = Lock()

    def listing(self, place: str) -> Sequence[File] | Refused | None:
        """The files at a place as the experiment writes it; None for a place that it does not name."""
        try:
            with self._lock:
                if place not in self._listed:
                    files = self._found(place)
                    size = sum(own.size for own in files)
                    if size > MOST_IMAGES and place not in self._weights:
                        most = f"image sets of up to {MOST_IMAGES / 1e9:g} GB are sent to the nodes"
                        return Refused(f"{most}, while this one has {size / 1e9:.3g} GB", WAYS)
                    self._listed[place] = {own.name: own for own in files}
                return list(self._listed[place].values()) or None
        except (OSError, InputError) as problem:
            host = socket.gethostname()
            return Refused(f"the command's node, {host}, cannot read it either ({reason_of(problem)})", WAYS)

    def read(self, place: str, spans: Sequence[Span]) -> npt.NDArray[np.uint8] | Refused:
        """The bytes of these spans, one after the other, of files as `listing` returns them."""
        if place not in self._listed and isinstance(refused := self.listing(place), Refused):
            return refused
        known, end = self._listed[place], 0
        piece = np.empty(sum(own.stop - own.start for own in spans), np.uint8)
        for span in spans:
            begin, end = end, end + span.stop - span.start
            if span.file.name not in known:
                return Refused(f"the experiment does not use {span.file.name} of it", WAYS)
            is_as_listed = known[span.file.name] == span.file
            if not is_as_listed or not _fill(piece.data[begin:end], Path(place) / span.file.name, span):
                return Refused("it was changed while it was sent", UNCHANGED)
        return piece

    def _found(self, place: str) -> list[File]:
        """The files at a place, in the order of their names. Raises OSError and InputError."""
        files = {place} if place in self._weights else set()
        for config in self._image_sets:
            if place in (config.labels, config.label_names):
                files.add(place)
            if place == config.path:
                files |= set(_files_of(config))
        return sorted(_as_it_is(place, file) for file in files)


def _files_of(config: ImageSetConfig) -> Iterator[str]:
    """The files at the path of an image set; of a folder, those that are selected, as far as they are there."""
    image_set = open_image_set(images_here(config, lambda _: unwatched), 1)
    if config.kind != "folder":
        yield from map(str, image_set.files())
        return
    ids, _ = image_set.listing()
    for position in selected(config, ids, image_set.labels().values):
        file = os.path.join(str(config.path), ids[position])
        if os.path.isfile(file):
            yield file


def _as_it_is(place: str, file: str) -> File:
    """A file with its state now. Raises OSError where there is no regular file."""
    check_regular(Path(file))
    return File(os.path.relpath(file, place), *_state(os.stat(file)))


def _state(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _fill(view: memoryview, file: Path, span: Span) -> bool:
    """Reads a span; returns whether the file is, and stays, as it was listed."""
    try:
        with open(file, "rb", buffering=0) as stream:
            if _state(os.fstat(stream.fileno())) != span.file[1:]:
                return False
            stream.seek(span.start)
            while view and (count := stream.readinto(view)):
                view = view[count:]
            return not view and _state(os.fstat(stream.fileno())) == span.file[1:]
    except OSError:
        return False


@contextmanager
def sending_files(experiment: "Experiment") -> Iterator[None]:
    """Keeps a courier with the experiment's files over the block, where the cluster has other nodes or may start some.

    It starts beside the command, and takes no logical CPU.
    """
    import ray

    courier = _started(experiment)
    try:
        yield
    finally:
        if courier is not None and ray.is_initialized():
            ray.kill(courier)


def _started(experiment: "Experiment") -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    files = (own.weights_file for own in experiment.models.values() if not is_far(own.weights))
    weights = sorted({str(file) for file in files if file is not None})
    image_sets = list(experiment.image_sets().values())
    places = [place for own in image_sets for key in PLACES if (place := getattr(own, key)) is not None]
    has_files = bool(weights) or not all(map(is_far, places))
    if not has_files or (sum(node["Alive"] for node in ray.nodes()) < 2 and not startable_nodes()):
        return None
    options = ray.remote(Courier).options(
        name=f"{_prefix()}{uuid.uuid4().hex[:8]}",
        num_cpus=0,
        max_concurrency=_AT_ONCE,
        max_restarts=_RESTARTS,
        max_task_retries=_RESTARTS,
        scheduling_strategy=NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False),
    )
    return options.remote(weights, image_sets)


def couriers() -> Iterator[Any]:
    """Those of the command that this worker works for: one for each experiment that it is at work on."""
    import ray
    from ray.util import list_named_actors

    if not ray.is_initialized():
        return
    for name in list_named_actors():
        if name.startswith(_prefix()):
            with suppress(ValueError):  # it was lost meanwhile
                yield ray.get_actor(name)


def _prefix() -> str:
    """What the names of a command's couriers begin with: several commands may share a namespace of Ray's."""
    import ray

    return f"witness-courier-{ray.get_runtime_context().get_job_id()}-"
