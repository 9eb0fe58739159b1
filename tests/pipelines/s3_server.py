"""An S3-compatible server for tests: moto's, in a process of its own."""

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
    """A running server with one bucket."""

    process: "subprocess.Popen[bytes]"
    port: int
    bucket: str = "bucket"

    def uri(self, path: str, secret: str = SECRET, bucket: str | None = None) -> str:
        """The URI of a folder, with credentials and endpoint, because workers do not inherit the test's environment."""
        parameters = f"scheme=http&endpoint_override=127.0.0.1:{self.port}&region=us-east-1"
        return f"s3://{KEY}:{quote(secret, safe='')}@{bucket or self.bucket}/{path}?{parameters}"

    @property
    def filesystem(self) -> fs.S3FileSystem:
        """The server as pyarrow opens it, without any code of Witness."""
        return fs.FileSystem.from_uri(self.uri(""))[0]

    def objects(self, folder: str = "") -> dict[str, bytes]:
        """The content of every object below a folder of the bucket, by its path relative to the folder."""
        base = f"{self.bucket}/{folder}".rstrip("/")
        found = self.filesystem.get_file_info(fs.FileSelector(base, recursive=True, allow_not_found=True))
        files = [info.path for info in found if info.type == fs.FileType.File]
        return {path.removeprefix(f"{base}/"): self.filesystem.open_input_file(path).read() for path in files}

    def ask(self, method: str, path: str, content: bytes = b"") -> None:
        """Sends a plain HTTP request. The path `moto-api` leads to moto's own interface."""
        address, headers = f"http://127.0.0.1:{self.port}/{path}", {"Content-Type": "text/plain"}
        request = urllib.request.Request(address, data=content or None, headers=headers, method=method)
        urllib.request.urlopen(request, timeout=10).close()

    def stop(self) -> None:
        """Kills the server. Everything that it held in memory is lost."""
        self.process.kill()
        self.process.wait()


@contextmanager
def s3_server(log: Path) -> Iterator[S3Server]:
    """Runs a server while the block runs; it answers already when the block begins. Its log is written to a file."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    with open(log, "wb") as output:
        server = S3Server(subprocess.Popen(command, stdout=output, stderr=output), port)
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
    """A proxy in front of a server. Shutting it simulates an outage of the server, which keeps everything it holds."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int) -> None:
        self.server_behind, self.connections = port, set[socket.socket]()
        super().__init__(("127.0.0.1", 0), _Forwarding)
        self._open()

    @property
    def port(self) -> int:
        """The port of the proxy."""
        return int(self.server_address[1])

    def _open(self) -> None:
        Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def shut(self) -> None:
        """Refuses new connections and cuts the open ones."""
        self.shutdown()
        self.server_close()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def open_again(self) -> None:
        """Accepts connections again, at the same port."""
        self.socket = socket.socket(self.address_family, self.socket_type)
        self.server_bind()
        self.server_activate()
        self._open()


class _Forwarding(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Gate)
        with socket.create_connection(("127.0.0.1", self.server.server_behind)) as other:
            self.server.connections |= {self.request, other}
            back = Thread(target=_forward, args=(other, self.request), daemon=True)
            back.start()
            _forward(self.request, other)
            back.join()
            self.server.connections -= {self.request, other}


def _forward(source: socket.socket, destination: socket.socket) -> None:
    with suppress(OSError):
        while content := source.recv(1 << 16):
            destination.sendall(content)
        destination.shutdown(socket.SHUT_WR)
