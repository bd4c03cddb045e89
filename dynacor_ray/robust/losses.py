"""The losses by name, with their published settings: cross-entropy (CE), GCE, SCE and ELR (§5.5, Table 7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from torch import Tensor

from dynacor_ray.robust import ce, elr, gce, sce

MANY_CLASSES = 100
"""Data without published settings take those of CIFAR-100 from so many classes on, else those of CIFAR-10; ours."""


@dataclass(frozen=True, kw_only=True)
class RobustLoss:
    """A loss and its settings; those of the other losses are not read.

    Attributes:
        name: "ce", "gce", "sce" or "elr".
        gce_q: exponent of GCE.
        gce_truncate_from: epoch, from 0, from which GCE is truncated; None: never.
        sce_alpha, sce_beta: weights of SCE.
        elr_momentum, elr_weight: of ELR's targets and regularizer.
    """

    name: str
    gce_q: float = gce.Q
    gce_truncate_from: int | None = None
    sce_alpha: float
    sce_beta: float
    elr_momentum: float
    elr_weight: float

    @classmethod
    def published(cls, name: str, data_set: str, num_classes: int, **chosen: float | None) -> Self:
        """The settings published for a data set, by its kind of source ("cifar10"), else for one of as many classes.

        chosen: settings that win, unless None.
        """
        like = "cifar100" if num_classes >= MANY_CLASSES else "cifar10"
        alpha, beta = sce.PUBLISHED.get(data_set, sce.PUBLISHED[like])
        momentum, weight = elr.PUBLISHED.get(data_set, elr.PUBLISHED[like])
        known = {"sce_alpha": alpha, "sce_beta": beta, "elr_momentum": momentum, "elr_weight": weight}
        given = {one: value for one, value in chosen.items() if value is not None}
        return cls(name=name, **known | given)  # type: ignore[arg-type]  # an int for the epoch, as its option says

    @property
    def has_targets(self) -> bool:
        """Whether the loss keeps a target per instance."""
        return self.name == "elr"

    def per_row(
        self, logits: Tensor, labels: Tensor, epoch: int, targets: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Losses of a batch, and its new targets where the loss has some.

        Args:
            logits: float (B, C).
            labels: int64 (B,).
            epoch: from 0.
            targets: float (B, C), of the epoch before, for a loss with targets.

        Returns:
            float (B,), and float (B, C) or None.
        """
        if self.name == "gce":
            truncated = self.gce_truncate_from is not None and epoch >= self.gce_truncate_from
            return gce.gce_loss(logits, labels, self.gce_q, gce.TRUNCATED_BELOW if truncated else None), None
        if self.name == "sce":
            return sce.sce_loss(logits, labels, self.sce_alpha, self.sce_beta), None
        if self.name == "elr":
            assert targets is not None
            new = elr.update_targets(targets, logits, self.elr_momentum)
            return elr.elr_loss(logits, labels, new, self.elr_weight), new
        return ce.ce_loss(logits, labels), None
