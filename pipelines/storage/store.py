"""Where everything lies: one folder per experiment, on a disk or an object store (pyarrow filesystems).

What exists is complete: files are written aside and renamed, or uploaded to an object store, where they appear whole.
A file that depends on settings carries their fingerprint in its name: one listing tells what is done, missing or stale.
"""

import fcntl
import hashlib
import json
import os
import socket
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
from pyarrow import fs

from align_core.errors import InputError
from pipelines.failure import Busy
from pipelines.storage.credentials import without_credentials
from pipelines.storage.lease import leased
from pipelines.storage.object_store import check_answers, move, open_store, upload

_IN_MEMORY = 32 * 2**20  # bytes of a file for an object store; larger ones wait for their upload on the local disk


def fingerprint_of(inputs: Any) -> str:
    """16 hex digits that stand for everything in `inputs` (JSON-able; the order of keys does not count)."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


class Store:
    """The folder `<output>/<name>` of one experiment. Paths given to it are relative to that folder.

    It is small and can be sent to workers: they open the filesystem anew.
    """

    def __init__(self, output: str, name: str) -> None:
        self.output, self.name = output, name

    def __getstate__(self) -> dict[str, str]:
        return {"output": self.output, "name": self.name}

    @cached_property
    def _root(self) -> tuple[fs.FileSystem, str]:
        if "://" not in self.output:
            return fs.LocalFileSystem(), f"{self.output}/{self.name}"
        filesystem, path = open_store(self.output)
        return filesystem, f"{path.rstrip('/')}/{self.name}"

    @property
    def filesystem(self) -> fs.FileSystem:
        """Where it lies; `path` gives the paths within."""
        return self._root[0]

    @property
    def is_local(self) -> bool:
        """Whether it lies on a disk: only there are renames and locks."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    @property
    def location(self) -> str:
        """The folder, for people: without credentials."""
        if "://" not in self.output:
            return self._root[1]
        return f"{without_credentials(self.output).partition('?')[0].rstrip('/')}/{self.name}"

    def path(self, relative: str) -> str:
        """The full path within the filesystem."""
        return f"{self._root[1]}/{relative}"

    def listing(self, folder: str = "") -> dict[str, list[str]]:
        """Folder -> names of its files, for everything below `folder`. An absent folder is empty."""
        filesystem, root = self._root
        selector = fs.FileSelector(f"{root}/{folder}".rstrip("/"), recursive=True, allow_not_found=True)
        found: dict[str, list[str]] = {}
        for info in filesystem.get_file_info(selector):
            if info.type == fs.FileType.File:
                parent, _, name = info.path.removeprefix(root).lstrip("/").rpartition("/")
                if not name.endswith(".part"):
                    found.setdefault(parent, []).append(name)
        return found

    def usage(self) -> tuple[int, int]:
        """Number of files below the folder, and their bytes."""
        filesystem, root = self._root
        found = filesystem.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True))
        sizes = [info.size for info in found if info.type == fs.FileType.File]
        return len(sizes), sum(sizes)

    def exists(self, relative: str) -> bool:
        """Whether there is such a file."""
        info = self.filesystem.get_file_info(self.path(relative))
        return bool(info.type == fs.FileType.File)

    def read(self, relative: str) -> bytes:
        """A file's content. Raises FileNotFoundError."""
        try:
            with self.open_input(relative) as file:  # it knows its size: a stream is asked for in pieces of 16 KB
                return bytes(file.read())
        except OSError as problem:
            if self.exists(relative):
                raise
            # Deleted between two requests: S3 calls that an internal failure.
            raise FileNotFoundError(relative) from problem

    def read_json(self, relative: str) -> dict[str, Any] | None:
        """A JSON file's content; None where there is none, or a damaged one: what it said is found anew."""
        try:
            content = json.loads(self.read(relative))
        except (FileNotFoundError, ValueError):
            return None
        return content if isinstance(content, dict) else None

    def open_input(self, relative: str) -> pa.NativeFile:
        """A file opened for random access."""
        return self.filesystem.open_input_file(self.path(relative))

    def write(self, relative: str, content: bytes) -> None:
        """The whole file, or nothing of it."""
        with self.writing(relative) as stream:
            stream.write(content)

    def write_json(self, relative: str, content: Any) -> None:
        """`content` as readable JSON."""
        self.write(relative, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())

    @contextmanager
    def writing(self, relative: str) -> Iterator[pa.NativeFile]:
        """A stream to a file that appears, whole, when the block ends without an exception."""
        path = self.path(relative)
        if not self.is_local:
            with tempfile.SpooledTemporaryFile(_IN_MEMORY) as spool:
                yield pa.PythonFile(spool, mode="w")
                size = spool.tell()
                spool.seek(0)
                upload(self.filesystem, spool, path, size)
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        aside = f"{path}.{uuid.uuid4().hex[:8]}.part"
        try:
            with open(aside, "wb") as file:
                yield pa.PythonFile(file, mode="w")
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        finally:
            Path(aside).unlink(missing_ok=True)

    def delete(self, relative: str) -> None:
        """One file; that it is gone already is no matter."""
        try:
            self.filesystem.delete_file(self.path(relative))
        except FileNotFoundError:
            return

    def delete_folder(self, relative: str) -> None:
        """A folder and all in it, if it is there."""
        if self.filesystem.get_file_info(self.path(relative)).type == fs.FileType.Directory:
            self.filesystem.delete_dir(self.path(relative))

    def set_aside(self, folder: str, names: list[str]) -> str:
        """Moves files of `folder` to `.stale/<time>/<folder>`; returns that place."""
        place = f".stale/{datetime.now(UTC):%Y-%m-%dT%H%M%S}/{folder}"
        moves = [(self.path(f"{folder}/{name}"), self.path(f"{place}/{name}")) for name in names]
        if self.is_local:
            os.makedirs(self.path(place), exist_ok=True)
            for source, destination in moves:
                os.replace(source, destination)
            return place
        move(self.filesystem, moves)
        return place

    def check_writable(self) -> None:
        """Raises InputError unless files can be made here; leaves nothing behind."""
        if not self.is_local:
            check_answers(self.filesystem, self.path("").rstrip("/"), self.output)
            return
        nearest = Path(self.path(""))
        while not nearest.exists():
            nearest = nearest.parent
        if not nearest.is_dir():
            raise InputError(f"output: {nearest} is a file; name a folder that can be written")
        try:
            with tempfile.TemporaryFile(dir=nearest):
                pass
        except OSError as problem:
            raise InputError(
                f"output: {nearest} cannot be written ({problem.strerror}); name another with --output"
            ) from problem

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One run at a time. The lock dies with the process that holds it; a lease, on an object store, a minute later.

        Raises Busy, which says who holds it.
        """
        if not self.is_local:
            with leased(self.filesystem, self.path(".lease"), self.location):
                yield
            return
        os.makedirs(self.path(""), exist_ok=True)
        with open(self.path(".lock"), "a+") as file:
            _take_lock(file, self.location)
            for unfinished in Path(self.path("")).rglob("*.part"):  # what a killed run was writing
                unfinished.unlink(missing_ok=True)
            yield


def _take_lock(file: IO[str], location: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as problem:
        file.seek(0)
        raise Busy(
            f"{location}: another run is at work here ({file.read().strip() or 'it does not say who'})"
        ) from problem
    file.seek(0)
    file.truncate()
    file.write(f"process {os.getpid()} on {socket.gethostname()} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC")
    file.flush()


Say = Callable[[str], None]
"""Tells the user one line."""
