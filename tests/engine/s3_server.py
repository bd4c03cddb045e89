"""An S3 server on loopback, and a proxy before it that fails as object stores do."""

from __future__ import annotations

import http.client
import random
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow.fs as pafs
import pytest

SECRET = "SECRET1234"


def uri_of(port: int) -> str:
    """Where the bucket is: a format with `{}` for the path."""
    return f"s3://KEY:{SECRET}@bucket/{{}}?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"


@contextmanager
def s3_server() -> Iterator[int]:
    """The port of a server; `empty_bucket` makes the bucket."""
    pytest.importorskip("moto", reason="pip install -e '.[dev]' brings the S3 server")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while server.poll() is None and time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield port
    finally:
        server.kill()
        server.wait()


def empty_bucket(port: int) -> None:
    """Make the server forget all but an empty bucket."""
    urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/reset", data=b"", timeout=60).close()
    pafs.FileSystem.from_uri(uri_of(port).format("x") + "&allow_bucket_creation=true")[0].create_dir("bucket")


KINDS = ("500", "503", "slow", "reset before", "reset after", "truncated")


class Faults:
    """What the proxy does to requests, and what it has done.

    Attributes:
        share: of the requests that go wrong.
        kinds: how; "reset after" means that the server did what was asked, and nobody hears of it.
        lagging: whether a listing is that of the time before, every other time.
        done: requests per kind.
    """

    def __init__(self, share: float, kinds: tuple[str, ...] = KINDS, seed: int = 0) -> None:
        self.share, self.kinds, self.dice = share, kinds, random.Random(seed)
        self.lagging = False
        self.done = Counter[str]()
        self.listings: dict[str, bytes] = {}

    def next(self) -> str:
        """The kind of fault of the next request; empty for none."""
        kind = self.dice.choice(self.kinds) if self.dice.random() < self.share else ""
        self.done[kind] += 1
        return kind


@contextmanager
def faulty_proxy(port: int, faults: Faults) -> Iterator[int]:
    """The port of a proxy before the server at `port`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def reset(self) -> None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True

        def answer(self, status: int, headers: list[tuple[str, str]], body: bytes, sent: int | None = None) -> None:
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in ("transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[:sent])

        def content(self) -> bytes:
            """The body of the request, which may come in chunks."""
            if "chunked" not in (self.headers.get("Transfer-Encoding") or ""):
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            chunks = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return b"".join(chunks)

        def handle_one(self) -> None:
            content = self.content()
            kind = faults.next()
            if kind in ("500", "503"):
                code = "SlowDown" if kind == "503" else "InternalError"
                body = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
                return self.answer(int(kind), [("Content-Length", str(len(body)))], body)
            if kind == "reset before":
                return self.reset()
            if kind == "slow":
                time.sleep(0.2)
            server = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            passed = {k: v for k, v in self.headers.items() if k.lower() not in ("transfer-encoding", "expect")}
            server.request(self.command, self.path, content, passed | {"Content-Length": str(len(content))})
            reply = server.getresponse()
            body, headers = reply.read(), reply.getheaders()
            server.close()
            if kind == "reset after":
                return self.reset()
            if faults.lagging and self.command == "GET" and "list-type=2" in self.path:
                before = faults.listings.get(self.path)
                faults.listings[self.path] = body
                if before is not None and faults.dice.random() < 0.5:
                    body = before
                    faults.done["lagging"] += 1
            headers = [item for item in headers if item[0].lower() != "content-length"]
            length = reply.getheader("Content-Length") if self.command == "HEAD" else str(len(body))
            headers.append(("Content-Length", length or "0"))
            if kind == "truncated" and self.command == "GET" and len(body) > 1:
                self.answer(reply.status, headers, body, len(body) // 2)
                self.wfile.flush()
                self.close_connection = True
                return None
            return self.answer(reply.status, headers, body)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_one  # noqa: N815

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    proxy.daemon_threads = True
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy.server_address[1]
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()
