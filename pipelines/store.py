"""Where everything lies: one folder per experiment, on a disk or an object store (pyarrow filesystems).

What exists is complete: files are written aside and renamed (an object store takes one put). A file that depends on
settings carries their fingerprint in its name, so one listing tells what is done, what is missing and what is stale.
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


def fingerprint(inputs: Any) -> str:
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
        try:
            filesystem, path = fs.FileSystem.from_uri(self.output)
        except (pa.ArrowException, OSError, ValueError) as problem:
            raise InputError(f"output: {self.output}: {problem}") from problem
        return filesystem, f"{path.rstrip('/')}/{self.name}"

    @property
    def is_local(self) -> bool:
        """Whether it lies on a disk: only there are renames and locks."""
        return isinstance(self._root[0], fs.LocalFileSystem)

    @property
    def location(self) -> str:
        """The folder, for people, and for Ray's `storage_path`."""
        return f"{self.output.rstrip('/')}/{self.name}" if "://" in self.output else self._root[1]

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
        info = self._root[0].get_file_info(self.path(relative))
        return bool(info.type == fs.FileType.File)

    def read(self, relative: str) -> bytes:
        """A file's content. Raises FileNotFoundError."""
        with self._root[0].open_input_stream(self.path(relative)) as stream:
            return bytes(stream.read())

    def read_json(self, relative: str) -> dict[str, Any] | None:
        """A JSON file's content; None where there is none, or a damaged one: what it said is found anew."""
        try:
            content = json.loads(self.read(relative))
        except (FileNotFoundError, ValueError):
            return None
        return content if isinstance(content, dict) else None

    def open_input(self, relative: str) -> pa.NativeFile:
        """A file opened for random access."""
        return self._root[0].open_input_file(self.path(relative))

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
        filesystem, _ = self._root
        path = self.path(relative)
        if not self.is_local:
            sink = pa.BufferOutputStream()
            yield sink
            with filesystem.open_output_stream(path) as stream:
                stream.write(sink.getvalue())
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
            self._root[0].delete_file(self.path(relative))
        except FileNotFoundError:
            return

    def delete_folder(self, relative: str) -> None:
        """A folder and all in it, if it is there."""
        if self._root[0].get_file_info(self.path(relative)).type == fs.FileType.Directory:
            self._root[0].delete_dir(self.path(relative))

    def set_aside(self, folder: str, names: list[str]) -> str:
        """Moves files of `folder` to `.stale/<time>/<folder>`; returns that place."""
        place = f".stale/{datetime.now(UTC):%Y-%m-%dT%H%M%S}/{folder}"
        self._root[0].create_dir(self.path(place), recursive=True)
        for name in names:
            self._root[0].move(self.path(f"{folder}/{name}"), self.path(f"{place}/{name}"))
        return place

    def check_writable(self) -> None:
        """Raises InputError unless files can be made here; leaves nothing behind."""
        nearest = Path(self.path(""))
        if not self.is_local:
            return  # an object store says so itself, at the first put
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
        """One run at a time. The lock dies with the process that holds it. Raises Busy, which says who holds it."""
        if not self.is_local:
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
