"""Inputs in object stores: an object, or all below a folder, is brought to a folder of this machine, and kept there.

A copy lies at the path that the object has in its store, below `$WITNESS_CACHE`, and has the object's size and time of
modification: so an object that was changed is fetched anew, and any other is not. Copies are complete: they are written
beside and renamed. Objects on Hugging Face's hub are fetched and kept by its own library (see `hub.py`).
"""

import os
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, TypeGuard
from urllib.parse import parse_qs, quote, urlsplit

import pyarrow as pa
from pyarrow import fs

from align_core.errors import InputError, reason_of
from pipelines.storage.cache import Advance, Watch, alone, cache, check_room, keeping, unwatched
from pipelines.storage.credentials import hide_credentials, without_credentials
from pipelines.storage.hub import fetched_from_hub
from pipelines.storage.object_store import check_address, open_store

SCHEMES = ("s3", "gs", "hf")
"""Where inputs may lie, beside the disk."""

_AT_ONCE = 16  # objects that are fetched at once
_PIECE = 8 * 2**20  # bytes


class Fact(NamedTuple):
    """What a store says of an object: a name that no other has, size in bytes, and time of modification in seconds."""

    name: str
    size: int
    time: int


class _Found(NamedTuple):
    """An object in a store, and where its copy lies on this machine."""

    path: str
    size: int
    time: int
    copy: Path

    @property
    def is_here(self) -> bool:
        """Whether the copy is there, and the object has not changed since."""
        with suppress(OSError):
            state = os.stat(self.copy)
            return (state.st_size, state.st_mtime_ns) == (self.size, self.time * 10**9)
        return False


class _Listed(NamedTuple):
    """All objects that a URI names: one, or those below a folder."""

    filesystem: fs.FileSystem
    found: list[_Found]
    place: Path
    is_folder: bool


def is_far(path: str | None) -> TypeGuard[str]:
    """Whether a path names an object in a store, and not a file on a disk."""
    return path is not None and "://" in path


def check_far(uri: str) -> None:
    """Raises InputError where nothing here can fetch from this kind of store, or the address is not written as one."""
    scheme = uri.partition("://")[0]
    if scheme not in SCHEMES:
        known = ", ".join(f"{known}://" for known in SCHEMES)
        raise InputError(f"{without_credentials(uri)}: images and weights are read from disks and from {known}, not "
                         f"from {scheme}://. Copy them to one of these")  # fmt: skip
    if scheme != "hf":  # whose addresses are names, in which a # is a # and a % a %
        check_address(uri)


def facts(uri: str) -> list[Fact]:
    """What the store says of every object that a URI names. Nothing is fetched, but from Hugging Face's hub.

    Equal facts mean that no object has changed. Names contain no credentials. Raises InputError.
    """
    if uri.startswith("hf://"):
        place = fetched_from_hub(uri)  # below a folder that is named by the commit, which stands for all content
        names = sorted(place.rglob("*")) if place.is_dir() else [place]
        commit = place.parts[place.parts.index("snapshots") - 1 :]
        return [Fact("/".join([*commit, *own.relative_to(place).parts]), own.stat().st_size, 0)
                for own in names if own.is_file()]  # fmt: skip
    return [Fact(str(own.copy.relative_to(cache())), own.size, own.time) for own in _listed(uri).found]


def beside(uri: str, name: str) -> str:
    """The URI of another object in the same folder."""
    path, mark, query = uri.partition("?")
    return f"{path.rpartition('/')[0]}/{name}{mark}{query}"


def fetched(uri: str, watch: Watch = unwatched) -> Path:
    """Returns the copy on this machine of an object, or of all objects below a folder, once it is as the store has it.

    Files are fetched several at a time, and by one process of a machine at a time. Raises InputError, which names the
    object, where that fails; complete copies are kept then.
    """
    if uri.startswith("hf://"):
        return fetched_from_hub(uri)
    listed = _listed(uri)
    with keeping(without_credentials(uri)):
        if not all(own.is_here for own in listed.found):
            _fetch(uri, listed, watch)
        if listed.is_folder:
            _drop_others(listed)
    return listed.place


def _fetch(uri: str, listed: _Listed, watch: Watch) -> None:
    """Fetches what is not here. Raises OSError where this machine's disk cannot hold it, and InputError."""
    total = sum(own.size for own in listed.found if not own.is_here)
    with watch(total) as advance, alone(listed.place, advance):
        missing = [own for own in listed.found if not own.is_here]  # what another process has not fetched meanwhile
        check_room(sum(own.size for own in missing))
        pool = ThreadPoolExecutor(_AT_ONCE)
        try:
            for _ in pool.map(lambda own: _download(uri, listed.filesystem, own, advance), missing):
                pass
        finally:
            pool.shutdown(cancel_futures=True)


def _download(uri: str, filesystem: fs.FileSystem, own: _Found, advance: Advance) -> None:
    """Makes the copy of one object. Raises OSError of the disk, and InputError where the object cannot be read."""
    own.copy.parent.mkdir(parents=True, exist_ok=True)
    aside = own.copy.with_name(f".{uuid.uuid4().hex[:8]}.part")  # hidden, so that no image set takes it for its own
    try:
        with open(aside, "xb") as sink:
            for piece in _pieces(uri, filesystem, own):
                sink.write(piece)
                advance(len(piece))
        os.utime(aside, ns=(own.time * 10**9,) * 2)
        os.replace(aside, own.copy)
    finally:
        aside.unlink(missing_ok=True)


def _pieces(uri: str, filesystem: fs.FileSystem, own: _Found) -> Iterator[bytes]:
    arrived, shown = 0, f"{urlsplit(uri).scheme}://{own.path}"
    with _asking(uri, shown), filesystem.open_input_stream(own.path, compression=None) as stream:
        while piece := stream.read(_PIECE):
            arrived += len(piece)
            yield piece
    if arrived != own.size:
        raise InputError(
            f"{shown}: {arrived:,} bytes arrived of {own.size:,}: was it replaced, or the connection cut? Run again"
        )


@contextmanager
def _asking(uri: str, shown: str) -> Iterator[None]:
    """Raises InputError, without credentials, for what a store answers."""
    try:
        yield
    except (OSError, pa.ArrowException) as problem:
        raise InputError(
            f"{shown}: cannot be read ({hide_credentials(reason_of(problem), uri).rstrip('.')}). Check the address, "
            "the credentials and what they allow"
        ) from None  # whose message may quote the credentials


def _opened(uri: str) -> tuple[fs.FileSystem, str]:
    check_far(uri)
    filesystem, path = open_store(uri)
    return filesystem, path.rstrip("/")


def _info(filesystem: fs.FileSystem, path: str, uri: str) -> fs.FileInfo:
    with _asking(uri, without_credentials(uri)):
        return filesystem.get_file_info(path)


def _listed(uri: str) -> _Listed:
    """Asks the store what a URI names. Raises InputError where there is nothing, or it may not be read."""
    filesystem, path = _opened(uri)
    own, shown, bucket = _info(filesystem, path, uri), without_credentials(uri), path.partition("/")[0]
    if own.type == fs.FileType.NotFound:
        has_bucket = _info(filesystem, bucket, uri).type != fs.FileType.NotFound
        what = "object, and no folder with objects, of this name" if has_bucket else f"bucket {bucket}"
        raise InputError(f"{shown}: there is no {what}. Check the address")
    is_folder = own.type == fs.FileType.Directory
    infos = [own]
    if is_folder:
        with _asking(uri, shown):
            infos = filesystem.get_file_info(fs.FileSelector(path, recursive=True))
    base = cache() / _store_of(uri)
    files = [info for info in infos if info.type == fs.FileType.File]
    if not files:
        raise InputError(f"{shown}: this folder contains no objects. Check the address")
    found = [_Found(info.path, info.size, _seconds(info), base / _checked(info.path, shown)) for info in files]
    return _Listed(filesystem, sorted(found), base / _checked(path, shown), is_folder)


def _seconds(info: fs.FileInfo) -> int:
    """Whole seconds: some servers say more of the time in a list of objects than of an object by itself."""
    return int(info.mtime_ns or 0) // 10**9


def _checked(path: str, shown: str) -> str:
    """The path of an object, which may be that of a file. Raises InputError for one that would lead elsewhere."""
    if any(part in ("", ".", "..") or "\0" in part for part in path.split("/")):
        raise InputError(f"{shown}: the name of the object {path!r} cannot be that of a file. Rename it")
    return path


def _store_of(uri: str) -> str:
    """The name of the folder for all copies from this store: servers other than AWS have buckets of their own."""
    scheme, query = urlsplit(uri).scheme, parse_qs(urlsplit(uri).query)
    endpoint = query.get("endpoint_override", [""])[0]
    if scheme == "s3":
        endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL_S3", os.environ.get("AWS_ENDPOINT_URL", ""))
    return scheme + (f"@{quote(endpoint.rpartition('@')[2].rpartition('://')[2], safe=':')}" if endpoint else "")


def _drop_others(listed: _Listed) -> None:
    """Deletes copies of objects that are no longer in the store, so that no image set reads them."""
    kept = {own.copy for own in listed.found}
    for copy in _files_below(listed.place):
        if copy not in kept:
            copy.unlink(missing_ok=True)


def _files_below(folder: Path) -> Sequence[Path]:
    return [Path(place) / name for place, _, names in os.walk(folder) for name in names if not name.endswith(".part")]
