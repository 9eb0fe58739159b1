"""Object stores (S3, Google Cloud Storage and whatever else pyarrow opens): opening, uploads, moves, deletions.

`Store` (pipelines/storage/store.py) calls these functions where a disk and an object store differ.
"""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import IO, Any, TypeVar
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import pyarrow as pa
from pyarrow import fs

from align_core.errors import InputError
from pipelines.storage.credentials import hide_credentials, without_credentials
from pipelines.storage.s3_requests import S3Requests

_PIECE = 8 * 2**20  # bytes of an upload that are held in memory; S3 takes as many in a single request
_LARGEST_COPY = 5 * 2**30  # bytes that S3 copies in one request
# A server that refuses connections is given up after seconds, one that does not respond after a few minutes.
_S3_TIMEOUTS, _S3_ATTEMPTS = {"connect_timeout": 5, "request_timeout": 20}, 4  # seconds, requests
_GCS_RETRY_LIMIT = timedelta(minutes=1)  # of all attempts together; Google's default is 15 minutes

_SCHEMES = ("s3", "gs", "gcs", "hf", "abfs", "abfss")
_NOT_IN_A_URI = re.compile(r"%(?![0-9A-Fa-f]{2})|[^A-Za-z0-9._~:/?#@!$&'()*+,;=%-]")

_S3_TEXTS = {"scheme", "endpoint_override", "tls_ca_file_path"}
_S3_FLAGS = {"allow_bucket_creation", "allow_bucket_deletion"}

_PERCENT = "; in an address a space is written %20 and, in a key or a secret, / as %2F, ? as %3F, # as %23 and @ as %40"

AT_ONCE = 16
"""Requests to a store that are under way side by side where there are many: each waits for the store."""
_MANY = 3  # files to be deleted for which it is worth to import boto3

Item = TypeVar("Item")


def check_address(uri: str) -> None:
    """Raises InputError, without the credentials, for an address of which a part would be left out without a word."""
    if "#" in uri:
        raise InputError(f"{without_credentials(uri)}: write # as %23, because an address ends where a # stands")


def check_path(path: str) -> None:
    """Raises InputError, without the credentials, for an address that would be a path, for want of a second slash."""
    scheme, _, rest = path.partition(":/")
    if scheme in _SCHEMES and not rest.startswith("/"):
        address = without_credentials(f"{scheme}://{rest}")
        raise InputError(f"did you mean {address}? An address has two slashes here; ./{scheme}:/... is a path")


def open_store(uri: str) -> tuple[fs.FileSystem, str]:
    """Opens the filesystem of an object store, with timeouts that suit a long run.

    Args:
        uri: the address, in pyarrow's form, as `s3://KEY:SECRET@BUCKET/FOLDER?region=REGION`.

    Returns the filesystem and the folder within it. Raises InputError, without the credentials, if the URI cannot be
    opened.
    """
    check_address(uri)
    try:
        filesystem, folder = fs.FileSystem.from_uri(uri)
        if filesystem.type_name == "gcs" and "retry_limit_seconds=" not in urlsplit(uri).query:
            filesystem, _ = fs.FileSystem.from_uri(
                _with_parameter(uri, "retry_limit_seconds", _GCS_RETRY_LIMIT.seconds)
            )
        if filesystem.type_name == "s3":
            filesystem = fs.S3FileSystem(
                **s3_arguments(uri, filesystem.region),
                **_S3_TIMEOUTS,
                retry_strategy=fs.AwsStandardS3RetryStrategy(_S3_ATTEMPTS),
                background_writes=False,  # background uploads would hold whole files in memory
                allow_delayed_open=True,  # a small file is then a single request
            )
    except (pa.ArrowException, OSError, ValueError) as problem:
        safe = without_credentials(uri)
        reason = hide_credentials(str(problem), uri)
        reason += _encoding(safe) or (_PERCENT if "syntax error" in reason else "")
        # Without `from problem`: its message may quote the URI with the credentials.
        raise InputError(f"{safe}: {reason}") from None
    return filesystem, folder


def _encoding(uri: str) -> str:
    """How to write the characters of an address that no URI may have; empty where there are none."""
    found = dict.fromkeys(_NOT_IN_A_URI.findall(uri))
    listed = [f"{'a space' if own == ' ' else own} as {quote(own)}" for own in found if own.isprintable()]
    return f"; write {', '.join(listed)}" if listed else ""


def s3_arguments(uri: str, region: str) -> dict[str, Any]:
    """Returns the arguments of pyarrow's `S3FileSystem` that open the same store as `FileSystem.from_uri(uri)`.

    Timeouts cannot be given in a URI, only as arguments beside those that the URI stands for.

    Args:
        uri: an address that `from_uri` has accepted.
        region: the region that pyarrow found, which asks AWS where the URI names none.

    Raises ValueError for a parameter that is known in URIs alone, so that it is not ignored.
    """
    parts = urlsplit(uri)
    given = dict(reversed(parse_qsl(parts.query)))  # pyarrow uses the first of several values
    given.pop("region", None)
    unsupported = sorted(given.keys() - _S3_TEXTS - _S3_FLAGS)
    if unsupported:
        raise ValueError(f"the parameter {unsupported[0]} cannot be used here; leave it out")
    arguments: dict[str, Any] = {"region": region}
    arguments |= {name: value.lower() in ("true", "1") if name in _S3_FLAGS else value for name, value in given.items()}
    # pyarrow reads these variables for a URI only.
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3", os.environ.get("AWS_ENDPOINT_URL"))
    if endpoint is not None:
        arguments.setdefault("endpoint_override", endpoint)
    if parts.username:  # without a user, pyarrow looks for credentials in the environment, profiles and roles
        arguments |= {"access_key": unquote(parts.username), "secret_key": unquote(parts.password or "")}
    return arguments


def requests_of(uri: str, filesystem: fs.FileSystem) -> S3Requests | None:
    """What a store does on request that pyarrow does not ask for; None where it is not S3, or without boto3."""
    if filesystem.type_name != "s3":
        return None
    try:
        return S3Requests(s3_arguments(uri, filesystem.region) | _S3_TIMEOUTS)
    except (ImportError, ValueError):  # there is no boto3, or it does not take what pyarrow takes
        return None


def _with_parameter(uri: str, name: str, value: object) -> str:
    parts = urlsplit(uri)
    return parts._replace(query="&".join(filter(None, [parts.query, f"{name}={value}"]))).geturl()


def check_answers(filesystem: fs.FileSystem, folder: str, uri: str) -> None:
    """Raises InputError unless `folder` can be listed, its objects be looked up, and its bucket exists.

    Leaves nothing behind. Whether it can be written is not tried: the lease is the first object that a run writes.
    """
    safe, bucket = without_credentials(uri), folder.partition("/")[0]
    try:
        found = filesystem.get_file_info(fs.FileSelector(folder, allow_not_found=True))
        has_buckets = filesystem.type_name in ("s3", "gcs", "abfs")
        is_there = bool(found) or not has_buckets or filesystem.get_file_info(bucket).type != fs.FileType.NotFound
        if is_there:  # a store may let anyone list it, and deny its objects
            filesystem.get_file_info(next((own.path for own in found if own.is_file), f"{folder}/.lease"))
    except OSError as problem:
        raise InputError(
            f"{safe} cannot be used ({problem}); check the address, the credentials and what they allow"
        ) from problem
    if not is_there:
        raise InputError(f"{safe}: there is no bucket {bucket}; make it, or name another")


def upload(filesystem: fs.FileSystem, source: IO[bytes] | pa.NativeFile, path: str, size: int) -> None:
    """Writes the `size` bytes of `source` as the object `path`, complete or not at all.

    Raises OSError if fewer bytes arrived, and whatever `source` or the store raise.
    """
    piece: Any = source.read(_PIECE)
    try:
        with filesystem.open_output_stream(path) as stream:
            while piece:
                stream.write(piece)
                piece = source.read(_PIECE)
        if size > _PIECE and filesystem.get_file_info(path).size != size:
            raise OSError(f"{path}: the upload is not complete")
    except BaseException:
        # After an exception, closing a stream of several pieces still makes an object of the pieces that arrived. No
        # earlier version is lost by deleting it: files of several pieces never replace one of the same name.
        if size > _PIECE and filesystem.get_file_info(path).size not in (None, size):
            filesystem.delete_file(path)
        raise


def move(filesystem: fs.FileSystem, moves: Sequence[tuple[str, str]], requests: S3Requests | None) -> None:
    """Moves objects, given as pairs (from, to) of paths. Copies all of them before it deletes the first."""

    def copy(pair: tuple[str, str]) -> None:
        source, destination = pair
        size = filesystem.get_file_info(source).size
        if size <= _LARGEST_COPY:
            filesystem.copy_file(source, destination)
            return
        with filesystem.open_input_stream(source) as stream:
            upload(filesystem, stream, destination, size)

    _side_by_side(copy, moves)
    delete(filesystem, [source for source, _ in moves], requests)


def delete(filesystem: fs.FileSystem, paths: Sequence[str], requests: S3Requests | None) -> None:
    """Deletes objects: many of them in one request, where the store has that. Those that are not there are no matter.

    Raises OSError where one of the others could not be deleted.
    """

    def delete_one(path: str) -> None:
        with suppress(FileNotFoundError):
            filesystem.delete_file(path)

    _side_by_side(delete_one, requests.delete(paths) if requests and len(paths) >= _MANY else paths)


def _side_by_side(work: Callable[[Item], None], items: Iterable[Item]) -> None:
    """Calls `work` for all items, in threads. Raises the first exception once all have ended."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(work, items):
            pass
