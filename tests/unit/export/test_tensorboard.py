"""Events of a training, read back record by record."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event

from dynacor_ray.core.storage import locate
from dynacor_ray.export.tensorboard import write_events

EPOCHS = [
    {"epoch": 1, "loss": 2.0, "train_agreement": 0.25, "test_accuracy": None},
    {"epoch": 2, "loss": 1.5, "train_agreement": 0.5, "test_accuracy": None},
]


def scalars(file: Path) -> Iterator[tuple[str, int, float]]:
    """Name, step and value: a record is its length, 4 bytes, the event, 4 bytes."""
    data, at = file.read_bytes(), 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 8], "little")
        event: Any = Event.FromString(data[at + 12 : at + 12 + length])
        yield from ((value.tag, event.step, value.simple_value) for value in event.summary.value)
        at += 16 + length


def test_figures_of_every_epoch_are_scalars(tmp_path: Path) -> None:
    """Written twice, they are there once; what was not measured is left out."""
    for rows in (EPOCHS[:1], EPOCHS):
        write_events(rows, locate(str(tmp_path / "events")))
    (file,) = (tmp_path / "events").iterdir()
    assert file.name.startswith("events.out.tfevents.")
    expected = [(name, row["epoch"], row[name]) for row in EPOCHS for name in ("loss", "train_agreement")]
    assert list(scalars(file)) == [(name, step, pytest.approx(value)) for name, step, value in expected]
