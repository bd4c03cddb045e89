"""Weights from the hub, offline and when it answers with an error."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dynacor_ray.core.errors import EncoderError
from dynacor_ray.models import hub
from dynacor_ray.models.encoders import load_encoder, parse_encoder
from tests.small_networks import CONV, images


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network and nothing cached, whatever the machine has."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("no_proxy", "*")


@pytest.mark.parametrize("text", ["timm:resnet18", "open_clip:RN50/openai"])
@pytest.mark.usefixtures("no_hub")
def test_offline_is_said(text: str) -> None:
    import huggingface_hub.constants

    spec = parse_encoder(text)
    with pytest.raises(EncoderError, match=r"(?s)from http://127.*refused.*dynacor-ray\[encoders\].*--encoder pixels"):
        load_encoder(spec)
    assert huggingface_hub.constants.HF_HUB_OFFLINE is False


@pytest.mark.usefixtures("no_hub")
def test_offline_uses_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.manual_seed(4)
    import timm

    model = timm.create_model(CONV, pretrained=False)
    repository = tmp_path / "hub" / f"models--timm--{CONV}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots" / ("0" * 40)).mkdir(parents=True)
    save_file(model.state_dict(), repository / "snapshots" / ("0" * 40) / "model.safetensors")
    encoder = load_encoder(parse_encoder(CONV, 32))
    assert encoder.encode(images(2, 32)).shape == (2, encoder.dim)


@pytest.fixture
def refusing_server() -> Iterator[str]:
    """A hub that answers, but with an error."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(403)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_error_status_is_an_answer(refusing_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    assert hub.hub_problem(refusing_server) is None
    assert hub.hub_problem("http://127.0.0.1:9") is not None
