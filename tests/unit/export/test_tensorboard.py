"""Events of a training, read back record by record."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest
from tensorboardX.proto.event_pb2 import Event

from dynacor_ray.core.errors import RunDirectoryError
from dynacor_ray.core.fences import fenced
from dynacor_ray.core.storage import Location, locate
from dynacor_ray.export.tensorboard import EventFile

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


EXPECTED = [(name, row["epoch"], row[name]) for row in EPOCHS for name in ("loss", "train_agreement")]


def told(file: Path) -> list[tuple[str, int, Any]]:
    return [(name, step, pytest.approx(value)) for name, step, value in scalars(file)]


def test_figures_are_there_as_soon_as_they_are_known(tmp_path: Path) -> None:
    """In one file that grows, in place of that of an attempt before; told again, they are there once."""
    place = tmp_path / "events"
    place.mkdir()
    (place / "events.out.tfevents.0.before").write_bytes(b"of a killed attempt")
    with EventFile(locate(str(place))) as events:
        events.write([])
        assert len(list(place.iterdir())) == 1, "nothing is known yet"
        inode = 0
        for count in (1, 1, 2, 2):
            events.write(EPOCHS[:count])
            (file,) = place.iterdir()
            assert told(file) == EXPECTED[: 2 * count]
            inode = inode or file.stat().st_ino
            assert file.stat().st_ino == inode, "a TensorBoard has it open"
    assert file.name.startswith("events.out.tfevents.")


def test_a_store_gets_the_whole_file_each_time(tmp_path: Path) -> None:
    place = Location(pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem()), "events", "events")
    assert not place.is_local
    with EventFile(place) as events:
        for count in (1, 2):
            events.write(EPOCHS[:count])
            (file,) = (tmp_path / "events").iterdir()
            assert told(file) == EXPECTED[: 2 * count]


def test_a_driver_that_was_taken_over_adds_nothing(tmp_path: Path) -> None:
    place, allowed = locate(str(tmp_path / "events")), [True]

    def check() -> None:
        if not allowed[0]:
            raise RunDirectoryError("another driver took over")

    with fenced(place.filesystem, place.path, "lock", check), EventFile(place) as events:
        events.write(EPOCHS[:1])
        allowed[0] = False
        with pytest.raises(RunDirectoryError):
            events.write(EPOCHS)
        (file,) = (tmp_path / "events").iterdir()
        assert told(file) == EXPECTED[:2]
