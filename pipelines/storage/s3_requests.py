"""What S3 does on request that pyarrow does not ask for: to delete many objects at once, and to write only a new one.

It needs boto3, which knows the same credentials as pyarrow; where it is not installed, all goes on without, with more
requests. Nothing here has to succeed: callers do what is left otherwise.
"""

from collections.abc import Sequence
from typing import Any

_MOST_DELETED = 1_000  # objects in one request: S3's limit
_ANSWERED_NO = ("PreconditionFailed", "ConditionalRequestConflict")


class S3Requests:
    """Sends requests to one S3 store.

    Args:
        arguments: those of pyarrow's `S3FileSystem` for this store, with its timeouts.

    Raises ImportError where boto3 is not installed, and ValueError where it cannot use the arguments.
    """

    def __init__(self, arguments: dict[str, Any]) -> None:
        from boto3.session import Session
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError

        endpoint, scheme = arguments.get("endpoint_override"), arguments.get("scheme", "https")
        if endpoint and "://" not in endpoint:
            endpoint = f"{scheme}://{endpoint}"
        config = Config(
            connect_timeout=arguments["connect_timeout"],
            read_timeout=arguments["request_timeout"],
            retries={"mode": "standard", "total_max_attempts": 2},
            s3={"addressing_style": "path" if endpoint else "auto"},  # as pyarrow does
            request_checksum_calculation="when_required",  # servers other than AWS may not know newer ones
            response_checksum_validation="when_required",
        )
        certificates, is_secure = arguments.get("tls_ca_file_path"), scheme == "https"
        try:
            session = Session(
                aws_access_key_id=arguments.get("access_key"),
                aws_secret_access_key=arguments.get("secret_key"),
                region_name=arguments["region"],
            )
            self._client = session.client(
                "s3", endpoint_url=endpoint, use_ssl=is_secure, verify=certificates, config=config
            )
        except BotoCoreError as problem:
            raise ValueError(str(problem)) from problem

    def delete(self, paths: Sequence[str]) -> list[str]:
        """Deletes objects, given as `BUCKET/KEY`; those that do not exist count as deleted. Returns those left."""
        from botocore.exceptions import BotoCoreError, ClientError

        left: list[str] = []
        for start in range(0, len(paths), _MOST_DELETED):
            part = paths[start : start + _MOST_DELETED]
            keys = {path.partition("/")[2]: path for path in part}
            wanted = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
            try:
                answer = self._client.delete_objects(Bucket=part[0].partition("/")[0], Delete=wanted)
            except (BotoCoreError, ClientError):  # not every store knows this request
                return [*left, *paths[start:]]
            left += [keys[own["Key"]] for own in answer.get("Errors", [])]
        return left

    def write_new(self, path: str, content: bytes) -> bool | None:
        """Writes an object `BUCKET/KEY` unless there is one; returns whether it did, None where that cannot be told.

        Stores that do not know of conditions may write it in any case.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        bucket, _, key = path.partition("/")
        try:
            self._client.put_object(Bucket=bucket, Key=key, Body=content, IfNoneMatch="*")
        except ClientError as problem:
            return False if problem.response.get("Error", {}).get("Code") in _ANSWERED_NO else None
        except BotoCoreError:
            return None
        return True
