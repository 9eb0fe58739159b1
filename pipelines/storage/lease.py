"""A lease: one run at a time where there are no locks, on an object store.

Whoever runs puts an object of its own that says who it is, and puts it again while it runs. Each first puts its object,
then looks for others: of two that start at once, at least one sees the other. One that was not put again for a minute
is of a run that died. The ages are by the store's own clock where it tells one.

This keeps two runs from doing the same work. Should it fail, after a pause of minutes say, nothing is corrupted: what a
file holds is determined by the fingerprint in its name, and each appears whole.
"""

import json
import os
import random
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Event, Thread

from pyarrow import fs

from pipelines.failure import Busy

RENEWED_EVERY = 20.0  # seconds
STALE_AFTER = timedelta(minutes=1)
_ATTEMPTS = 3  # two that start at the same moment both step back, and try again at different ones


@dataclass(frozen=True)
class Lease:
    """One run's object: who it is, since when, and when it was last put."""

    path: str
    who: str
    renewed: datetime


@contextmanager
def leased(filesystem: fs.FileSystem, folder: str, location: str) -> Iterator[None]:
    """Inside, the lease in `folder` is held; `location` names what it is for. Raises Busy, which says who holds it."""
    own = f"{folder}/{uuid.uuid4().hex[:16]}.json"
    who = f"process {os.getpid()} on {socket.gethostname()} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    is_over = Event()
    renewer = Thread(target=_renew, args=(filesystem, own, who, is_over), daemon=True)
    try:
        _take(filesystem, folder, own, who, location)
        renewer.start()
        yield
    finally:
        is_over.set()
        if renewer.is_alive():
            renewer.join()
        _withdraw(filesystem, own)


def _take(filesystem: fs.FileSystem, folder: str, own: str, who: str, location: str) -> None:
    for attempt in range(_ATTEMPTS):
        _put(filesystem, own, who)
        leases = _leases(filesystem, folder)
        now = next(lease.renewed for lease in leases if lease.path == own)
        others = [lease for lease in leases if lease.path != own]
        alive = [lease for lease in others if now - lease.renewed <= STALE_AFTER]
        if not alive:
            for lease in others:
                _delete(filesystem, lease.path)
            return
        _withdraw(filesystem, own)
        if attempt + 1 < _ATTEMPTS:
            time.sleep(random.uniform(0.1, 1.0))
    silent = max(0, int((now - alive[0].renewed).total_seconds()))
    raise Busy(
        f"{location}: another run is at work here ({alive[0].who}; heard of {silent} s ago). "
        f"If it is dead, wait until it has been silent for {STALE_AFTER.seconds} s"
    )


def _leases(filesystem: fs.FileSystem, folder: str) -> list[Lease]:
    found = []
    for info in filesystem.get_file_info(fs.FileSelector(folder, allow_not_found=True)):
        if info.type != fs.FileType.File:
            continue
        try:
            with filesystem.open_input_stream(info.path) as stream:
                said = json.loads(stream.read())
        except OSError:  # it was given up meanwhile, perhaps: S3 says that in more ways than one
            if filesystem.get_file_info(info.path).type != fs.FileType.NotFound:
                raise
            continue
        found.append(Lease(info.path, said["who"], info.mtime or datetime.fromisoformat(said["renewed"])))
    return found


def _put(filesystem: fs.FileSystem, path: str, who: str) -> None:
    with filesystem.open_output_stream(path) as stream:
        stream.write(json.dumps({"who": who, "renewed": datetime.now(UTC).isoformat()}).encode())


def _renew(filesystem: fs.FileSystem, path: str, who: str, is_over: Event) -> None:
    while not is_over.wait(RENEWED_EVERY):
        try:
            if filesystem.get_file_info(path).type == fs.FileType.NotFound:
                return  # it was silent for too long, and another run has taken over
            _put(filesystem, path, who)
        except OSError:  # the run meets the same store, and says so; if the store comes back, so does the lease
            continue


def _withdraw(filesystem: fs.FileSystem, path: str) -> None:
    """Where the store is gone, what broke the run off is what the user has to hear: the lease ends by its age."""
    try:
        _delete(filesystem, path)
    except OSError:
        return


def _delete(filesystem: fs.FileSystem, path: str) -> None:
    try:
        filesystem.delete_file(path)
    except FileNotFoundError:
        return
