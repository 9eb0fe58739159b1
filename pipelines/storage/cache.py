"""The folder on each node's own disk for copies of files that lie elsewhere: in an object store, or on another node.

A copy is complete: it is written beside and renamed, by one process of the node at a time.
"""

import fcntl
import hashlib
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from align_core.errors import InputError, reason_of

_AGAIN_AFTER_S = 0.5

Advance = Callable[[int], object]
"""Is told of every few bytes that have arrived, and of none while another process fetches; from several threads."""
Watch = Callable[[int], AbstractContextManager[Advance]]
"""Is told how many bytes will be fetched, if any, and returns whom to tell of their arrival."""


def cache() -> Path:
    """The folder of this machine that holds the copies: `$WITNESS_CACHE`, or `~/.cache/witness`."""
    return Path(os.environ.get("WITNESS_CACHE") or "~/.cache/witness").expanduser().absolute()


@contextmanager
def unwatched(_: int) -> Iterator[Advance]:
    """A watch that shows nothing."""
    yield lambda _: None


@contextmanager
def alone(place: Path, advance: Advance) -> Iterator[None]:
    """Keeps other processes of this machine from fetching the same at once. Ends with the process, however it ends."""
    locks = cache() / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    with open(locks / hashlib.sha256(str(place).encode()).hexdigest()[:16], "w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                advance(0)
                time.sleep(_AGAIN_AFTER_S)
        yield


def check_room(size: int) -> None:
    """Raises OSError where the disk of the cache has no room for so many bytes."""
    free = shutil.disk_usage(cache()).free
    if size > free:
        raise OSError(f"it needs {size / 1e9:.3g} GB, and {free / 1e9:.3g} GB are free")


@contextmanager
def keeping(shown: str) -> Iterator[None]:
    """Raises InputError, naming what is copied, where the disk cannot hold it and the block raises OSError."""
    try:
        yield
    except OSError as problem:
        raise InputError(
            f"{shown}: cannot be kept below {cache()} on {socket.gethostname()} ({reason_of(problem)}). Make room "
            "there, or name another folder in $WITNESS_CACHE; what lies there may be deleted at any time"
        ) from problem
