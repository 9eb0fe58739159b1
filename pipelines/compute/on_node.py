"""Images and weights on a worker's node: as they lie there, from an object store, or sent from the command's node.

What was sent lies below `$WITNESS_CACHE/sent`, in a folder that is named by path, size and times of all files at a
place, so that a changed file is sent anew. Whether what a node has is what was inspected is seen when it is used.
"""

import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from align_core.errors import InputError, reason_of
from align_core.images import ImageSetConfig
from align_core.model_config import ModelConfig
from pipelines.compute.courier import WAYS, File, Refused, Span, couriers
from pipelines.compute.here import images_here, in_worker, weights_here
from pipelines.experiment.paths import PLACES
from pipelines.storage.cache import Advance, Watch, alone, cache, check_room, keeping
from pipelines.storage.store import fingerprint_of

_PIECE = 4 * 2**20  # bytes that are asked for at a time
_AHEAD = 4  # pieces that are on their way at once


def images_on_node(config: ImageSetConfig) -> ImageSetConfig:
    """The settings of an image set with paths on this node. Raises InputError where it cannot be had here."""
    own = images_here(config)
    lacking = [key for key in PLACES if is_lacking(getattr(own, key))]
    sent: dict[str, Any] = {key: str(received(getattr(own, key))) for key in lacking}
    return replace(own, **sent) if sent else own


def weights_on_node(config: ModelConfig) -> ModelConfig:
    """The settings of a model with its weights file on this node. Raises InputError where it cannot be had here."""
    own = weights_here(config)
    return replace(own, weights=str(received(str(own.weights_file)))) if is_lacking(own.weights_file) else own


def is_lacking(place: str | Path | None) -> bool:
    """Whether a place is given, and nothing is there that this process may see."""
    return place is not None and not os.path.exists(place)


def same_everywhere() -> str:
    """A sentence for whoever finds something else here than what was inspected."""
    here = f"This was seen on the node {socket.gethostname()}"
    return f"{here}; where there are others, all must have the same at the same path"


def received(place: str, watch: Watch = in_worker) -> Path:
    """The copy on this node of a file or folder of the command's node, which is sent unless it is here.

    Processes of one node receive it once. Raises InputError, which names the node, where it cannot be had.
    """
    courier, files = _asked(place)
    kept = cache() / "sent" / fingerprint_of([place, files])
    copy = kept / (Path(place).name or "root")
    with keeping(place):
        if not kept.exists():
            with watch(sum(own.size for own in files)) as advance, alone(kept, advance):
                if not kept.exists():
                    _receive(courier, place, files, copy, advance)
    return copy


def _asked(place: str) -> tuple[Any, Sequence[File]]:
    """A courier that has the files at a place, and what they are. Raises InputError where there is none."""
    refused = Refused("it is not sent from the command's node", WAYS)
    for courier in couriers():
        answer = _answer(courier.listing.remote(place))
        if isinstance(answer, Refused):
            refused = answer
        elif answer is not None:
            return courier, answer
    raise _cannot(place, refused)


def _receive(courier: Any, place: str, files: Sequence[File], copy: Path, advance: Advance) -> None:
    """Makes the copy, whole or not at all. Raises OSError where the disk cannot hold it, and InputError."""
    import ray

    check_room(sum(own.size for own in files))
    aside = copy.parent.with_suffix(".part")
    shutil.rmtree(aside, ignore_errors=True)  # of a process that was killed
    asked: dict[Any, Sequence[Span]] = {}
    batches = batches_of(files)
    try:
        while True:
            for spans in islice(batches, _AHEAD - len(asked)):
                asked[courier.read.remote(place, spans)] = spans
            if not asked:
                break
            answered, _ = ray.wait(list(asked))
            piece = _answer(answered[0])
            if isinstance(piece, Refused):
                raise _cannot(place, piece)
            _write(aside / copy.name, asked.pop(answered[0]), piece)
            advance(len(piece))
        os.replace(aside, copy.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def batches_of(files: Sequence[File]) -> Iterator[list[Span]]:
    """All bytes of the files in spans, as many of which are asked for together as a piece holds."""
    batch, size = list[Span](), 0
    for file in files:
        for start in range(0, max(file.size, 1), _PIECE):  # a file without bytes is a span, too
            span = Span(file, start, min(start + _PIECE, file.size))
            if batch and size + span.stop - span.start > _PIECE:
                yield batch
                batch, size = [], 0
            batch.append(span)
            size += span.stop - span.start
    if batch:
        yield batch


def _write(copy: Path, spans: Sequence[Span], piece: npt.NDArray[np.uint8]) -> None:
    end = 0
    for span in spans:
        begin, end = end, end + span.stop - span.start
        file = copy / span.file.name
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666), "wb") as stream:
            stream.seek(span.start)
            stream.write(piece.data[begin:end])


def _answer(answer: Any) -> Any:
    """What a courier answers, or that it was lost."""
    import ray

    try:
        return ray.get(answer)
    except ray.exceptions.RayError as problem:
        lost = f"the process that sends it from the command's node was lost ({reason_of(problem).rstrip('.')})"
        return Refused(lost, "Run again")


def _cannot(place: str, refused: Refused) -> InputError:
    here = f"there is no such file or folder on the node {socket.gethostname()}"
    return InputError(f"{place}: {here}, and {refused.why}. {refused.mend}")
