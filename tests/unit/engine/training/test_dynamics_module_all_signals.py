"""Recording more signals changes nothing of the training, and alignment is to what the originals of an epoch span."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from dynacor_ray.core import schema
from dynacor_ray.core.eager_optimizer import eager
from dynacor_ray.core.errors import TrainingError
from dynacor_ray.core.storage import locate
from dynacor_ray.engine.data.row_facts import RowFacts
from dynacor_ray.engine.training.batches import Batch
from dynacor_ray.engine.training.dynamics_module import AllSignalsModule, DynamicsModule
from dynacor_ray.engine.training.job import Job, TrainConfig
from dynacor_ray.engine.training.worker import make_module
from dynacor_ray.method.dynamics import first_eigenvectors
from dynacor_ray.method.signals import COLUMNS
from tests.plans import plan_of

ROWS, CLASSES, DIM, EPOCHS = 24, 3, 5, 3
CPU = torch.device("cpu")


def job_of(signals: bool) -> Job:
    facts = RowFacts(20, 4, CLASSES, DIM, np.zeros(DIM, np.float32), 1.0, np.array([7, 7, 6]))
    return Job(TrainConfig(epochs=EPOCHS, signals=signals), plan_of(), locate("/r"), facts)


def batches() -> list[Batch]:
    """20 originals, 3 copies and a padding row, in batches of 10, 10 and 4."""
    generator = torch.Generator().manual_seed(0)
    keys = torch.cat([torch.arange(20) * 2, torch.tensor([1, 5, 9, -1])])
    labels = torch.randint(CLASSES, (ROWS,), generator=generator)
    features = torch.randn(ROWS, DIM, generator=generator)
    parts = (part.split([10, 10, 4]) for part in (keys, labels, features, (keys >= 0).float()))
    return [Batch(*fields) for fields in zip(*parts, strict=True)]


def trained(module: DynamicsModule) -> tuple[list[dict[str, torch.Tensor]], torch.nn.Module]:
    """What is recorded in every epoch, rows in the order of the batches."""
    torch.manual_seed(1)
    network = module.network()
    optimizer = eager(torch.optim.SGD)(network.parameters(), lr=0.1)
    epochs = []
    for epoch in range(EPOCHS):
        module.begin_epoch(epoch)
        steps = []
        for batch in batches():
            loss, seen = module.step(network, batch, epoch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                steps.append(module.record(batch.key, seen))
        module.end_epoch(epoch, world=1)
        epochs.append({name: torch.cat([step[name] for step in steps]) for name in steps[0]})
    return epochs, network


def test_the_training_is_the_same_with_and_without() -> None:
    plain, more = make_module(job_of(False), CPU), make_module(job_of(True), CPU)
    assert type(plain) is DynamicsModule
    assert isinstance(more, AllSignalsModule)
    (less, first), (all_of_it, second) = trained(plain), trained(more)
    assert first.state_dict().keys() == second.state_dict().keys(), "a checkpoint of either"
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
    for epoch, (one, other) in enumerate(zip(less, all_of_it, strict=True)):
        once = {schema.LEAVE_ONE_OUT} if epoch == schema.LEAVE_ONE_OUT_EPOCH else set()
        assert set(one) == {schema.MARGIN, schema.PREDICTED} | once
        assert set(other) == {schema.PREDICTED, *COLUMNS} | once
        assert all(torch.equal(one[name], other[name]) for name in one)
    joints = [module.state()["joints"] for module in (plain, more)]
    assert all(torch.equal(joints[0][epoch], joints[1][epoch]) for epoch in joints[0])


def test_alignment_is_to_the_originals_of_the_epoch_before() -> None:
    """With a learning rate of 0 the pre-logits of every epoch are the same."""
    module = AllSignalsModule(job_of(True), CPU)
    network = module.network()
    whole = Batch(*(torch.cat(fields) for fields in zip(*batches(), strict=True)))
    with torch.no_grad():
        features = network.hidden(network.scaling(whole.feature))
    seen = []
    for epoch in range(2):
        module.begin_epoch(epoch)
        with torch.no_grad():
            steps = [module.record(batch.key, module.step(network, batch, epoch)[1]) for batch in batches()]
        seen.append(torch.cat([step["alignment"] for step in steps]))
        module.end_epoch(epoch, world=1)
    assert seen[0].tolist() == [0.0] * ROWS
    mine = [features[:20][whole.label[:20] == label] for label in range(CLASSES)]
    directions = first_eigenvectors(torch.stack([rows.T @ rows for rows in mine]))
    assert torch.allclose(seen[1], (features * directions[whole.label]).sum(dim=1) ** 2, atol=1e-4)


def test_what_a_checkpoint_keeps() -> None:
    module, other = AllSignalsModule(job_of(True), CPU), AllSignalsModule(job_of(True), CPU)
    trained(module)
    file = io.BytesIO()
    torch.save(module.state(), file)
    other.restore(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    assert torch.equal(other.state()["directions"], module.state()["directions"])
    assert other.state()["joints"].keys() == module.state()["joints"].keys()
    fresh = AllSignalsModule(job_of(True), CPU)
    fresh.restore(AllSignalsModule(job_of(True), CPU).state())
    assert fresh.state()["directions"] is None


def test_stored_signals() -> None:
    module = AllSignalsModule(job_of(True), CPU)
    recorded = {name: values.numpy() for name, values in trained(module)[0][-1].items()}
    keys = np.arange(ROWS)
    table = module.table(keys, recorded)
    assert table.column_names == [schema.KEY, schema.MARGIN, schema.PREDICTED, *COLUMNS[1:]]
    assert {str(table.schema.field(name).type) for name in COLUMNS} == {"halffloat"}
    assert table["loss"].to_numpy() == pytest.approx(recorded["loss"], rel=1e-3)
    recorded["loss"][3] = np.nan
    with pytest.raises(TrainingError, match="NaN in 1 of 24 rows"):
        module.table(keys, recorded)
