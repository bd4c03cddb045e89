"""Random numbers that belong to an instance: a pure function of (seed, purpose, instance_id).

Nothing here depends on the order of rows, on block layout or on the number of workers.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

_U64 = np.uint64
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


class Purpose(IntEnum):
    """What a stream of random numbers is for. Two purposes never share a stream; values are part of the file format."""

    CORRUPTION_MEMBER = 1
    CORRUPTION_LABEL = 2
    COPY_POOL = 3
    AUGMENTATION = 4
    FIT_SAMPLE = 5
    NOISE_MEMBER = 6
    NOISE_LABEL = 7
    CLASS_SAMPLE = 8
    NOISE_RATE = 9
    THRESHOLD_SAMPLE = 10
    FOLD = 11
    REVIEW_SAMPLE = 12
    FEATURE_SAMPLE = 13
    LIKELY_CLASSES = 14


def splitmix64(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The splitmix64 finalizer (Steele, Lea, Flood 2014), elementwise on uint64: a bijection on 64-bit integers."""
    with np.errstate(over="ignore"):
        x = x + _U64(_GOLDEN)
        x = (x ^ (x >> _U64(30))) * _U64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> _U64(27))) * _U64(0x94D049BB133111EB)
        return x ^ (x >> _U64(31))


def derive_seed(seed: int, *words: int) -> int:
    """A 64-bit seed from a seed and further words, hashed one by one so that (0, 1) and (1, 0) differ.

    >>> derive_seed(0, 1, 2) == derive_seed(0, 2, 1)
    False
    """
    state = np.array([seed & _MASK], dtype=_U64)
    for word in words:
        state = splitmix64(splitmix64(state) ^ np.array([word & _MASK], dtype=_U64))
    return int(splitmix64(state)[0])


def keyed_hash(seed: int, purpose: Purpose, ids: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Uniform 64-bit hash per instance. int64 (N,) -> uint64 (N,)."""
    stream = _U64(derive_seed(seed, int(purpose)))
    return splitmix64(splitmix64(np.asarray(ids, dtype=np.int64).astype(_U64)) ^ stream)


def keyed_uniform(seed: int, purpose: Purpose, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1) with 53 bits, one per instance. int64 (N,) -> float64 (N,)."""
    return (keyed_hash(seed, purpose, ids) >> _U64(11)).astype(np.float64) * 2.0**-53


def keyed_choice(seed: int, purpose: Purpose, ids: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Uniform integers in {0..count-1}, one per instance. int64 (N,) -> int64 (N,); modulo bias below count / 2**53."""
    return np.floor(keyed_uniform(seed, purpose, ids) * count).astype(np.int64)
