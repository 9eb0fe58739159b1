"""What an object store does otherwise than a disk: opening it, whole uploads, copies, and finding it unusable early."""

from datetime import timedelta
from typing import IO, Any

import pyarrow as pa
from pyarrow import fs

from align_core.errors import InputError
from pipelines.storage.credentials import without_credentials

_PIECE = 8 * 2**20  # bytes: what an upload holds in memory; S3 takes as much in one put
_LARGEST_COPY = 5 * 2**30  # bytes: what S3 copies by itself
# Patience with S3, in seconds and attempts: seconds with a server that refuses, a few minutes with one that is silent.
_CONNECT, _ANSWER, _ATTEMPTS = 5, 20, 4
_GOOGLE = timedelta(minutes=1)  # patience with Google's, all attempts together


def open_store(uri: str) -> tuple[fs.FileSystem, str]:
    """The filesystem and the path within it that a URI names. Raises InputError."""
    try:
        filesystem, path = fs.FileSystem.from_uri(uri)
    except (pa.ArrowException, OSError, ValueError) as problem:
        safe = without_credentials(uri)
        reason = str(problem).replace(uri, safe)  # it may quote the URI, credentials and all: so no `from problem`
        raise InputError(f"output: {safe}: {reason}") from None
    return _patient(filesystem), path


def _patient(filesystem: fs.FileSystem) -> fs.FileSystem:
    """The same, with time-outs of ours: Google's own are a quarter of an hour, and S3's shorter than a hiccup."""
    if filesystem.type_name not in ("s3", "gcs"):
        return filesystem
    opened, (options,) = filesystem.__reduce__()  # as pyarrow sends it to other processes
    if filesystem.type_name == "gcs":
        return opened({**options, "retry_time_limit": options["retry_time_limit"] or _GOOGLE})
    # Uploads in the background would hold everything in memory; a delayed open makes a small one a single put.
    own = {
        "background_writes": False,
        "allow_delayed_open": True,
        "connect_timeout": _CONNECT,
        "request_timeout": _ANSWER,
    }
    return opened({**options, **own, "retry_strategy": fs.AwsStandardS3RetryStrategy(_ATTEMPTS)})


def check_answers(filesystem: fs.FileSystem, folder: str, uri: str) -> None:
    """Raises InputError unless `folder` may be listed and its bucket is there. Leaves nothing behind.

    That it may not be written is found at the first put, the lease's.
    """
    safe, bucket = without_credentials(uri), folder.partition("/")[0]
    try:
        found = filesystem.get_file_info(fs.FileSelector(folder, allow_not_found=True))
        has_buckets = filesystem.type_name in ("s3", "gcs", "abfs")
        is_there = bool(found) or not has_buckets or filesystem.get_file_info(bucket).type != fs.FileType.NotFound
    except OSError as problem:
        raise InputError(
            f"output: {safe} cannot be used ({problem}); check the address, the credentials and what they allow"
        ) from problem
    if not is_there:
        raise InputError(f"output: {safe}: there is no bucket {bucket}; make it, or name another with --output")


def upload(filesystem: fs.FileSystem, source: IO[bytes] | pa.NativeFile, path: str, size: int) -> None:
    """The `size` bytes of `source` as one object, or none of them."""
    piece: Any = source.read(_PIECE)
    try:
        with filesystem.open_output_stream(path) as stream:
            while piece:
                stream.write(piece)
                piece = source.read(_PIECE)
        if size > _PIECE and filesystem.get_file_info(path).size != size:
            raise OSError(f"{path}: it did not arrive whole")
    except BaseException:
        # Closed after an exception, a stream of several pieces makes an object of those that came through. What was
        # there before under such a name was of no use: large files are never written over.
        if size > _PIECE and filesystem.get_file_info(path).size not in (None, size):
            filesystem.delete_file(path)
        raise


def move(filesystem: fs.FileSystem, moves: list[tuple[str, str]]) -> None:
    """Objects from one path to another each: all are copied before the first is deleted."""
    for source, destination in moves:
        size = filesystem.get_file_info(source).size
        if size <= _LARGEST_COPY:
            filesystem.copy_file(source, destination)
            continue
        with filesystem.open_input_stream(source) as stream:
            upload(filesystem, stream, destination, size)
    for source, _ in moves:
        filesystem.delete_file(source)
