"""The k nearest other instances by cosine, block against chunk (Table 1, SimiFeat; Zhu et al., ICML 2022).

A block of queries keeps its k best so far and sees the references chunk by chunk, so that nothing is N x N. Any split
of the references, in any order, gives the same neighbors.

Deviations from the publications:

- Theirs hold the N x N distances.
- Equally similar instances are ordered by id. Products are float32, and their last bit may depend on the shape of the
  chunk: neighbors closer together than that may change places when chunks are cut differently.

Cost per block and chunk: one product (B, D) x (D, M) and one selection of k + 1; memory B x M. Rows with a tie at the
k-th place, as duplicates make, are sorted in full.
"""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from dynacor_ray.core.errors import ConfigError, expected_got

NO_INSTANCE = -1
"""Id where there are fewer than k other instances; its similarity is minus infinity."""


def normalized(features: Tensor) -> Tensor:
    """Rows of length 1, for cosines; a row of zeros stays one. float (B, D) -> float32 (B, D)."""
    length = torch.linalg.vector_norm(features.float(), dim=1, keepdim=True)
    return features.float() / torch.where(length > 0, length, 1.0)


def first_neighbors(labels: NDArray[Any], count: int) -> NDArray[Any]:
    """The first `count` columns of (N, K). Raises ConfigError for K < count."""
    if labels.shape[1] < count:
        got = str(labels.shape[1])
        raise ConfigError(expected_got(f"at least {count} neighbors", got, "gather more; fill up with label -1"))
    return labels[:, :count]


class NearestNeighbors:
    """Running k nearest references of a block of queries.

    Args:
        query: float32 (B, D), normalized.
        query_ids: int64 (B,), >= 0.
        k: >= 1.
        query_groups: int64 (B,), the same for rows that are no neighbors of each other, as equal rows; None: the ids.

    Attributes:
        similarity: float32 (B, k), nearest first, equal ones by id.
        ids: int64 (B, k), NO_INSTANCE where none is known yet.
    """

    def __init__(self, query: Tensor, query_ids: Tensor, k: int, query_groups: Tensor | None = None) -> None:
        self._query, self._k = query, k
        self._groups = query_ids if query_groups is None else query_groups
        shape = (len(query), k)
        self.similarity = torch.full(shape, -torch.inf, dtype=torch.float32, device=query.device)
        self.ids = torch.full(shape, NO_INSTANCE, dtype=torch.int64, device=query.device)

    def update(self, reference: Tensor, reference_ids: Tensor, reference_groups: Tensor | None = None) -> None:
        """Add one chunk. Each reference may come once; a query is no neighbor of itself.

        Args:
            reference: float32 (M, D), normalized, finite.
            reference_ids: int64 (M,), >= 0.
            reference_groups: int64 (M,), as `query_groups`; None: the ids.
        """
        groups = reference_ids if reference_groups is None else reference_groups
        if not len(reference):
            return
        similarity = self._query @ reference.T
        if bool(torch.isin(self._groups, groups).any()):
            similarity.masked_fill_(self._groups[:, None] == groups[None, :], -torch.inf)
        self._keep(*_top(similarity, reference_ids, self._k))

    def _keep(self, similarity: Tensor, ids: Tensor) -> None:
        """The k best of those known and some new ones (B, m)."""
        similarity = torch.cat((self.similarity, similarity), dim=1)
        ids = torch.cat((self.ids, ids), dim=1)
        by_id = ids.argsort(dim=1, stable=True)
        similarity, order = similarity.gather(1, by_id).sort(dim=1, descending=True, stable=True)
        self.similarity = similarity[:, : self._k].contiguous()
        self.ids = ids.gather(1, by_id).gather(1, order)[:, : self._k].contiguous()


def _top(similarity: Tensor, reference_ids: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of (B, M), or all M if fewer, and their ids; ties at the k-th place go to the smaller id."""
    k = min(k, similarity.shape[1])
    # one more than needed: which of several equals `topk` takes is not defined, and this shows whether it had a choice
    values, column = similarity.topk(min(k + 1, similarity.shape[1]), dim=1)
    best, ids = values[:, :k].contiguous(), reference_ids[column[:, :k]]
    tied = (values[:, -1] == best[:, -1]) & (best[:, -1] > -torch.inf) & (values.shape[1] > k)
    if bool(tied.any()):
        by_id = reference_ids.argsort(dim=0)
        ranked, order = similarity[tied][:, by_id].sort(dim=1, descending=True, stable=True)
        best[tied], ids[tied] = ranked[:, :k], reference_ids[by_id][order[:, :k]]
    return best, torch.where(best > -torch.inf, ids, NO_INSTANCE)
