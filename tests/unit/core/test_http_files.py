"""A web server cannot make a reader hold more than it asked for."""

from __future__ import annotations

import contextlib
import pickle
import threading
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dynacor_ray.core import http_files
from dynacor_ray.core.errors import StorageError
from dynacor_ray.core.storage import locate
from dynacor_ray.sources.image_files import read_file
from tests.opened_sources import png

BODIES = {"sound": png(), "long": bytes(3 << 20), "packed": zlib.compress(bytes(64 << 20))}


class Server(BaseHTTPRequestHandler):
    """Says that every file has as many bytes as a small image."""

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(png())))
        self.end_headers()

    def do_GET(self) -> None:
        name = self.path.strip("/").partition(".")[0]
        self.send_response(206 if "Range" in self.headers else 200)
        if name == "packed":
            self.send_header("Content-Encoding", "deflate")
        self.send_header("Content-Range", f"bytes 0-{len(png()) - 1}/{len(png())}")
        self.send_header("Content-Length", str(len(BODIES[name])))
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(OSError):  # not read to its end
            self.wfile.write(BODIES[name])


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_file_is_read_also_where_its_place_was_sent(address: str) -> None:
    place = pickle.loads(pickle.dumps(locate(f"{address}/sound.png")))
    assert read_file(place) == (png(), None)


@pytest.mark.parametrize("name", ["long", "packed"])
def test_an_answer_that_is_longer_is_not_read(address: str, name: str) -> None:
    """Longer than it says, or longer once it is unpacked."""
    assert read_file(locate(f"{address}/{name}.png")) == (None, "unreadable file (StorageError)")


def test_a_whole_file_has_a_limit(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_files, "MAX_BYTES", 1 << 20)
    place = locate(f"{address}/long.png")
    with pytest.raises(StorageError, match=rf"at most 1,048,576 bytes from {address}/long\.png, but got more"):
        place.filesystem.handler.fs.cat_file(place.path)
