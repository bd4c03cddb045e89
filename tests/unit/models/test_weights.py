"""Weight files: code in them is not executed, and they are loaded whole or not at all."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dynacor_ray.core.errors import EncoderError
from dynacor_ray.models.encoders import load_encoder, parse_encoder
from tests.small_networks import CONV, images


class Attack:
    """A pickle of this would make a directory when it is read the usual way."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [None, 2, 4])
def test_code_in_weights_is_not_executed(tmp_path: Path, protocol: int | None) -> None:
    victim, path = tmp_path / "victim", tmp_path / "evil.pt"
    if protocol is None:
        torch.save({"weight": Attack(victim)}, path)
    else:
        path.write_bytes(pickle.dumps({"weight": Attack(victim)}, protocol=protocol))
    found = "maybe code" if protocol == 4 else r"with code \(.*mkdir\)"
    with pytest.raises(EncoderError, match=f"a pickle .*{found}.*never executed"):
        load_encoder(parse_encoder(f"timm:{CONV}@{path}"))
    assert not victim.exists()


@pytest.mark.parametrize(("name", "content"), [("a.pt", b"not weights"), ("a.safetensors", b"x" * 40), ("a.pth", b"")])
def test_damaged_weights(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(EncoderError, match=name):
        load_encoder(parse_encoder(f"timm:{CONV}@{tmp_path / name}"))


def test_wrapped_weights(conv_file: Path) -> None:
    state = torch.load(conv_file, weights_only=True)
    reference = load_encoder(parse_encoder(f"timm:{CONV}@{conv_file}", 32)).encode(images(2, 32))
    wrapped = {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}}
    torch.save(wrapped, conv_file)
    again = load_encoder(parse_encoder(f"timm:{CONV}@{conv_file}", 32)).encode(images(2, 32))
    np.testing.assert_array_equal(again, reference)


def test_weights_that_do_not_fit(conv_file: Path) -> None:
    state = torch.load(conv_file, weights_only=True)
    body = [key for key in state if not key.startswith("fc.")]
    changes: list[tuple[dict[str, Any], str]] = [
        ({body[0]: None}, f"1 missing \\({body[0]}\\)"),
        ({"surplus": torch.zeros(1)}, r"1 unexpected \(surplus\)"),
        ({body[0]: torch.zeros(2)}, f"1 of another shape \\({body[0]}\\)"),
    ]
    for change, message in changes:
        changed = {key: value for key, value in {**state, **change}.items() if value is not None}
        torch.save(changed, conv_file)
        with pytest.raises(EncoderError, match=message):
            load_encoder(parse_encoder(f"timm:{CONV}@{conv_file}"))
    torch.save({"epoch": 1}, conv_file)
    with pytest.raises(EncoderError, match="no tensors"):
        load_encoder(parse_encoder(f"timm:{CONV}@{conv_file}"))
