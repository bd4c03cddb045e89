from __future__ import annotations

import numpy as np
import torch

from dynacor_ray.decision.likely_classes import DRAWN, MOST_CLASSES, likely_classes, stands_for


def test_few_classes_are_all_kept_with_the_label_first() -> None:
    found = likely_classes(torch.rand(2, 3), torch.tensor([2, 0]), torch.zeros(2, dtype=torch.float64))
    assert found.tolist() == [[2, 0, 1], [0, 1, 2]]
    assert stands_for(3, 3).tolist() == [1, 1, 1]


def test_of_many_the_first_are_kept_and_each_other_is_drawn_as_often() -> None:
    rows, classes = 4000, 25
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand((1, classes), generator=generator).expand(rows, -1)
    labels = torch.full((rows,), int(scores[0].argmin()))
    found = likely_classes(scores, labels, torch.rand(rows, generator=generator, dtype=torch.float64))
    assert found.shape == (rows, MOST_CLASSES)
    assert all(len(set(row)) == MOST_CLASSES for row in found[:200].tolist())
    ranked = scores[0].argsort(descending=True)
    first = MOST_CLASSES - DRAWN
    assert (found[:, :first] == torch.cat([labels[:1], ranked[: first - 1]])).all()
    times = np.bincount(found[:, first:].reshape(-1).numpy(), minlength=classes)
    others = np.setdiff1d(np.arange(classes), found[0, :first].numpy())
    assert np.flatnonzero(times).tolist() == others.tolist()
    assert np.allclose(times[others] / rows, DRAWN / len(others), atol=0.03)
    assert stands_for(MOST_CLASSES, classes)[first:].tolist() == [len(others) / DRAWN] * DRAWN
    assert stands_for(MOST_CLASSES, classes).sum() == classes
