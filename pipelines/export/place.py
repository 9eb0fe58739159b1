"""Where exported files go: a folder, or one file, on a disk or in an object store. They appear there when complete."""

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pyarrow import fs

from align_core.errors import InputError
from pipelines.failure import Busy
from pipelines.storage.credentials import without_credentials
from pipelines.storage.object_store import check_address, check_answers, check_path, open_store
from pipelines.storage.store import Store

_LOCK = ".lock"


@dataclass(frozen=True)
class Place:
    """A folder that exported files go to, or one file.

    Attributes:
        store: the folder; of a file, the folder that it is in.
        file: the name of the file; None for a folder, in which every surrogate and attack has a place of its own.
    """

    store: Store
    file: str | None = None


def place_at(path: str, suffixes: Sequence[str]) -> Place:
    """The place at a path or URI: a file where its name ends in one of these suffixes, else a folder.

    Raises InputError where there can be no such place.
    """
    if not path:
        raise InputError("the path to export to is empty; name a folder or a file (`.` is the current folder)")
    check_path(path)
    own = path
    if "://" in path:
        check_address(path)
        own = path.partition("?")[0]  # without the parameters of a URI
    name = own.rstrip("/").rpartition("/")[2]
    is_file = name.lower().endswith(tuple(suffixes)) if suffixes else False
    if is_file and name.lower() in suffixes:
        shown = without_credentials(path) if "://" in path else path
        raise InputError(f"{shown}: {name} is a suffix without a name; write images{name}, say")
    if "://" not in path:
        where = Path(os.path.abspath(os.path.expanduser(path)))  # a shell leaves the ~ in `--npz=~/images.npz`
        folder = where.parent if is_file else where
        return Place(Store(str(folder.parent), folder.name), where.name if is_file else None)
    parts = urlsplit(path)
    if parts.scheme in ("http", "https"):
        raise InputError(
            f"{parts.scheme}://{parts.hostname}: nothing can be exported to a page; name a path or s3://..."
        )
    if not parts.hostname and parts.scheme != "file":
        raise InputError(f"{parts.scheme}://: name a bucket, and a folder within it")
    within = parts.path.strip("/").split("/")
    folders = within[:-1] if is_file else within
    if not folders or not all(folders):
        raise InputError(f"{parts.scheme}://{parts.hostname}: name a folder within the bucket")
    output = parts._replace(path="/" + "/".join(folders[:-1])).geturl()
    return Place(Store(output, folders[-1]), within[-1] if is_file else None)


def check_answering(place: Place) -> None:
    """Raises InputError where the place is in an object store that cannot be used."""
    output = place.store.output
    if "://" in output:
        filesystem, folder = open_store(output)
        check_answers(filesystem, f"{folder.rstrip('/')}/{place.store.name}", output)


def check_free(store: Store, target: str, is_folder: bool = True) -> bool:
    """Whether nothing is at a target yet, or an empty folder where a folder is to appear.

    Raises InputError where a file is in place of a folder above it, or a link in place of the target that leads to an
    empty folder or nowhere.
    """
    for parent in Path(store.path(target)).parents if store.is_local else ():
        if os.path.lexists(parent):
            if not parent.is_dir():
                raise InputError(f"{parent} is a file, and no folder for exported images; name another place")
            break
    if store.is_local:
        return _is_free(Path(store.path(target)), is_folder)
    info = store.filesystem.get_file_info(store.path(target))
    if info.type == fs.FileType.Directory:
        return is_folder and not store.listing(target)
    return bool(info.type == fs.FileType.NotFound)


def _is_free(path: Path, is_folder: bool) -> bool:
    """What `check_free` says of a path on a disk: that what is to appear there can be renamed to it, and is no loss."""
    if not os.path.lexists(path):
        return True
    if not path.exists():
        raise InputError(f"{path} is a link that leads nowhere; delete it, or name another place. Nothing was written")
    if not is_folder or not path.is_dir():
        return False
    with os.scandir(path) as entries:
        is_empty = next(entries, None) is None
    if is_empty and path.is_symlink():
        raise InputError(f"{path} is a link to a folder, which cannot be put in its place; delete it, or name another "
                         "place. Nothing was written")  # fmt: skip
    return is_empty


@contextmanager
def appearing(store: Store, target: str) -> Iterator[str]:
    """Gives a path to write a file or a folder to, which appears at the target when the block ends without exception.

    An object store cannot rename: there the path is the target itself, and what was written is deleted after an
    exception. A folder is complete there once its manifest, which is written last, is in it.

    Raises Busy where another export is writing to the same target of a disk.
    """
    if not store.is_local:
        try:
            yield target
        except BaseException:
            store.delete_folder(target)
            store.delete(target)
            raise
        return
    folder, _, name = target.rpartition("/")
    aside = f"{folder}/.{name}.witness.part".lstrip("/")
    with _alone_in(Path(store.path(aside)), f"{store.location}/{target}"):
        yield f"{aside}/{name}"
        os.replace(store.path(f"{aside}/{name}"), store.path(target))


@contextmanager
def _alone_in(folder: Path, location: str) -> Iterator[None]:
    """Keeps a folder for this process while the block runs, without what a killed one left in it, and deletes it.

    Its lock is a file lock, which the system releases when a process ends, however it ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / _LOCK, "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as problem:
            raise Busy(
                f"{location}: another export is writing this; wait for its end, or name another place"
            ) from problem
        try:
            for left in folder.iterdir():
                if left.name != _LOCK:
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
            yield
        finally:
            shutil.rmtree(folder)
