"""The module of the DynaCor run without Ray: its leave-one-out margins, and what a checkpoint brings back."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
import torch

from dynacor_ray.core import schema
from dynacor_ray.core.storage import locate
from dynacor_ray.decision.leave_one_out_ridge import RidgeSums
from dynacor_ray.engine.data.row_facts import RowFacts
from dynacor_ray.engine.training.batches import Batch, CachedRows, StreamedRows
from dynacor_ray.engine.training.dynamics_module import DynamicsModule
from dynacor_ray.engine.training.job import Job, TrainConfig
from dynacor_ray.engine.training.module import Recorded
from dynacor_ray.method.corruption import LABEL, CorruptionConfig, is_selected
from dynacor_ray.method.dynamics import logit_margin
from tests.plans import Share, plan_of

ROWS, DIM, CLASSES = 400, 6, 3
CORRUPTION = CorruptionConfig(gamma=0.25, seed=0)
IDS = np.arange(ROWS)
PLAN = plan_of(cache_bytes=0)
CPU = torch.device("cpu")


def job(dim: int = DIM, epochs: int = 3, class_scores: bool = False) -> Job:
    copies = int(is_selected(IDS, CORRUPTION).sum())
    counts = np.full(CLASSES, ROWS // CLASSES)
    facts = RowFacts(ROWS, copies, CLASSES, dim, np.zeros(dim, np.float32), 1.0, counts, CORRUPTION)
    return Job(TrainConfig(epochs=epochs, class_scores=class_scores), PLAN, locate("unused"), facts)


def batch() -> Batch:
    """All originals, a copy of each selected one, and a padding row."""
    random = np.random.default_rng(0)
    has_copy = is_selected(IDS, CORRUPTION)
    keys = np.concatenate([schema.encode_key(IDS, False), schema.encode_key(IDS[has_copy], True), [-1]])
    source = np.concatenate([IDS, IDS[has_copy], [0]])
    label = random.integers(0, CLASSES, len(keys))
    feature = (random.normal(size=(ROWS, DIM)) + 2 * np.eye(CLASSES, DIM)[label[:ROWS]])[source].astype(np.float32)
    weight = torch.ones(len(keys))
    return Batch(torch.from_numpy(keys), torch.from_numpy(label), torch.from_numpy(feature), weight)


def run(module: DynamicsModule, epoch: int) -> Recorded:
    torch.manual_seed(epoch)
    module.begin_epoch(epoch)
    seen = module.step(module.network(), batch(), epoch)[1]
    with torch.no_grad():
        recorded = module.record(batch().key, seen)
    module.end_epoch(epoch, 1)
    return recorded


def test_the_second_epoch_says_what_the_rows_without_a_copy_know() -> None:
    module, rows = DynamicsModule(job(), CPU), batch()
    recorded = [run(module, epoch) for epoch in range(3)]
    assert [schema.LEAVE_ONE_OUT in one for one in recorded] == [False, True, False]
    key = rows.key.numpy()
    fitted = torch.from_numpy((key >= 0) & (key & 1 == 0) & ~is_selected(key >> 1, CORRUPTION))
    sums = RidgeSums(CLASSES, torch.zeros(DIM), 1.0)
    sums.add(rows.feature[fitted], rows.label[fitted])
    ridge = sums.solve()
    assert ridge is not None
    assert ridge.count == fitted.sum()
    expected = logit_margin(ridge.predict(rows.feature, rows.label, fitted), rows.label)
    assert torch.allclose(recorded[1][schema.LEAVE_ONE_OUT], expected, atol=1e-5)


def test_class_scores_are_recorded_where_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    module = DynamicsModule(job(class_scores=True), CPU)
    recorded = [run(module, epoch) for epoch in range(3)]
    names = [set(schema.CLASS_SCORES) & set(one) for one in recorded]
    assert names == [set(), set(schema.CLASS_SCORES), {schema.EARLY_LOGITS}]
    key, label = batch().key.numpy(), batch().label.numpy()
    table = module.table(key[:-1], {name: values[:-1].numpy() for name, values in recorded[1].items()})
    assert schema.matrix(table[schema.RIDGE_SCORES]).shape == (len(key) - 1, CLASSES)
    ridge, classes = recorded[1][schema.RIDGE_SCORES].float(), recorded[1][schema.LIKELY_CLASSES]
    first = torch.zeros(len(key), dtype=torch.int64)
    assert torch.allclose(logit_margin(ridge, first), recorded[1][schema.LEAVE_ONE_OUT], atol=2e-3)
    assert np.array_equal(classes[:, 0], label)
    logits = recorded[2][schema.EARLY_LOGITS].float()
    assert torch.allclose(logits.mean(dim=1), torch.zeros(len(key)), atol=1e-3)
    for module_name in ("engine.training.left_out_scores", "decision.likely_classes"):
        monkeypatch.setattr(f"dynacor_ray.{module_name}.MOST_CLASSES", CLASSES - 1)
    monkeypatch.setattr("dynacor_ray.decision.likely_classes.DRAWN", 1)
    crowded = DynamicsModule(job(class_scores=True), CPU)
    fewer = [run(crowded, epoch) for epoch in range(3)]
    assert (fewer[1][schema.LIKELY_CLASSES][:, 0] == recorded[1][schema.LIKELY_CLASSES][:, 0]).all()
    assert torch.equal(fewer[1][schema.LIKELY_CLASSES], fewer[2][schema.LIKELY_CLASSES])
    assert all(fewer[2][name].shape == (len(key), 2) for name in (schema.LIKELY_CLASSES, schema.EARLY_LOGITS))


def test_a_checkpoint_between_the_two_epochs_brings_the_regression_back() -> None:
    first, second = DynamicsModule(job(), CPU), DynamicsModule(job(), CPU)
    run(first, 0)
    second.restore(first.state())
    expected, found = run(first, 1), run(second, 1)
    assert torch.equal(found[schema.LEAVE_ONE_OUT], expected[schema.LEAVE_ONE_OUT])
    assert first.state()["ridges"] == [], "a later checkpoint does not carry it along"


@pytest.mark.parametrize("epochs", [1, 2])
def test_short_trainings(epochs: int) -> None:
    module = DynamicsModule(job(epochs=epochs), CPU)
    recorded = [run(module, epoch) for epoch in range(epochs)]
    assert [schema.LEAVE_ONE_OUT in one for one in recorded] == [False, True][:epochs]
    assert module.state()["ridges"] == []


@pytest.mark.parametrize("streamed", [False, True])
def test_the_loss_of_eq_2_is_the_mean_of_the_originals_plus_that_of_the_copies(streamed: bool) -> None:
    """From a worker's rows to the loss of its step: each copy weighs 1 / gamma as much as an original."""
    whole, wanted = batch(), job()
    plan = plan_of(cache_bytes=0 if streamed else 1 << 40)
    told = Job(dataclasses.replace(wanted.config, corrupted_weight="paper"), plan, wanted.run, wanted.rows)
    table = pa.table(
        {
            schema.KEY: whole.key[:-1].numpy(),
            LABEL: pa.array(whole.label[:-1].numpy(), pa.int32()),
            schema.FEATURE: schema.fixed_size_list(whole.feature[:-1].numpy()),
        }
    )
    (rows,) = (StreamedRows if streamed else CachedRows)(Share(table), told, 0, CPU).batches(0, table.num_rows)
    module = DynamicsModule(told, CPU)
    network = module.network()
    losses = torch.nn.functional.cross_entropy(network(rows.feature), rows.label, reduction="none")
    copy = rows.key & 1 == 1
    assert int(copy.sum()) == wanted.rows.num_copies > 0
    expected = losses[~copy].mean() + losses[copy].mean()
    assert torch.allclose(module.step(network, rows, 0)[0], expected, rtol=1e-5)
    assert not torch.allclose(losses.mean(), expected, rtol=0.1), "the plain mean is another number"


def test_copies_have_no_say_in_thresholds_and_confident_joints() -> None:
    """Their labels are wrong on purpose; padding has none. They are counted by certainty, though."""
    whole = batch()
    original = (whole.key >= 0) & (whole.key & 1 == 0)
    found = []
    for rows in (whole, Batch(*(part[original] for part in whole))):
        task = DynamicsModule(job(), CPU)
        for epoch in range(2):
            torch.manual_seed(epoch)
            task.begin_epoch(epoch)
            task.record(rows.key, task.step(task.network(), rows, epoch)[1])
            task.end_epoch(epoch, 1)
        found.append(task.state())
    with_copies, without = found
    assert torch.equal(with_copies["thresholds"], without["thresholds"])
    assert list(with_copies["joints"]) == [1], "the first epoch has no thresholds yet"
    assert torch.equal(with_copies["joints"][1], without["joints"][1])
    for epoch, counts in with_copies["confidence"].items():
        assert torch.equal(counts[0], without["confidence"][epoch][0])
        assert int(counts[1].sum()) == job().rows.num_copies
        assert int(without["confidence"][epoch][1].sum()) == 0
