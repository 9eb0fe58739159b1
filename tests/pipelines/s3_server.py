"""A real S3-compatible server, moto's, in a process of its own."""

import socket
import socketserver
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
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
        return {path.removeprefix(f"{base}/"): self.filesystem.open_input_file(path).read() for path in files}

    def ask(self, method: str, path: str, content: bytes = b"") -> None:
        """A plain request; moto's own interface lies below `moto-api`."""
        where, kind = f"http://127.0.0.1:{self.port}/{path}", {"Content-Type": "text/plain"}
        request = urllib.request.Request(where, data=content or None, headers=kind, method=method)
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


class Gate(socketserver.ThreadingTCPServer):
    """A way to a server that can be shut, as if the server were gone, and opened again with all that it holds."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int) -> None:
        self.behind, self.connections = port, set[socket.socket]()
        super().__init__(("127.0.0.1", 0), _Passage)
        self._open()

    @property
    def port(self) -> int:
        """Where it stands."""
        return int(self.server_address[1])

    def _open(self) -> None:
        Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def shut(self) -> None:
        """Nobody gets through, and who was through is cut off."""
        self.shutdown()
        self.server_close()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def open_again(self) -> None:
        """As before, at the same port."""
        self.socket = socket.socket(self.address_family, self.socket_type)
        self.server_bind()
        self.server_activate()
        self._open()


class _Passage(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Gate)
        with socket.create_connection(("127.0.0.1", self.server.behind)) as other:
            self.server.connections |= {self.request, other}
            back = Thread(target=_pass, args=(other, self.request), daemon=True)
            back.start()
            _pass(self.request, other)
            back.join()
            self.server.connections -= {self.request, other}


def _pass(source: socket.socket, destination: socket.socket) -> None:
    with suppress(OSError):
        while content := source.recv(1 << 16):
            destination.sendall(content)
        destination.shutdown(socket.SHUT_WR)
