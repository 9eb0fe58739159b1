"""A real S3-compatible server, moto's, in a process of its own."""

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from pyarrow import fs

KEY = "AKIAWITNESS"
SECRET = "not/for+anyone"


@dataclass(frozen=True)
class S3Server:
    """The server, with one bucket. The address of anything in it holds all that a client needs."""

    process: "subprocess.Popen[bytes]"
    port: int
    bucket: str = "bucket"

    def uri(self, path: str, secret: str = SECRET, bucket: str | None = None) -> str:
        """The address of a folder; credentials and endpoint in it, for workers have an environment of their own."""
        where = f"scheme=http&endpoint_override=127.0.0.1:{self.port}&region=us-east-1"
        return f"s3://{KEY}:{quote(secret, safe='')}@{bucket or self.bucket}/{path}?{where}"

    @property
    def filesystem(self) -> fs.S3FileSystem:
        """It, without Witness between."""
        return fs.FileSystem.from_uri(self.uri(""))[0]

    def objects(self, folder: str = "") -> dict[str, bytes]:
        """Everything below a folder of the bucket, by its path from there."""
        base = f"{self.bucket}/{folder}".rstrip("/")
        found = self.filesystem.get_file_info(fs.FileSelector(base, recursive=True, allow_not_found=True))
        files = [info.path for info in found if info.type == fs.FileType.File]
        return {path.removeprefix(f"{base}/"): self.filesystem.open_input_stream(path).read() for path in files}

    def ask(self, method: str, path: str, content: bytes = b"") -> None:
        """A plain request; moto's own interface lies below `moto-api`."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{path}", data=content or None, method=method)
        urllib.request.urlopen(request, timeout=10).close()

    def stop(self) -> None:
        """It is gone, and all it held."""
        self.process.kill()
        self.process.wait()


@contextmanager
def s3_server(log: Path) -> Iterator[S3Server]:
    """A server that answers, until the block ends; what it says goes to `log`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    with open(log, "wb") as said:
        server = S3Server(subprocess.Popen(command, stdout=said, stderr=said), port)
    try:
        _wait_for(server)
        server.ask("PUT", server.bucket)
        yield server
    finally:
        server.stop()


def _wait_for(server: S3Server) -> None:
    end = time.monotonic() + 120
    while True:
        try:
            server.ask("GET", "moto-api/")
            return
        except OSError:
            assert server.process.poll() is None and time.monotonic() < end
            time.sleep(0.1)
