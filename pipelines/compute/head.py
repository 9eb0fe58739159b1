"""Watches whether the head of the Ray cluster still answers: where it is lost, Ray ends this process without a word."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

from pipelines.failure import RESUMES
from pipelines.storage.store import Say

_EVERY = 5.0  # seconds between two looks; Ray gives a lost head a minute
_UNANSWERED = 2  # looks in a row, after which it counts as lost


@contextmanager
def watching_head(say: Say) -> Iterator[None]:
    """Says once, while the block runs, that the head of the cluster does not answer, and what follows from it.

    Nothing can be done about it here: this process cannot even end its connection without the head.
    """
    import ray

    is_over = Event()
    address = ray.get_runtime_context().gcs_address
    watcher = Thread(target=_watch, args=(address, is_over, say), daemon=True)
    if _answers(address):  # it does not where a proxy stands between, as for ray://
        watcher.start()
    try:
        yield
    finally:
        is_over.set()


def _watch(address: str, is_over: Event, say: Say) -> None:
    unanswered = 0
    while unanswered < _UNANSWERED:
        if is_over.wait(_EVERY):
            return
        unanswered = 0 if _answers(address) else unanswered + 1
    say(
        f"the head of the Ray cluster, {address}, does not answer. Where it stays away, Ray ends this process within a "
        f"minute, with exit code 1. {RESUMES} once there is a cluster"
    )


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_EVERY).close()
    except (OSError, ValueError):
        return False
    return True
