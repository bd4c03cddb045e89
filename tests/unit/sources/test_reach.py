"""Where the URIs of a table may lead."""

from __future__ import annotations

import contextlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest

from dynacor_ray.core import near_addresses
from dynacor_ray.core.errors import ConfigError
from dynacor_ray.core.storage import locate
from dynacor_ray.sources import reach
from dynacor_ray.sources.base import SourceOptions
from dynacor_ray.sources.reach import NEAR, OTHER_STORE, OWN_SERVER, UNCLEAR, refusal
from dynacor_ray.sources.registry import open_source
from tests.opened_sources import opened, png, whole

NEARBY = (
    *("http://127.0.0.1/x.png", "http://user@127.1:80/x.png", "http://2130706433/", "http://[::1]:8080/x.png"),
    *("http://[::ffff:127.0.0.1]/", "http://0.0.0.0/", "http://localhost:9/x.png", "ftp://127.0.0.1/x.png"),
    *("http://169.254.169.254/latest/meta-data", "http://[fe80::1%25eth0]/x", "http://[fd00:ec2::254]/x"),
    *("http://100.100.100.200/x", "s3://bucket/x?endpoint_override=169.254.169.254&scheme=http"),
    *("s3://bucket/x?endpoint_override=http%3A%2F%2F127.0.0.1:80", "http://127.0.0.1#@example.com/x.png"),
    *("s3://bucket/x?endpoint_override=192.0.2.1&endpoint_override=127.0.0.1:9", "http://localhost./x.png"),
    *("abfs://account@169.254.169.254:80/box/x", "gs://bucket/x?endpoint_override=127.0.0.1"),
    *("abfs://box@account/x?blob_storage_authority=127.0.0.1:80", "http://[64:ff9b::7f00:1]/", "http://192.0.0.192/"),
    *("http://[::127.0.0.1]/x", "http://[2002:7f00:1::]/x", "HTTP://127.0.0.1/x", "http://127.0.0.1?@example.com/x"),
)
TWO_READINGS = (
    *("http://%31%32%37.0.0.1/x", "http://127.0.0.1\\@192.0.2.1/x", "http:///127.0.0.1/x", "http:// 192.0.2.1/x"),
    "http://192.0.2.1;@192.0.2.2#/x",
)
BY_TOKEN = (
    *("gs://bucket/x?endpoint_override=192.0.2.1", "GS://anonymous@bucket/x?scheme=http&endpoint_override=192.0.2.1"),
    *("abfss://account@192.0.2.1:443/box/x", "abfs://box@account.evil.invalid/x", "abfs://account@a.b/box/x"),
    "abfs://box@account.dfs.core.windows.net/x?dfs_storage_authority=192.0.2.1",
)
LOCAL, STORE = "/data", "s3://KEY:SECRET@bucket/data?endpoint_override=localhost:1"


@pytest.mark.parametrize("uri", NEARBY)
def test_addresses_of_this_machine_and_its_link(uri: str) -> None:
    assert refusal(uri, locate(LOCAL), None) == NEAR
    assert refusal(uri, locate(LOCAL), True) is None
    assert refusal(uri, locate(STORE), None) == refusal(uri, locate(LOCAL), False) == OTHER_STORE


@pytest.mark.parametrize("uri", TWO_READINGS)
def test_addresses_whose_host_is_in_doubt(uri: str) -> None:
    assert refusal(uri, locate(LOCAL), None) == UNCLEAR
    assert refusal(uri, locate(STORE), None) == OTHER_STORE


@pytest.mark.parametrize("uri", BY_TOKEN)
def test_no_server_that_a_table_names_sees_a_token(uri: str) -> None:
    assert refusal(uri, locate(LOCAL), None) == OWN_SERVER
    assert refusal(uri, locate(LOCAL), True) is None


@pytest.mark.parametrize(
    ("uri", "here", "there"),
    [
        ("s3://bucket/x.png", None, OTHER_STORE),
        ("gs://my.bucket/x.png?project_id=p", None, OTHER_STORE),
        ("abfs://box@account.dfs.core.windows.net/x.png", None, OTHER_STORE),
        ("abfs://account/box/x.png", None, OTHER_STORE),
        ("https://192.0.2.1/x.png", None, OTHER_STORE),
        ("/etc/x.png", None, OTHER_STORE),
        ("file:///etc/x.png", None, OTHER_STORE),
        ("s3://bucket/other/x.png?endpoint_override=localhost:1", NEAR, None),
        ("s3://other/x.png?endpoint_override=192.0.2.1", None, OTHER_STORE),
        ("s3://bucket/x.png?endpoint_override=localhost:1&proxy_options=http://192.0.2.1", NEAR, OTHER_STORE),
        ("https://user:pw@example.invalid:8443/x.png?size=2", None, OTHER_STORE),
    ],
)
def test_the_default_trusts_a_table_on_this_machine_and_no_other(uri: str, here: str | None, there: str | None) -> None:
    assert refusal(uri, locate(LOCAL), None) == here
    assert refusal(uri, locate(STORE), None) == there


def test_nothing_is_asked_for(tmp_path: Path) -> None:
    """A server on loopback sees no connection, and a table on a store reads no file of this machine."""
    (tmp_path / "near.png").write_bytes(png())
    seen: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]

        def accept() -> None:
            with contextlib.suppress(TimeoutError):
                seen.append(server.accept())

        waiting = threading.Thread(target=accept)
        waiting.start()
        lines = f"uri,label\nhttp://127.0.0.1:{port}/x.png,a\n{tmp_path}/near.png,b\nnear.png,b\n"
        (tmp_path / "t.csv").write_text(lines)
        table = whole(opened(tmp_path / "t.csv"))
        waiting.join()
    assert table["error"].to_pylist() == [NEAR, None, None]
    assert not seen
    store = fsspec.filesystem("memory")
    store.store.clear()
    store.pipe("/box/t.csv", lines.encode())
    store.pipe("/box/near.png", png())
    place = "memory://box/t.csv"
    assert whole(opened(place))["error"].to_pylist() == [OTHER_STORE, OTHER_STORE, None]
    assert whole(opened(place, remote=True))["error"].to_pylist()[1:] == [None, None]


def test_no_redirect_leads_near(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does a name whose address changes after it was checked: what counts is where the connection goes."""
    monkeypatch.setattr(reach, "_is_near", lambda host: host == "127.0.0.2")
    monkeypatch.setattr(near_addresses, "is_near", lambda text: text == "127.0.0.2")
    seen: list[str] = []

    class Server(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            near = self.server.server_address[0] == "127.0.0.2"
            seen.append("near" if near else "far")
            self.send_response(200 if near or self.path == "/far.png" else 302)
            if not near:
                self.send_header("Location", f"http://127.0.0.2:{servers[1].server_address[1]}/x.png")
            self.send_header("Content-Length", str(len(png())))
            self.end_headers()
            self.wfile.write(png())

        do_HEAD = do_GET  # noqa: N815

    servers = [ThreadingHTTPServer((f"127.0.0.{number}", 0), Server) for number in (1, 2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    far = f"http://127.0.0.1:{servers[0].server_address[1]}"
    (tmp_path / "t.csv").write_text(f"uri,label\n{far}/x.png,a\n{far}/far.png,b\n")
    assert whole(opened(tmp_path / "t.csv"))["error"].to_pylist() == ["missing file", None]
    assert "near" not in seen
    assert whole(opened(tmp_path / "t.csv", remote=True))["error"].to_pylist() == [None, None]
    assert "near" in seen
    for server in servers:
        server.shutdown()
        server.server_close()


def test_only_tables_have_uris() -> None:
    with pytest.raises(ConfigError, match="--remote; leave"):
        open_source("demo", SourceOptions(remote=True))
