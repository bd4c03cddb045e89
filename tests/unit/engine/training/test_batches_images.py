"""Batches of images: bytes until they are needed, alike in size, made ahead, within a small memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from dynacor_ray.core import schema
from dynacor_ray.engine.training.batches import Batch, CachedRows, StreamedRows, prefetch
from dynacor_ray.method.corruption import LABEL
from tests.image_jobs import CPU, SIDE, batch, job_of
from tests.plans import Share


@pytest.mark.parametrize("cache_bytes", [0, 1 << 30])
@pytest.mark.parametrize("rows", [33, 32, 1, 16, 64 * 16 + 1])  # 64 batches are streamed at a time
def test_images_stay_bytes_and_batches_are_alike_in_size(rows: int, cache_bytes: int) -> None:
    """A last batch of one row would give batch norm nothing to go by."""
    job = job_of(rows, cache_bytes=cache_bytes)
    images = np.random.default_rng(0).integers(0, 256, (rows, 3 * SIDE * SIDE), np.uint8)
    table = pa.table(
        {
            schema.KEY: np.arange(rows) << 1,
            LABEL: pa.array(np.zeros(rows), pa.int32()),
            schema.FEATURE: schema.fixed_size_list(images),
        }
    )
    kind = CachedRows if cache_bytes else StreamedRows
    assert job.streamed is not bool(cache_bytes)
    batches = list(kind(Share(table), job, 0, CPU).batches(0, 16))
    sizes = [len(one.key) for one in batches]
    assert len(sizes) == -(-rows // 16)
    assert max(sizes) - min(sizes) <= 1
    assert {one.feature.dtype for one in batches} == {torch.uint8}
    for one in batches:
        assert np.array_equal(one.feature.numpy(), images[one.key.numpy() >> 1])
    keys = torch.cat([one.key for one in batches])
    assert sorted(keys.tolist()) == list(range(0, 2 * rows, 2))


def test_a_small_memory_is_kept_to() -> None:
    """Large images are not read 64 batches at a time when that would be gigabytes."""
    asked = list[int | None]()

    class Asked(Share):
        def iter_batches(self, batch_size: int | None, *_: Any, **__: Any) -> Any:
            asked.append(batch_size)
            return iter(())

    job = job_of(10_000, cache_bytes=0)
    job = dataclasses.replace(job, rows=dataclasses.replace(job.rows, dim=3 * 256 * 256))
    assert list(StreamedRows(Asked(pa.table({})), job, 0, CPU).batches(0, 64)) == []
    assert asked == [64 * 21]


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_batches_made_ahead_are_the_same(count: int) -> None:
    batches = [batch(rows) for rows in range(1, count + 1)]
    found = list(prefetch(iter(batches)))
    assert [len(one.key) for one in found] == [len(one.key) for one in batches]


def test_an_error_while_making_ahead_is_told() -> None:
    def broken() -> Iterator[Batch]:
        yield batch(1)
        raise MemoryError

    made = prefetch(broken())
    assert len(next(made).key) == 1
    with pytest.raises(MemoryError):
        next(made)
