from __future__ import annotations

import numpy as np
import pytest

from dynacor_ray.models.torch_encoder import filled_up


@pytest.mark.parametrize(("rows", "filled"), [(1, 4), (4, 4), (5, 8)])
def test_a_gpu_gets_batches_of_one_size(rows: int, filled: int) -> None:
    images = np.full((rows, 2, 2, 3), 7, np.uint8)
    batch = filled_up(images[:, ::-1], 4)
    assert batch.shape == (filled, 2, 2, 3)
    assert (batch[:rows] == 7).all()
    assert not batch[rows:].any()
    assert not np.shares_memory(batch, images)
