"""The figures of a training as TensorBoard events, while it runs, in Tune's own format of them."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from dynacor_ray.core.fences import check_change
from dynacor_ray.core.storage import Location, storage_errors

if TYPE_CHECKING:
    from tensorboardX.event_file_writer import EventsWriter


class EventFile:
    """One file of events in a folder, in place of those that are there; nothing is touched before the first figures.

    A local file grows, so that a TensorBoard that has it open goes on reading; on a store it is written anew.
    """

    def __init__(self, place: Location) -> None:
        self._place, self._epoch = place, 0
        self._writer: EventsWriter | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._folder is not None:
            self._folder.cleanup()

    def write(self, epochs: list[dict[str, Any]]) -> None:
        """Add the epochs that are not there yet.

        epochs: figures by name per epoch, `epoch` among them, which is the step; None is left out.

        Raises:
            StorageError: the folder cannot be written.
            RunDirectoryError: another driver took the run over.
        """
        new = [row for row in epochs if row["epoch"] > self._epoch]
        if not new:
            return
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        def value_of(name: str, value: float) -> Any:
            return Summary.Value(tag=name, simple_value=value)

        with storage_errors("write", self._place):
            writer = self._writer = self._writer or self._begun()
            check_change(self._place.filesystem, self._place.path, self._place.lock)
            for row in new:
                shown = [value_of(*one) for one in row.items() if one[0] != "epoch" and one[1] is not None]
                writer.write_event(Event(wall_time=time.time(), step=row["epoch"], summary=Summary(value=shown)))
            writer.flush()
        if self._folder is not None:
            for file in Path(self._folder.name).iterdir():
                (self._place / file.name).write_bytes(file.read_bytes())
        self._epoch = new[-1]["epoch"]

    def _begun(self) -> EventsWriter:
        from tensorboardX.event_file_writer import EventsWriter  # `SummaryWriter` would write some time later

        self._place.delete()
        self._place.make_dir()
        if not self._place.is_local:  # the only disks that it writes to
            self._folder = tempfile.TemporaryDirectory()
        return EventsWriter(f"{self._place.path if self._folder is None else self._folder.name}/events")
