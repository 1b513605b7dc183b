"""An object store that answers late: moto's server, and before it a proxy that waits before each answer.

Moto answers some hundred requests a second, so the proxy keeps what moto has answered once and gives the same bytes
again. It counts what it is asked. Runs as a process of its own: `python -m benchmarks.slow_store`.
"""

import argparse
import asyncio
import http.client
import json
import logging
import socket
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

BUCKET = "raylearn-bench"
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_DEFAULT_REGION": "us-east-1"}
_COUNTS = "/-/counts"
_HOP = ("connection", "transfer-encoding", "content-length", "keep-alive")


@dataclass(frozen=True)
class SlowStore:
    """Where it is.

    Args:
        address: of the proxy.
        behind: moto's own address, which does not wait.
    """

    address: str
    behind: str

    def counts(self) -> dict[str, int]:
        """Requests of each method since the last call, and the most that were in flight at once."""
        with urllib.request.urlopen(self.address + _COUNTS) as answer:
            found: dict[str, int] = json.load(answer)
            return found


@contextmanager
def slow_store(delay: float) -> Iterator[SlowStore]:
    """Starts both servers, and ends them.

    Args:
        delay: seconds before each answer of the proxy.
    """
    command = [sys.executable, "-m", "benchmarks.slow_store", "--delay", str(delay)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield SlowStore(**json.loads(server.stdout.readline()))
    finally:
        server.terminate()
        server.wait()


class _Proxy:
    def __init__(self, host: str, port: int, delay: float) -> None:
        self._behind, self._delay = (host, port), delay
        self._answers: dict[tuple[str, ...], bytes] = {}
        self._counts: Counter[str] = Counter()
        self._in_flight = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                line, *rest = head.decode("latin-1").splitlines()
                method, path, _ = line.split(" ", 2)
                headers = {name.lower(): value.strip() for name, _, value in (r.partition(":") for r in rest if r)}
                if path == _COUNTS:
                    body, self._counts = json.dumps(self._counts).encode(), Counter()
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                    continue
                writer.write(await self._answer(method, path, headers, await _body(reader, headers)))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
        self._counts[method] += 1
        self._in_flight += 1
        self._counts["most in flight"] = max(self._counts["most in flight"], self._in_flight)
        try:
            key = (method, path, headers.get("range", ""))
            answer = self._answers.get(key)
            if answer is None:
                answer = await asyncio.to_thread(self._ask, method, path, headers, body)
                if method in ("GET", "HEAD"):
                    self._answers[key] = answer
            await asyncio.sleep(self._delay)
            return answer
        finally:
            self._in_flight -= 1

    def _ask(self, method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
        connection = http.client.HTTPConnection(*self._behind)
        passed = {name: value for name, value in headers.items() if name not in (*_HOP, "expect")}
        connection.request(method, path, body, passed)
        answer = connection.getresponse()
        content = answer.read()
        length = answer.getheader("Content-Length") if method == "HEAD" else str(len(content))
        lines = [f"HTTP/1.1 {answer.status} {answer.reason}", f"Content-Length: {length or 0}"]
        lines += [f"{name}: {value}" for name, value in answer.getheaders() if name.lower() not in _HOP]
        connection.close()
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + content


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return await reader.readexactly(int(headers.get("content-length") or 0))
    content = b""
    while size := int((await reader.readline()).partition(b";")[0], 16):
        content += await reader.readexactly(size)
        await reader.readline()
    while (await reader.readline()).strip():  # trailers
        pass
    return content


async def _run(delay: float) -> None:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)  # an answer goes out in one piece
    proxy = await asyncio.start_server(_Proxy(host, port, delay).serve, sock=listening, limit=1 << 20)
    address = f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
    print(json.dumps({"address": address, "behind": f"http://{host}:{port}"}), flush=True)
    await proxy.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--delay", type=float, default=0.1, help="seconds before each answer")
    asyncio.run(_run(parser.parse_args().delay))
