"""A server that is far away: a proxy, in a process of its own, that lets every request wait before it passes it on."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_PIECE = 2**16
_METHODS = (b"GET ", b"PUT ", b"POST ", b"HEAD ", b"DELETE ")


@contextmanager
def distant(port: int, seconds: float) -> Iterator[int]:
    """The port, while the block runs, at which each request to the server at `port` takes so much longer."""
    command = [sys.executable, "-m", "tests.benchmarks.distant", str(port), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


async def _serve(port: int, seconds: float) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, behind = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_forward(reader, behind, seconds), _forward(answers, writer, 0.0))

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def _forward(source: asyncio.StreamReader, sink: asyncio.StreamWriter, seconds: float) -> None:
    """Passes on what comes; what begins a request is held back for so long."""
    try:
        while piece := await source.read(_PIECE):
            if seconds and piece.startswith(_METHODS):
                await asyncio.sleep(seconds)
            sink.write(piece)
            await sink.drain()
    except ConnectionError:
        pass
    finally:
        sink.close()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), float(sys.argv[2])))
