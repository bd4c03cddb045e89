"""The figures of a training as TensorBoard events, in Tune's own format of them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from dynacor_ray.core.storage import Location


def write_events(epochs: list[dict[str, Any]], place: Location) -> None:
    """Write one file of events, in place of those that are there.

    Args:
        epochs: Figures by name per epoch, `epoch` among them, which is the step; None is left out.
        place: The folder.
    """
    from tensorboardX import SummaryWriter

    place.delete()
    with tempfile.TemporaryDirectory() as folder:  # it writes to local disks only
        with SummaryWriter(folder) as writer:
            for row in epochs:
                for name, value in row.items():
                    if name != "epoch" and value is not None:
                        writer.add_scalar(name, value, row["epoch"])
        place.make_dir()
        for file in Path(folder).iterdir():
            (place / file.name).write_bytes(file.read_bytes())
