"""Targets per instance: by key whatever the batches, 0 at first, and the same when they are read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from dynacor_ray.core import schema
from dynacor_ray.core.errors import CoverageError
from dynacor_ray.core.storage import locate
from dynacor_ray.engine.training.instance_targets import InstanceTargets
from dynacor_ray.engine.training.signal_files import TARGET

CPU = torch.device("cpu")
KEYS = torch.tensor([8, -1, 2, 4])
VALUES = torch.tensor([[0.1, 0.2], [9.0, 9.0], [0.3, 0.4], [0.5, 0.6]])


def after_one_epoch() -> InstanceTargets:
    targets = InstanceTargets(2, CPU)
    targets.begin(None)
    targets.keep(KEYS[:2], VALUES[:2])
    targets.keep(KEYS[2:], VALUES[2:])
    return targets


def test_they_are_zero_at_first() -> None:
    targets = InstanceTargets(2, CPU)
    targets.begin(None)
    assert targets.of(KEYS).tolist() == [[0.0, 0.0]] * 4


def test_they_are_found_by_key_and_padding_has_none() -> None:
    targets = after_one_epoch()
    targets.begin(iter(()))
    assert torch.equal(targets.of(torch.tensor([4, 8, -1])), torch.stack([VALUES[3], VALUES[0], torch.zeros(2)]))


def test_a_row_without_one_is_an_error() -> None:
    targets = after_one_epoch()
    targets.begin(iter(()))
    with pytest.raises(CoverageError, match="none of instance_id 3"):
        targets.of(torch.tensor([4, 6]))


@pytest.mark.parametrize("forgotten", [True, False])
def test_they_are_read_back_where_this_rank_did_not_make_them(forgotten: bool, tmp_path: Path) -> None:
    """After a resume, or when other rows come to a rank."""
    folder = locate(str(tmp_path))
    for name, rows in (("a", [0]), ("b", [2, 3])):
        values = schema.fixed_size_list(VALUES[rows].numpy())
        (folder / name).write_table(pa.table({schema.KEY: KEYS[rows].numpy(), TARGET: values}))
    targets = InstanceTargets(2, CPU)
    if forgotten:
        targets.keep(torch.tensor([8]), torch.full((1, 2), 7.0))
        targets.forget()
    targets.begin(folder / name for name in ("a", "b"))
    real = np.flatnonzero(KEYS.numpy() >= 0)
    assert torch.equal(targets.of(KEYS)[real], VALUES[real])
