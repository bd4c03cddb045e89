"""Training a network on images without Ray: the same numbers as a plain loop, inert padding, schedules, no memory."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import nn

from dynacor_ray.config.detect import DetectConfig
from dynacor_ray.core import schema
from dynacor_ray.core.errors import ConfigError
from dynacor_ray.core.image_decoding import center_crop_resize, load_rgb
from dynacor_ray.core.storage import locate
from dynacor_ray.engine.data.embed import EmbeddingChunk
from dynacor_ray.engine.data.image_rows import ImageReader
from dynacor_ray.engine.data.labels import GivenLabels
from dynacor_ray.engine.data.row_facts import RowFacts
from dynacor_ray.engine.data.training_rows import padding_rows
from dynacor_ray.engine.training.batches import Batch, CachedRows, StreamedRows, prefetch
from dynacor_ray.engine.training.dynamics_module import DynamicsModule
from dynacor_ray.engine.training.job import Job, TrainConfig
from dynacor_ray.engine.training.lr_schedule import MIN_LEARNING_RATE, make_schedule, rate_after
from dynacor_ray.engine.training.worker import is_out_of_memory, memory_message
from dynacor_ray.method.corruption import LABEL, CorruptionConfig, corrupted_label, is_selected
from dynacor_ray.models.augmentation import TrainingAugmentation
from dynacor_ray.models.image_classifiers import parse_network
from dynacor_ray.workflows.prepare import prepare
from tests.plans import plan_of

SIDE, CLASSES, ROWS = 8, 3, 40
CPU = torch.device("cpu")
CONFIG = TrainConfig(
    epochs=4,
    batch_size=16,
    learning_rate=0.1,
    network=parse_network("cifar_resnet8", SIDE),
    augmentation=TrainingAugmentation(SIDE, SIDE, "crop_flip", 0),
)


def job_of(rows: int = ROWS, workers: int = 1, cache_bytes: int = 1 << 30, **changes: Any) -> Job:
    counts, nothing = np.array([rows, 0, 0]), np.empty(0, np.float32)
    facts = RowFacts(rows, 0, CLASSES, 3 * SIDE * SIDE, nothing, 1.0, counts, value_type="uint8")
    plan = plan_of(workers, cache_bytes=cache_bytes)
    return Job(dataclasses.replace(CONFIG, **changes), plan, locate("unused"), facts)


def batch(rows: int = ROWS, padding: int = 0) -> Batch:
    random = np.random.default_rng(0)
    key = np.concatenate([np.arange(rows) << 1, np.full(padding, -1)])
    images = random.integers(0, 256, (len(key), 3 * SIDE * SIDE), np.uint8)
    label = torch.from_numpy(random.integers(0, CLASSES, len(key)))
    weight = torch.from_numpy((key >= 0).astype(np.float32))
    return Batch(torch.from_numpy(key), label, torch.from_numpy(images), weight)


def fresh_network(job: Job) -> nn.Module:
    torch.manual_seed(1)
    return DynamicsModule(job, CPU).network()


def test_gradient_and_signal_are_those_of_a_plain_loop() -> None:
    """In float32, over several steps of SGD on the same batches."""
    job, rows = job_of(), batch()
    assert job.config.augmentation is not None
    ours, plain = fresh_network(job), fresh_network(job)
    task, augment = DynamicsModule(job, CPU), job.config.augmentation
    sgd = [torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4) for model in (ours, plain)]
    for epoch in range(2):
        task.begin_epoch(epoch)
        for part in torch.arange(ROWS).split(16):
            one = Batch(*(value[part] for value in rows))
            loss, seen = task.step(ours, one, epoch)
            recorded = task.record(one.key, seen)
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
    task, rows = DynamicsModule(job_of(), CPU), batch()
    model = task.network()
    for epoch in range(2):
        task.begin_epoch(epoch)
        recorded = task.record(rows.key, task.step(model, rows, epoch)[1])
        task.end_epoch(epoch, 1)
    assert not recorded[schema.LEAVE_ONE_OUT].any()
    assert task.state()["ridge"] is None


def test_padding_shows_a_real_image_of_its_batch() -> None:
    """It has no weight in the loss; batch norm sees one real image twice, and nothing that is not in the data."""
    seen = list[torch.Tensor]()
    job = job_of(augmentation=TrainingAugmentation(SIDE, SIDE, "none", 0))
    task, model = DynamicsModule(job, CPU), fresh_network(job)
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    task.begin_epoch(0)
    padded = batch(ROWS, padding=1)
    loss, recorded = task.step(model, padded, 0)
    assert seen[0].shape == (ROWS + 1, SIDE, SIDE, 3)
    assert torch.equal(seen[0][-1], seen[0][0])
    assert torch.equal(seen[0][:-1].reshape(ROWS, -1), padded.feature[:-1])
    assert not torch.equal(padded.feature[-1], padded.feature[0]), "the batch itself is left as it is"
    losses = nn.functional.cross_entropy(recorded["logits"], padded.label, reduction="none")
    assert torch.allclose(loss, losses[:-1].mean())


def test_a_batch_of_padding_alone() -> None:
    job = job_of()
    task = DynamicsModule(job, CPU)
    task.begin_epoch(0)
    loss, _ = task.step(fresh_network(job), batch(0, padding=2), 0)
    assert loss.item() == 0


class Share:
    """A rank's rows, handed out as Ray Data does."""

    def __init__(self, rows: pa.Table) -> None:
        self.rows = rows

    def iter_batches(self, batch_size: int | None, batch_format: str, prefetch_batches: int = 1) -> Any:
        yield from (self.rows.slice(at, batch_size or 7) for at in range(0, self.rows.num_rows, batch_size or 7))


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


def test_padding_rows_have_the_type_of_the_others() -> None:
    assert padding_rows(2, 12, "uint8").schema.field(schema.FEATURE).type == pa.list_(pa.uint8(), 12)


def test_data_must_be_images(tmp_path: Path) -> None:
    features = schema.fixed_size_list(np.zeros((10, 4), np.float32))
    pq.write_table(pa.table({"label": ["a", "b"] * 5, "feature": features}), tmp_path / "f.parquet")
    with pytest.raises(ConfigError, match=r"images for --network cifar_resnet8, but got features in .*; leave out"):
        prepare(DetectConfig(data=str(tmp_path / "f.parquet"), network="cifar_resnet8"))


# -------------------------------------------------------------------------------------------------------------- reading


def encoded(image: Image.Image, form: str = "PNG", **how: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, form, **how)
    return data.getvalue()


def strange_images() -> list[bytes]:
    """One of each kind that people have: color, gray, CMYK, 16 bits, alpha, turned by EXIF, tiny, long."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
    color = Image.fromarray(pixels)
    turned = Image.Exif()
    turned[0x0112] = 6
    return [
        encoded(color),
        encoded(color.convert("L")),
        encoded(color.convert("CMYK"), "JPEG"),
        encoded(Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257)),
        encoded(color.convert("RGBA")),
        encoded(color, "JPEG", exif=turned),
        encoded(color.resize((3, 2))),
        encoded(color.resize((200, 10))),
    ] * 4


def test_the_reader_gives_originals_and_augmented_copies(tmp_path: Path) -> None:
    images, corruption = strange_images(), CorruptionConfig(gamma=0.4, seed=5)
    ids, given = np.arange(len(images)) + 100, (np.arange(len(images)) % CLASSES).astype(np.int32)
    pq.write_table(pa.table({schema.INSTANCE_ID: ids, schema.IMAGE: images}), tmp_path / "part", row_group_size=5)
    reader = ImageReader(locate(str(tmp_path)), CLASSES, corruption, "crop", SIDE)
    labels = GivenLabels(ids, given)
    table = pa.concat_tables(
        [reader(EmbeddingChunk(0, "part", 0, 13), labels), reader(EmbeddingChunk(1, "part", 13, 19), labels)]
    )
    number, is_copy = schema.decode_key(table[schema.KEY].to_numpy())
    pixels = schema.matrix(table[schema.FEATURE]).reshape(-1, SIDE, SIDE, 3)
    copied = ids[is_selected(ids, corruption)]
    assert sorted(number[~is_copy]) == ids.tolist()
    assert sorted(number[is_copy]) == copied.tolist() != []
    for at, (instance, copy) in enumerate(zip(number, is_copy, strict=True)):
        image = load_rgb(images[instance - 100], SIDE)
        assert np.array_equal(pixels[at], center_crop_resize(image) if copy else image)
    label = table[LABEL].to_numpy()
    assert np.array_equal(label[~is_copy], given[number[~is_copy] - 100])
    wrong = corrupted_label(given[number[is_copy] - 100], number[is_copy], CLASSES, 5)
    assert np.array_equal(label[is_copy], wrong)


def test_the_reader_without_copies(tmp_path: Path) -> None:
    images = strange_images()
    ids = np.arange(len(images))
    pq.write_table(pa.table({schema.INSTANCE_ID: ids, schema.IMAGE: images}), tmp_path / "part")
    reader = ImageReader(locate(str(tmp_path)), CLASSES, None, "crop", SIDE)
    table = reader(EmbeddingChunk(0, "part", 0, len(ids)), GivenLabels(ids, np.zeros(len(ids), np.int32)))
    assert table[schema.KEY].to_pylist() == (ids << 1).tolist()


# ------------------------------------------------------------------------------------------------------------- schedule


@pytest.mark.parametrize(
    "changes",
    [{}, {"lr_schedule": "multistep", "lr_milestones": (0.5, 0.75)}, {"lr_schedule": "multistep", "lr_milestones": ()}],
)
@pytest.mark.parametrize("steps", [40, 3, 9])  # of 9 steps, neither half nor three quarters are a whole number
def test_the_rate_after_a_step_is_that_of_the_schedule(steps: int, changes: dict[str, Any]) -> None:
    config = dataclasses.replace(CONFIG, **changes)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=config.learning_rate)
    schedule = make_schedule(optimizer, config, steps)
    for step in range(1, steps + 1):
        optimizer.step()
        schedule.step()
        assert optimizer.param_groups[0]["lr"] == pytest.approx(rate_after(config, step, steps), abs=1e-9)


def test_steps_of_table_5() -> None:
    config = dataclasses.replace(CONFIG, lr_schedule="multistep", lr_milestones=(0.5, 0.75), lr_decay=0.1)
    assert [rate_after(config, step, 100) for step in (0, 49, 50, 74, 75, 100)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    )
    assert rate_after(CONFIG, 100, 100) == pytest.approx(MIN_LEARNING_RATE)


# --------------------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (MemoryError(), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
            True,
        ),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_out_of_memory_says_what_to_try() -> None:
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore of it")
    fresh = memory_message(job_of(workers=2), error, fresh=True)
    assert fresh == (
        "Expected memory for 8 rows per step on each of 2 worker(s) (--batch-size 16), but got 'CUDA out of memory. "
        "Tried to allocate 2 GiB'; pass e.g. --batch-size 8, or more --workers, or an --image-size below 8; the same "
        "--out may be used, and packed data are kept."
    )
    assert ", or a --worker-cache-gb that leaves more free;" in memory_message(job_of(), MemoryError(), fresh=True)
    assert "with another --out, and this one's --cache" in memory_message(job_of(), error, fresh=False)


# ------------------------------------------------------------------------------------------------------------- prefetch


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
