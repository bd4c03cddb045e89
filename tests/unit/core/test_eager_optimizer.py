"""Optimizers without the compiler: the same steps and the same state."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dynacor_ray.core.eager_optimizer import eager


@pytest.mark.parametrize(
    ("kind", "options"),
    [(torch.optim.SGD, {"momentum": 0.9, "weight_decay": 1e-3}), (torch.optim.Adam, {"weight_decay": 1e-3})],
)
def test_steps_and_state_are_those_of_torch(kind: Any, options: dict[str, Any]) -> None:
    weights, states = [], []
    for one in (kind, eager(kind)):
        weight = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
        optimizer = one([weight], lr=0.1, fused=True, **options)
        for _ in range(3):
            optimizer.zero_grad()
            (weight**2).sum().backward()
            optimizer.step()
        again = one([weight], lr=0.5, fused=True, **options)
        again.load_state_dict(optimizer.state_dict())
        (weight**3).sum().backward()
        again.step()
        weights.append(weight.detach())
        states.append(again.state_dict())
    assert torch.equal(*weights)
    assert states[0]["param_groups"] == states[1]["param_groups"]
    assert all(
        torch.equal(states[0]["state"][0][name], value)
        for name, value in states[1]["state"][0].items()
        if value is not None
    )


def test_a_step_with_a_closure_is_that_of_torch() -> None:
    weights = []
    for kind in (torch.optim.LBFGS, eager(torch.optim.LBFGS)):
        weight = torch.nn.Parameter(torch.arange(1.0, 4.0))
        optimizer = kind([weight], line_search_fn="strong_wolfe")

        def loss(weight: torch.Tensor = weight, optimizer: torch.optim.Optimizer = optimizer) -> torch.Tensor:
            optimizer.zero_grad()
            value = (weight**4 - weight).sum()
            value.backward()
            return value

        assert optimizer.step(loss) == 92, "the loss before the step"
        weights.append(weight.detach())
    assert torch.equal(*weights)
    assert torch.allclose(weights[0] ** 3, torch.tensor(0.25), atol=1e-4)
