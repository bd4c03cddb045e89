"""A network trained from pixels: the same gradients and signals as a plain loop; padding moves nothing."""

from __future__ import annotations

import torch
from torch import nn

from dynacor_ray.core import schema
from dynacor_ray.core.eager_optimizer import eager
from dynacor_ray.engine.training.batches import Batch
from dynacor_ray.engine.training.dynamics_module import DynamicsModule
from dynacor_ray.engine.training.job import Job
from dynacor_ray.models.augmentation import TrainingAugmentation
from tests.image_jobs import CPU, ROWS, SIDE, batch, job_of


def fresh_network(job: Job) -> nn.Module:
    torch.manual_seed(1)
    return DynamicsModule(job, CPU).network()


def test_gradient_and_signal_are_those_of_a_plain_loop() -> None:
    """In float32, over several steps of SGD on the same batches."""
    job, rows = job_of(), batch()
    assert job.config.augmentation is not None
    ours, plain = fresh_network(job), fresh_network(job)
    module, augment = DynamicsModule(job, CPU), job.config.augmentation
    kind, options = eager(torch.optim.SGD), {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
    sgd = [kind(model.parameters(), **options) for model in (ours, plain)]
    for epoch in range(2):
        module.begin_epoch(epoch)
        for part in torch.arange(ROWS).split(16):
            one = Batch(*(value[part] for value in rows))
            loss, seen = module.step(ours, one, epoch)
            recorded = module.record(one.key, seen)
            images = augment(one.feature.view(-1, SIDE, SIDE, 3), one.key, epoch)
            logits = plain(images)
            expected = nn.functional.cross_entropy(logits, one.label)
            given = logits.gather(1, one.label[:, None])[:, 0]
            others = logits.scatter(1, one.label[:, None], -torch.inf).amax(dim=1)
            assert torch.allclose(loss, expected, atol=1e-6)
            assert torch.allclose(recorded[schema.MARGIN], given - others, atol=1e-6)
            assert torch.equal(recorded[schema.PREDICTED].long(), logits.argmax(dim=1))
            for optimizer, value in zip(sgd, (loss, expected), strict=True):
                optimizer.zero_grad()
                value.backward()  # type: ignore[no-untyped-call]
            for mine, theirs in zip(ours.parameters(), plain.parameters(), strict=True):
                assert mine.grad is not None
                assert torch.allclose(mine.grad, theirs.grad, atol=1e-6)  # type: ignore[arg-type]
            for optimizer in sgd:
                optimizer.step()


def test_no_regression_on_pixels() -> None:
    """The margins that leave a row out need features that stay the same."""
    module, rows = DynamicsModule(job_of(), CPU), batch()
    model = module.network()
    for epoch in range(2):
        module.begin_epoch(epoch)
        recorded = module.record(rows.key, module.step(model, rows, epoch)[1])
        module.end_epoch(epoch, 1)
    assert not recorded[schema.LEAVE_ONE_OUT].any()
    assert module.state()["ridges"] == []


def test_padding_shows_a_real_image_of_its_batch() -> None:
    """It has no weight in the loss; batch norm sees one real image twice, and nothing that is not in the data."""
    seen = list[torch.Tensor]()
    job = job_of(augmentation=TrainingAugmentation(SIDE, SIDE, "none", 0))
    module, model = DynamicsModule(job, CPU), fresh_network(job)
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    module.begin_epoch(0)
    padded = batch(ROWS, padding=1)
    loss, recorded = module.step(model, padded, 0)
    assert seen[0].shape == (ROWS + 1, SIDE, SIDE, 3)
    assert torch.equal(seen[0][-1], seen[0][0])
    assert torch.equal(seen[0][:-1].reshape(ROWS, -1), padded.feature[:-1])
    assert not torch.equal(padded.feature[-1], padded.feature[0]), "the batch itself is left as it is"
    losses = nn.functional.cross_entropy(recorded["logits"], padded.label, reduction="none")
    assert torch.allclose(loss, losses[:-1].mean())


def test_a_batch_of_padding_alone() -> None:
    job = job_of()
    module = DynamicsModule(job, CPU)
    module.begin_epoch(0)
    loss, _ = module.step(fresh_network(job), batch(0, padding=2), 0)
    assert loss.item() == 0
