"""A lease in an object store: it keeps two runs of an experiment apart where files cannot be locked.

A run writes an object of its own, which names its process, and writes it again every 20 s until it ends. To take the
lease it first writes its object and then looks for others, so that of two runs that start at the same moment at least
one sees the other. An object that was not renewed for a minute belongs to a run that was killed, and is removed. Ages
are measured by the store's own clock if it reports modification times, else by the clock of the holder.

Where the store writes an object on the condition that there is none, runs that start at once take their turns with a
further object, and one of them gets the lease. Elsewhere, or where that object was left behind, both may step back, and
try again after different pauses.

A lease saves double work; correctness does not depend on it. If two runs do work side by side, say because one of them
was suspended for minutes, nothing is corrupted: the fingerprint in a file's name determines what it holds, and each
file appears complete.
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
from pipelines.storage.s3_requests import S3Requests

RENEWED_EVERY = 20.0
"""Seconds after which a run renews its lease."""

STALE_AFTER = timedelta(minutes=1)
"""Age of a lease that counts as left behind by a killed run: two renewals may fail before that."""

_ATTEMPTS = 3  # where two runs that start at the same moment both step back
_LONGEST_TURN = 10.0  # seconds after which its run counts as killed: to look for other leases takes one, at most


@dataclass(frozen=True)
class Lease:
    """The object of one run: its path, its holder (process, host and start), and the time of its last renewal."""

    path: str
    holder: str
    renewed: datetime


@contextmanager
def leased(filesystem: fs.FileSystem, folder: str, location: str, requests: S3Requests | None = None) -> Iterator[None]:
    """Holds the lease inside the block, and renews it in a thread.

    Args:
        folder: holds the objects of all runs, in `filesystem`.
        location: what the lease is for, in messages.
        requests: of a store that writes on conditions.

    Raises Busy, which names the holder, if another run holds the lease, and OSError if the store does not answer.
    """
    own = f"{folder}/{uuid.uuid4().hex[:16]}.json"
    holder = f"process {os.getpid()} on {socket.gethostname()} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    is_over = Event()
    renewer = Thread(target=_renew, args=(filesystem, own, holder, is_over), daemon=True)
    try:
        with _turn(f"{folder}.turn", requests):
            _take(filesystem, folder, own, holder, location)
        renewer.start()
        yield
    finally:
        is_over.set()
        if renewer.is_alive():
            renewer.join()
        _withdraw(filesystem, own)


@contextmanager
def _turn(path: str, requests: S3Requests | None) -> Iterator[None]:
    """Lets one run at a time into the block, where the store can tell. What is in it is safe with several, too."""
    end, is_ours = time.monotonic() + _LONGEST_TURN, None
    while requests is not None and time.monotonic() < end:
        is_ours = requests.write_new(path, b"{}")
        if is_ours is not False:
            break
        time.sleep(random.uniform(0.05, 0.2))
    try:
        yield
    finally:
        if requests is not None and is_ours is not None:  # ours, or of a run that was killed
            requests.delete([path])


def _take(filesystem: fs.FileSystem, folder: str, own: str, holder: str, location: str) -> None:
    for attempt in range(_ATTEMPTS):
        _put(filesystem, own, holder)
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
    age = max(0, int((now - alive[0].renewed).total_seconds()))
    raise Busy(
        f"{location}: another run is at work here ({alive[0].holder}; its lease was renewed {age} s ago). "
        f"If that run was killed, try again when its lease is {STALE_AFTER.seconds} s old"
    )


def _leases(filesystem: fs.FileSystem, folder: str) -> list[Lease]:
    found = []
    for info in filesystem.get_file_info(fs.FileSelector(folder, allow_not_found=True)):
        if info.type != fs.FileType.File:
            continue
        try:
            with filesystem.open_input_stream(info.path) as stream:
                content = _content(stream.read())
        except OSError:
            # Its run may have withdrawn it since the listing. S3 has several errors for that, so ask whether it exists.
            if filesystem.get_file_info(info.path).type != fs.FileType.NotFound:
                raise
            continue
        if content is not None:
            who, renewed = content
            found.append(Lease(info.path, who, info.mtime or renewed))
    return found


def _content(written: bytes) -> tuple[str, datetime] | None:
    """Holder and time of a lease; None for a file of another program, or one that is damaged: nobody renews that."""
    try:
        content = json.loads(written)
        return str(content["who"]), datetime.fromisoformat(content["renewed"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _put(filesystem: fs.FileSystem, path: str, holder: str) -> None:
    with filesystem.open_output_stream(path) as stream:
        stream.write(json.dumps({"who": holder, "renewed": datetime.now(UTC).isoformat()}).encode())


def _renew(filesystem: fs.FileSystem, path: str, holder: str, is_over: Event) -> None:
    while not is_over.wait(RENEWED_EVERY):
        try:
            if filesystem.get_file_info(path).type == fs.FileType.NotFound:
                return  # the renewals failed for a minute, and another run has taken the lease
            _put(filesystem, path, holder)
        except OSError:
            # The run itself uses the same store and reports its failure. If the store recovers, the next renewal
            # succeeds.
            continue


def _withdraw(filesystem: fs.FileSystem, path: str) -> None:
    """Deletes the run's own lease, and hides a failure to do so: the user must see the error that ended the run."""
    try:
        _delete(filesystem, path)
    except OSError:
        return


def _delete(filesystem: fs.FileSystem, path: str) -> None:
    try:
        filesystem.delete_file(path)
    except FileNotFoundError:
        return
