"""The output folder of one experiment, on a local disk or in an object store (through pyarrow's filesystems).

A file that exists is complete: on a disk it is written under another name and renamed, in an object store it appears
when its upload ends. Files that depend on settings carry a fingerprint of these settings in their names, so that one
listing of the folder tells what is finished, missing or stale.
"""

import fcntl
import hashlib
import json
import os
import re
import socket
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Any

import pyarrow as pa
from pyarrow import fs

from align_core.errors import InputError
from pipelines.failure import ONCE_MENDED, Busy, RunFailed
from pipelines.storage.credentials import without_credentials
from pipelines.storage.lease import leased
from pipelines.storage.object_store import AT_ONCE, check_answers, delete, move, open_store, requests_of, upload
from pipelines.storage.s3_requests import S3Requests
from pipelines.storage.writable import LASTING, check_writable, nearest_folder

# Bytes of a file for an object store that are kept in memory until the upload. Larger files wait on the local disk.
_IN_MEMORY = 32 * 2**20
# The end of the name under which a file is written, before it is renamed. Users' names may end in `.part` too.
_UNFINISHED = re.compile(r"\.[0-9a-f]{8}\.part$")

_PIECE = 8 * 2**20

Say = Callable[[str], None]
"""A function that shows the user one line of text."""


def fingerprint_of(inputs: Any) -> str:
    """Returns 16 hex digits that identify `inputs`: the start of the SHA-256 of its JSON with sorted keys.

    Equal content gives an equal fingerprint on every machine. Tuples count as lists, and the order of keys does not
    count. Raises TypeError for what JSON cannot hold.
    """
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


class Store:
    """The folder `<output>/<name>` of one experiment. Every path given to a method is relative to that folder.

    A store pickles as its two arguments, so it can be sent to workers, which open the filesystem themselves.

    Args:
        output: the output folder: an absolute path, or a URI such as `s3://bucket/runs`.
        name: the experiment's name.
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
            filesystem, folder = open_store(self.output)
        except InputError as problem:
            raise InputError(f"output: {problem}") from None
        return filesystem, f"{folder.rstrip('/')}/{self.name}"

    @property
    def filesystem(self) -> fs.FileSystem:
        """The pyarrow filesystem that holds the folder. Raises InputError if the output's URI cannot be opened."""
        return self._root[0]

    @property
    def is_local(self) -> bool:
        """Whether the folder is on a disk, where files can be renamed and locked. Object stores can do neither."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    @cached_property
    def _requests(self) -> S3Requests | None:
        return None if self.is_local else requests_of(self.output, self.filesystem)

    def reads_ahead(self, size: int = 0) -> int:
        """How many files, each of so many bytes in memory, are worth reading before their turn.

        An object store lets one wait for each of them, and a disk does not.
        """
        return 0 if self.is_local else max(1, min(AT_ONCE // 2, _IN_MEMORY // max(1, size)))

    @property
    def location(self) -> str:
        """The folder as messages show it: its path or URI without credentials and parameters."""
        if "://" not in self.output:
            return self._root[1]
        return f"{without_credentials(self.output).partition('?')[0].rstrip('/')}/{self.name}"

    def path(self, relative: str) -> str:
        """Returns the full path within `filesystem`."""
        return f"{self._root[1]}/{relative}"

    def listing(self, folder: str = "") -> dict[str, list[str]]:
        """Lists all files below `folder` in one pass.

        Returns a mapping of folders to the names of the files in each. It is empty if `folder` does not exist.
        """
        filesystem, root = self._root
        selector = fs.FileSelector(f"{root}/{folder}".rstrip("/"), recursive=True, allow_not_found=True)
        found: dict[str, list[str]] = {}
        for info in filesystem.get_file_info(selector):
            if info.type == fs.FileType.File:
                parent, _, name = info.path.removeprefix(root).lstrip("/").rpartition("/")
                if not _UNFINISHED.search(name):
                    found.setdefault(parent, []).append(name)
        return found

    def stamps(self, folder: str) -> dict[str, tuple[int, int]]:
        """Returns size and modification time (ns) of each file in a folder, which tell what has changed since."""
        selector = fs.FileSelector(self.path(folder), allow_not_found=True)
        found = [info for info in self.filesystem.get_file_info(selector) if info.type == fs.FileType.File]
        return {info.base_name: (info.size, info.mtime_ns) for info in found if not info.base_name.endswith(".part")}

    def stamp(self, relative: str) -> tuple[int, int] | None:
        """Returns size and modification time (ns) of a file, which tell it from another; None where there is none."""
        info = self.filesystem.get_file_info(self.path(relative))
        return (info.size, info.mtime_ns) if info.type == fs.FileType.File else None

    def modified(self, folder: str) -> dict[str, float]:
        """Returns when each file below a folder was last written, in seconds since 1970, by its path in the store."""
        filesystem, root = self._root
        selector = fs.FileSelector(f"{root}/{folder}", recursive=True, allow_not_found=True)
        found = [info for info in filesystem.get_file_info(selector) if info.type == fs.FileType.File]
        return {
            info.path.removeprefix(root).lstrip("/"): info.mtime_ns / 1e9
            for info in found
            if not _UNFINISHED.search(info.base_name)
        }

    def usage(self) -> tuple[int, int]:
        """Returns the number of files below the folder and their total size in bytes."""
        filesystem, root = self._root
        found = filesystem.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True))
        sizes = [info.size for info in found if info.type == fs.FileType.File]
        return len(sizes), sum(sizes)

    def exists(self, relative: str) -> bool:
        """Tells whether `relative` is a file."""
        info = self.filesystem.get_file_info(self.path(relative))
        return bool(info.type == fs.FileType.File)

    def read(self, relative: str) -> bytes:
        """Returns a file's content. Raises FileNotFoundError if there is no such file."""
        try:
            # A file opened for random access knows its size, and is read by one request; a stream asks for 16 KB each.
            with self.open_input(relative) as file:
                return bytes(file.read())
        except OSError as problem:
            if self.exists(relative):
                raise
            # If the file is deleted between two requests, S3 reports an internal failure.
            raise FileNotFoundError(relative) from problem

    def sha256(self, relative: str) -> str:
        """The SHA-256 of a file's bytes, in hexadecimal, read piece by piece. Raises OSError as `open_input` does."""
        digest = hashlib.sha256()
        with self.open_input(relative) as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
        return digest.hexdigest()

    def read_json(self, relative: str) -> dict[str, Any] | None:
        """Returns the object in a JSON file, or None if the file is missing or damaged.

        Callers treat both alike: what the file holds is determined again and written anew.
        """
        try:
            content = json.loads(self.read(relative))
        except (FileNotFoundError, ValueError, RecursionError):
            return None
        return content if isinstance(content, dict) else None

    def open_input(self, relative: str) -> pa.NativeFile:
        """Opens a file for random access."""
        return self.filesystem.open_input_file(self.path(relative))

    def write(self, relative: str, content: bytes) -> None:
        """Writes a file atomically: afterwards it holds `content`, or, after an exception, what it held before."""
        with self.writing(relative) as stream:
            stream.write(content)

    def write_json(self, relative: str, content: Any) -> None:
        """Writes `content` as indented JSON with sorted keys, atomically."""
        self.write(relative, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())

    @contextmanager
    def writing(self, relative: str) -> Iterator[pa.NativeFile]:
        """Gives a stream to a file that appears, complete, when the block ends without an exception."""
        path = self.path(relative)
        if not self.is_local:
            with tempfile.SpooledTemporaryFile(_IN_MEMORY) as spool:
                yield pa.PythonFile(spool, mode="w")
                size = spool.tell()
                spool.seek(0)
                upload(self.filesystem, spool, path, size)
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        unfinished = f"{path}.{uuid.uuid4().hex[:8]}.part"
        try:
            with open(unfinished, "wb") as file:
                yield pa.PythonFile(file, mode="w")
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        except OSError as problem:
            if problem.errno in LASTING and problem.filename is None:  # a stream does not know which disk it is on
                raise OSError(problem.errno, problem.strerror, path) from problem
            raise
        finally:
            Path(unfinished).unlink(missing_ok=True)

    def check_free(self, files: Iterable[str]) -> None:
        """Raises RunFailed where these files cannot be written because of what lies there already, on a disk.

        That is a folder in place of a file, or a file in place of a folder that they belong to.
        """
        for file in dict.fromkeys(files) if self.is_local else ():
            if os.path.isdir(self.path(file)):
                raise RunFailed(_in_the_way(self.path(file), "a folder, and a file"))
            for parent in reversed(PurePosixPath(file).parents):
                if os.path.lexists(self.path(str(parent))) and not os.path.isdir(self.path(str(parent))):
                    raise RunFailed(_in_the_way(self.path(str(parent)), "no folder, and one"))

    def delete(self, relative: str) -> None:
        """Deletes one file; does nothing if there is none."""
        try:
            self.filesystem.delete_file(self.path(relative))
        except FileNotFoundError:
            return

    def delete_all(self, relative: Sequence[str]) -> None:
        """Deletes files, as many at once as the store can; those that are not there are no matter."""
        if not self.is_local:
            delete(self.filesystem, [self.path(own) for own in relative], self._requests if relative else None)
            return
        for own in relative:
            self.delete(own)

    def delete_folder(self, relative: str) -> None:
        """Deletes a folder with everything in it; does nothing if there is none."""
        if self.filesystem.get_file_info(self.path(relative)).type == fs.FileType.Directory:
            self.filesystem.delete_dir(self.path(relative))

    def set_aside(self, folder: str, names: list[str]) -> str:
        """Moves files of `folder` to `.stale/<time>/<folder>`, and returns that folder."""
        stale = f".stale/{datetime.now(UTC):%Y-%m-%dT%H%M%S}/{folder}"
        moves = [(self.path(f"{folder}/{name}"), self.path(f"{stale}/{name}")) for name in names]
        if self.is_local:
            os.makedirs(self.path(stale), exist_ok=True)
            for source, destination in moves:
                os.replace(source, destination)
            return stale
        move(self.filesystem, moves, self._requests)
        return stale

    def check_writable(self) -> None:
        """Raises InputError unless files can be created below the output folder. Leaves nothing behind."""
        folder = self.path("")
        try:
            if self.is_local:
                check_writable(Path(folder), "name another folder with --output")
            else:
                check_answers(self.filesystem, folder.rstrip("/"), self.output)
        except InputError as problem:
            raise InputError(f"output: {problem}") from problem

    def check_folder(self) -> None:
        """Raises InputError where an output on a disk is a file, or cannot be read; it need not be there yet."""
        folder = Path(self.path(""))
        try:
            nearest_folder(folder)
        except InputError as problem:
            raise InputError(f"output: {problem}") from problem

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the experiment's lock inside the block, so that one run at a time writes to the folder.

        On a disk this is a file lock, which the system releases when its process ends, however it ends. In an object
        store it is a lease (`pipelines.storage.lease`), which ends a minute after its process was killed.

        Raises Busy, which says who holds the lock.
        """
        if not self.is_local:
            with leased(self.filesystem, self.path(".lease"), self.location, self._requests):
                yield
            return
        os.makedirs(self.path(""), exist_ok=True)
        with open(self.path(".lock"), "a+") as file:
            _take_lock(file, self.location)
            for left in Path(self.path("")).rglob("*.part"):  # by a run that was killed while writing
                if _UNFINISHED.search(left.name) and left.is_file():
                    left.unlink(missing_ok=True)
            yield


def _in_the_way(path: str, what: str) -> str:
    return f"{path} is {what} of this name has to be written; rename or delete it. {ONCE_MENDED}"


def _take_lock(file: IO[str], location: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as problem:
        file.seek(0)
        holder = file.read().strip() or "its lock file does not say which process"
        raise Busy(f"{location}: another run is at work here ({holder})") from problem
    file.seek(0)
    file.truncate()
    file.write(f"process {os.getpid()} on {socket.gethostname()} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC")
    file.flush()
