"""How many lists of an inverted-file index a search must scan: measured on sampled queries, never assumed.

Letters: Q queries, K results, D width of vectors.
It knows numpy only; the index is a function that is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from model.kernels.block import Rows

Array = NDArray[np.float32]

RECALL = 0.99
"""Share of the best K of a scan of all lists that a scan of some should find, on average."""
WORST_RECALL = 0.9
"""The same for the query at the 5th percentile."""
LADDER = (1 / 16, 1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2, 3 / 4)
"""Shares of the lists that are tried, before all of them."""


def probe_queries(vectors: Array, num_queries: int, rng: np.random.Generator) -> Array:
    """Queries (num_queries, D) like those that will come, made of vectors (S, D) of the index itself.

    A quarter lies close to a vector (cosine 0.9): a clip that is searched for. The others lie at the angle that a
    sentence has to its picture (cosine 0.2 to 0.35): their rest is half noise in all directions, half the difference
    of two other vectors, because sentences differ along the directions in which pictures differ.
    """
    width = vectors.shape[1]
    target, one, other = (unit(vectors[rng.integers(len(vectors), size=num_queries)]) for _ in range(3))
    rest: Array = unit(rng.standard_normal((num_queries, width), dtype=np.float32)) + unit(one - other)
    rest = unit(rest - np.einsum("qd,qd->q", rest, target)[:, None] * target)
    cosine: Array = rng.uniform(0.2, 0.35, size=(num_queries, 1)).astype(np.float32)
    cosine[: num_queries // 4] = 0.9
    queries: Array = cosine * target + np.sqrt(1 - cosine * cosine) * rest
    return queries


def choose_nprobe(search: Callable[[int], Rows], num_lists: int) -> tuple[int, float]:
    """The fewest lists whose scan finds what a scan of all finds, and the mean recall then.

    search: number of lists -> ids (Q, K), -1 where there are fewer.
    """
    if num_lists == 1:
        return 1, 1.0
    whole = search(num_lists)
    for nprobe in sorted({max(1, round(share * num_lists)) for share in LADDER}):
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
