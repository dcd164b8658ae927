"""Recall: the segments worth a full score, found through coarse indexes, or by a flat pass where there is none.

Letters: Q query rows, K candidates asked for, N segments of a shard, P width of pooled vectors, D of frames.
Two channels: the pooled vector, and single frames, which find what pooling hides. It knows shards and kernels; it
knows no model and no catalogue.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.defaults import CANDIDATES_PER_ROOT, LEAST_CANDIDATES
from indexer.search.cores import Cores
from indexer.shards.view import FoundRows, ShardView
from model.kernels.block import Rows
from model.kernels.panel import Array, Kernel, MixingArrays, Panel


@dataclass(frozen=True, slots=True)
class RecallQuery:
    """What a query is recalled by."""

    pooled: Array
    """(Q, P): compared with pooled vectors."""
    frames: Array | None
    """(Q, D): compared with frames; None where frames can't be compared with a sentence."""


@dataclass(frozen=True, slots=True)
class ShardRows:
    """Some rows of one shard."""

    shard: int
    """Which one of the view's."""
    rows: Rows | None
    """Rising; None for all of the shard."""
    ranks: NDArray[np.int64] | None = None
    """The best rank of each in any channel, from 1; None where nothing was ranked."""

    def count(self, shards: Sequence[ShardView]) -> int:
        """How many rows it names."""
        return len(shards[self.shard]) if self.rows is None else len(self.rows)


def num_candidates(num_segments: int) -> int:
    """How many candidates a channel gives for a library of this size, unless a search says."""
    return max(LEAST_CANDIDATES, math.ceil(CANDIDATES_PER_ROOT * math.sqrt(num_segments)))


def recall(
    query: RecallQuery,
    k: int,
    shards: Sequence[ShardView],
    allowed: Sequence[NDArray[np.bool_] | None],
    kernel: Kernel,
    cores: Cores,
) -> list[ShardRows]:
    """The K best of each channel and query row over all the shards -> one entry for each shard that has any.

    allowed: for each shard the rows (N,) that may be found, None for all.
    """
    found = cores.map(
        lambda at: _of_shard(query, k, shards[at], allowed[at], kernel),
        [at for at in range(len(shards)) if len(shards[at])],
    )
    numbers = [at for at in range(len(shards)) if len(shards[at])]
    best_rank: list[dict[int, int]] = [{} for _ in shards]
    for channel in range(1 if query.frames is None else 2):
        for q in range(len(query.pooled)):
            _merge(best_rank, numbers, [one[channel] for one in found], q, k)
    return [
        ShardRows(at, rows := np.array(sorted(ranks), np.int64), np.array([ranks[int(row)] for row in rows], np.int64))
        for at, ranks in enumerate(best_rank)
        if ranks
    ]


def _merge(best_rank: list[dict[int, int]], numbers: Sequence[int], found: Sequence[FoundRows], q: int, k: int) -> None:
    """Rank one query row's finds of one channel among all shards, and note the best rank of each."""
    if not found:
        return
    shard = np.concatenate([np.full(f.rows.shape[1], at) for at, f in zip(numbers, found, strict=True)])
    rows = np.concatenate([f.rows[q] for f in found])
    scores = np.concatenate([f.scores[q] for f in found])
    order = np.lexsort((rows, shard, -scores))
    order = order[rows[order] >= 0][:k]
    for rank, at in enumerate(order, start=1):
        ranks = best_rank[int(shard[at])]
        row = int(rows[at])
        ranks[row] = min(rank, ranks.get(row, rank))


def _of_shard(
    query: RecallQuery, k: int, shard: ShardView, allowed: NDArray[np.bool_] | None, kernel: Kernel
) -> list[FoundRows]:
    """What each channel finds in one shard."""
    coarse = shard.coarse
    if coarse is not None:
        found = [coarse.by_pooled(query.pooled, k, allowed)]
        return found if query.frames is None else [*found, coarse.by_frames(query.frames, k, allowed)]
    rows = None if allowed is None else np.flatnonzero(allowed)
    totals = [kernel.prepare(_flat_panel("mean", query.pooled)).totals(shard.block, rows)]
    if query.frames is not None:
        totals.append(kernel.prepare(_flat_panel("max_frame", query.frames)).totals(shard.block, rows))
    return [_best(channel, rows, k) for channel in totals]


def _flat_panel(scorer: str, vectors: Array) -> Panel:
    """Queries that are compared by one vector alone."""
    count, width = vectors.shape
    no_parts = np.zeros((count, 1, width), np.float32)
    mask = np.ones((count, 1), np.bool_)
    return Panel(scorer, vectors, vectors, no_parts, no_parts, mask, MixingArrays(), 1.0)


def _best(totals: Array, rows: Rows | None, k: int) -> FoundRows:
    """The k best columns of (Q, n) by their names in `rows`; scores that aren't numbers come last."""
    scores = np.where(np.isnan(totals), -np.inf, totals).astype(np.float32)
    k = min(k, scores.shape[1])
    top = np.argpartition(-scores, k - 1, axis=1)[:, :k] if k else np.empty((len(scores), 0), np.int64)
    values = np.take_along_axis(scores, top, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    top = np.take_along_axis(top, order, axis=1)
    return FoundRows(top if rows is None else rows[top], np.take_along_axis(values, order, axis=1))
