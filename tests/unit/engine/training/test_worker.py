"""What a training worker does about memory, and what it says."""

from __future__ import annotations

import pytest
import torch

from dynacor_ray.engine.training.worker import is_out_of_memory, memory_message
from tests.image_jobs import job_of


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
