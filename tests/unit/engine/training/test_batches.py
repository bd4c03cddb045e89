"""What keeps ranks in step, without processes: padding, equal shares, and batches from memory and from a stream."""

from __future__ import annotations

import dataclasses
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynacor_ray.core import schema
from dynacor_ray.core.duplicates import Duplicates, TwinLabels
from dynacor_ray.core.errors import CoverageError
from dynacor_ray.core.storage import locate
from dynacor_ray.engine.data.padded_split import PADDING_KEY, missing_rows, padding_rows
from dynacor_ray.engine.data.row_facts import RowFacts
from dynacor_ray.engine.training import batches as module
from dynacor_ray.engine.training.batches import Batch, CachedRows, StreamedRows
from dynacor_ray.engine.training.job import Job, TrainConfig
from dynacor_ray.method.corruption import LABEL
from tests.plans import Share, plan_of

DIM = 2
CPU = torch.device("cpu")


def job_of(originals: int, copies: int, workers: int, batch: int, cache_bytes: int, seed: int) -> Job:
    plan = plan_of(workers, cache_bytes=cache_bytes)
    facts = RowFacts(originals, copies, 3, DIM, np.zeros(DIM, np.float32), 1.0, np.array([originals, 0, 0]))
    config = TrainConfig(batch_size=batch, seed=seed, corrupted_weight="paper")
    return Job(config, plan, locate("/nowhere"), facts)


def keys_of(job: Job) -> np.ndarray:
    """An even key per original, and the odd one of the first ids."""
    return np.concatenate([np.arange(job.rows.num_originals) << 1, (np.arange(job.rows.num_copies) << 1) | 1])


def shares_of(job: Job, seed: int) -> list[Share]:
    """All rows in any order, padded, in equal shares."""
    keys = np.random.default_rng(seed).permutation(keys_of(job))
    rows = pa.table(
        {
            schema.KEY: keys,
            LABEL: pa.array(keys % 3, pa.int32()),
            schema.FEATURE: schema.feature_column(np.stack([keys, -keys], axis=1).astype(np.float32)),
        }
    )
    world = job.plan.workers
    rows = pa.concat_tables([rows, padding_rows(missing_rows(len(keys), world), DIM)])
    size, rest = divmod(rows.num_rows, world)
    assert rest == 0, "an equal split would lose rows"
    assert size == job.rows_per_rank
    return [Share(rows.slice(rank * size, size)) for rank in range(world)]


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_all_ranks_step_equally_and_see_every_row_once(data: st.DataObject) -> None:
    """For any N, number of workers and batch size: the same steps on every rank, every key once, padding inert."""
    workers = data.draw(st.integers(1, 9), "workers")
    originals = data.draw(st.integers(1, 300), "originals")
    copies = data.draw(st.integers(0, originals), "copies")
    batch = data.draw(st.integers(workers, 200), "batch size")
    streamed = data.draw(st.booleans(), "streamed")
    epoch, seed = data.draw(st.integers(0, 3), "epoch"), data.draw(st.integers(0, 99), "seed")
    planned = data.draw(st.integers(workers, 12), "workers planned")  # some may be lost, and the others go on
    job = job_of(originals, copies, planned, batch, 0 if streamed else 1 << 30, seed).among(workers)
    assert job.streamed is streamed
    size = max(1, batch // workers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "STREAM_BATCHES", 3)  # several chunks of small data
        ranks = [steps(share, job, rank, epoch, size) for rank, share in enumerate(shares_of(job, seed))]
    lengths = [[len(step.key) for step in rank] for rank in ranks]
    assert all(rank == lengths[0] for rank in lengths), "a rank would wait for ever for another one's gradient"
    assert len(lengths[0]) == -(-job.rows_per_rank // size), "as many as the schedule counts on"
    whole = {name: torch.cat([getattr(step, name) for step in chain(*ranks)]).numpy() for name in Batch._fields}
    real = whole["key"] >= 0
    assert sorted(whole["key"][real]) == sorted(keys_of(job)), "every row once"
    assert set(whole["key"][~real]) <= {PADDING_KEY}
    assert (~real).sum() == missing_rows(job.rows.total, workers) < workers
    assert not whole["weight"][~real].any(), "padding moves nothing"
    assert (whole["weight"][real] > 0).all()
    assert np.array_equal(whole["feature"][real, 0], whole["key"][real]), "features stay with their keys"
    assert np.array_equal(whole["label"][real], whole["key"][real] % 3)


def steps(share: Any, job: Job, rank: int, epoch: int, size: int) -> list[Batch]:
    kind = StreamedRows if job.streamed else CachedRows
    return list(kind(share, job, rank, CPU).batches(epoch, size))


@pytest.mark.parametrize("rows", [9, 11])
def test_a_share_of_another_size_is_told(rows: int) -> None:
    """Rather an error than a rank that waits, or a row that nobody misses."""
    job = job_of(10, 0, 1, 4, 1 << 30, 0)
    share = Share(shares_of(job_of(rows, 0, 1, 4, 1 << 30, 0), 0)[0].rows)
    with pytest.raises(CoverageError, match=f"10 rows on rank 0, but got {rows}"):
        CachedRows(share, job, 0, CPU)


@pytest.mark.parametrize("cache_bytes", [0, 1 << 30])
def test_every_epoch_and_rank_has_an_order_of_its_own_that_the_seed_decides(cache_bytes: int) -> None:
    def order(seed: int = 0, rank: int = 0, epoch: int = 0) -> list[int]:
        job = job_of(100, 0, 1, 8, cache_bytes, seed)
        return [int(key) for step in steps(shares_of(job, 0)[0], job, rank, epoch, 8) for key in step.key]

    orders = [order(), order(epoch=1), order(rank=1), order(seed=1)]
    assert len({tuple(one) for one in orders}) == len(orders)
    assert order() == orders[0]
    assert sorted(orders[0]) != orders[0]


def test_equal_rows_share_one_weight() -> None:
    job = job_of(10, 4, 1, 8, 1 << 30, 0)
    equal = Duplicates(np.array([2, 3, 7]), np.array([2, 2, 2]))
    twins = TwinLabels.of(equal, np.zeros(3, np.int64), np.ones(3, bool))
    job = dataclasses.replace(job, rows=dataclasses.replace(job.rows, twins=twins))
    keys = np.array([2 << 1, 3 << 1, 4 << 1, (7 << 1) | 1, PADDING_KEY])
    before, after = module._weights(job_of(10, 4, 1, 8, 1 << 30, 0), keys), module._weights(job, keys)
    assert torch.allclose(after, before * torch.tensor([1 / 3, 1 / 3, 1.0, 1 / 3, 1.0]))
    assert after[-1] == 0


@pytest.mark.parametrize("cache_bytes", [0, 1 << 40], ids=["streamed", "cached"])
def test_weights_of_rows_reach_the_batches(cache_bytes: int) -> None:
    """By the column, as it came with the row."""
    job = job_of(6, 0, 1, 4, cache_bytes, 0)
    job = dataclasses.replace(job, rows=dataclasses.replace(job.rows, weighted=True))
    (share,) = shares_of(job, 0)
    share.rows = share.rows.append_column(schema.WEIGHT, pa.array(share.rows[schema.KEY].to_numpy() / 4, pa.float32()))
    rows = (StreamedRows if cache_bytes == 0 else CachedRows)(share, job, 0, CPU)
    seen: dict[int, float] = {}
    for batch in rows.batches(0, 4):
        seen |= zip(batch.key.tolist(), batch.weight.tolist(), strict=True)
    assert seen == {key: key / 4 for key in range(0, 12, 2)}
