"""How many lists of an inverted-file index a search must scan: measured on sampled queries, never assumed.

Letters: Q queries, K results, D width of vectors.
It knows numpy only; the index is a function that is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from model.kernels.block import Rows

Array = NDArray[np.float32]

RECALL = 0.99
"""Share of the best K of a scan of all lists that a scan of some should find, on average. A segment of the true top ten
is as a rule far above the last of the K, and has two channels to be found by."""
WORST_RECALL = 0.9
"""The same for the query at the 5th percentile."""
LADDER = (1 / 16, 1 / 8, 3 / 16, 1 / 4, 5 / 16, 3 / 8, 7 / 16, 1 / 2, 5 / 8, 3 / 4)
"""Shares of the lists that are tried, before all of them."""


def probe_queries(vectors: Array, num_queries: int, rng: np.random.Generator) -> Array:
    """Queries (num_queries, D) at the angle that a sentence has to its picture, for vectors (S, D) of the index itself.

    A vector is mixed to a cosine of 0.2 to 0.35 with a direction drawn among all. Sentences need as many lists as these
    (docs/experiments.md); queries closer to a vector, such as clips, need fewer: their best lie in the nearest lists.
    """
    target = unit(vectors[rng.integers(len(vectors), size=num_queries)])
    rest = rng.standard_normal(target.shape, dtype=np.float32)
    rest = unit(rest - np.einsum("qd,qd->q", rest, target)[:, None] * target)
    cosine: Array = rng.uniform(0.2, 0.35, size=(num_queries, 1)).astype(np.float32)
    queries: Array = cosine * target + np.sqrt(1 - cosine * cosine) * rest
    return queries


def choose_nprobe(search: Callable[[int], Rows], num_lists: int) -> tuple[int, float]:
    """The fewest lists whose scan finds what a scan of all finds, and the mean recall then.

    search: number of lists -> ids (Q, K), -1 where there are fewer.
    """
    if num_lists == 1:
        return 1, 1.0
    whole = search(num_lists)
    for nprobe in sorted({math.ceil(share * num_lists) for share in LADDER}):
        recalls = recall_of(search(nprobe), whole)
        if recalls.mean() >= RECALL and np.percentile(recalls, 5) >= WORST_RECALL:
            return nprobe, float(recalls.mean())
    return num_lists, 1.0


def recall_of(found: Sequence[Rows] | Rows, wanted: Sequence[Rows] | Rows) -> NDArray[np.float64]:
    """(Q,): the share of the ids wanted that were found; 1 where none is wanted. Ids of -1 don't count."""
    shares = []
    for ids, those in zip(found, wanted, strict=True):
        distinct = np.unique(those[those >= 0])
        shares.append(float(np.isin(distinct, ids).mean()) if len(distinct) else 1.0)
    return np.array(shares)


def unit(vectors: Array) -> Array:
    """Vectors of length 1; zeros stay zeros."""
    scaled: Array = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return scaled
