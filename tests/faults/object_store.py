"""A real S3 protocol on this machine: moto's server, and before it a small proxy that plants faults."""

import http.client
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from raylearn.data.storage import forget_buckets

BUCKET = "raylearn-tests"
SECRET = "canary-7f3a-secret"

Fault = Callable[[int], str | int | None]
"""From how often a key was asked for before to what happens: a status, "reset", "slow", or None for nothing."""


class ObjectStore:
    """One bucket.

    Args:
        address: of the proxy.
        client: boto3's, past the proxy.
        faults: end of a key -> what happens to its GET and HEAD requests.
        asked: key -> requests for it so far.
    """

    def __init__(self, address: str, client: Any) -> None:
        self.address, self.client = address, client
        self.faults: dict[str, Fault] = {}
        self.asked: dict[str, int] = {}
        self._lock = threading.Lock()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=data)

    def objects(self, prefix: str) -> dict[str, tuple[str, Any]]:
        """Key -> (hash, time of writing)."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return {o["Key"]: (o["ETag"], o["LastModified"]) for page in pages for o in page.get("Contents", ())}

    def fault_of(self, path: str) -> str | int | None:
        with self._lock:
            count = self.asked.get(path, 0)
            self.asked[path] = count + 1
        for ending, fault in self.faults.items():
            if path.endswith(ending):
                return fault(count)
        return None


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """Starts both servers on free ports, and ends them."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    # moto's servers of one process share what they hold: another file's objects are no concern of this one
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("POST", "/moto-api/reset")
    connection.getresponse().read()
    connection.close()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id="tests",
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=BUCKET)
    handler = type("Handler", (_Proxy,), {"port": port})
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    store = ObjectStore(f"http://127.0.0.1:{proxy.server_address[1]}", client)
    handler.store = store  # type: ignore[attr-defined]
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield store
    finally:
        proxy.shutdown()
        proxy.server_close()
        server.stop()


@contextmanager
def used_here(store: ObjectStore) -> Iterator[None]:
    """This process, and what it starts, reads and writes through the proxy; planted faults are gone afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment.items():
            patch.setenv(name, value)
        forget_buckets()
        yield
    store.faults.clear()
    forget_buckets()


class _Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: ObjectStore
    port: int

    def _pass_on(self) -> None:
        body = self._body()
        fault = self.store.fault_of(self.path.partition("?")[0]) if self.command in ("GET", "HEAD") else None
        if fault == "reset":
            self.connection.close()
            return
        if isinstance(fault, int):
            self._answer(fault, {"Content-Type": "application/xml"}, _ERRORS[fault])
            return
        if fault == "slow":
            time.sleep(1.5)
        upstream = http.client.HTTPConnection("127.0.0.1", self.port)
        headers = {
            key: value
            for key, value in self.headers.items()
            if key.lower() not in ("connection", "transfer-encoding", "expect")
        }
        upstream.request(self.command, self.path, body, headers)
        answer = upstream.getresponse()
        content = answer.read()
        kept = {k: v for k, v in answer.getheaders() if k.lower() not in ("transfer-encoding", "connection")}
        self._answer(answer.status, kept, content)
        upstream.close()

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = b""
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():  # trailers
            pass
        return content

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on  # noqa: N815

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for key, value in headers.items():
            if key.lower() != "content-length" or self.command == "HEAD":
                self.send_header(key, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def handle(self) -> None:
        with suppress(ConnectionError):  # of a client that was killed
            super().handle()

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


def _error(code: str) -> bytes:
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>planted</Message></Error>'.encode()


_ERRORS = {403: _error("AccessDenied"), 404: _error("NoSuchKey"), 500: _error("InternalError"), 503: _error("SlowDown")}
