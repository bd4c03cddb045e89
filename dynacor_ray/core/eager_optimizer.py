"""Optimizers of torch without its compiler, which they load on their first use: seconds for a training of seconds."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch

Kind = TypeVar("Kind", bound="torch.optim.Optimizer")


def eager(kind: type[Kind]) -> type[Kind]:
    """The same optimizer, with the same state and steps, whose methods are not made ready to be compiled.

    Its network may be compiled all the same.
    """
    import torch  # not by those who import this module only

    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    plain: dict[str, Any] = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    step = inspect.unwrap(kind.step)

    def step_without_gradient(self: Kind, *closure: Any) -> Any:
        with torch.no_grad():
            return step(self, *closure)

    return type(kind.__name__, (kind,), plain | {"step": step_without_gradient})
