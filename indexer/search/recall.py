"""Recall: the segments worth a full score, found through coarse indexes, or by a flat pass where there is none.

Letters: Q query rows, K candidates asked for, N segments of a shard, P width of pooled vectors, D of frames.
Two channels: the pooled vector, and single frames, which find what pooling hides. It knows shards and kernels; it
knows no model and no catalogue.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from indexer.defaults import CANDIDATES_PER_ROOT, LEAST_CANDIDATES
from indexer.search.cores import Cores
from indexer.shards.view import FoundRows, ShardView
from model.kernels.block import Rows
from model.kernels.panel import Array, Kernel, MixingArrays, Panel

ROWS_PER_SHARD = 2**32
"""More than a shard has: its number times this, plus a row, names a segment of a view."""


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
    numbers = [at for at in range(len(shards)) if len(shards[at])]
    found = cores.map(lambda at: _of_shard(query, k, shards[at], allowed[at], kernel), numbers)
    if not found:
        return []
    channels = [_merged([one[channel] for one in found], numbers, k) for channel in range(len(found[0]))]
    places = np.concatenate([rows for rows, _ in channels])
    ranks = np.concatenate([ranks for _, ranks in channels])
    order = np.lexsort((ranks, places))
    places, ranks = places[order], ranks[order]
    is_best = np.diff(places, prepend=-1) != 0
    places, ranks = places[is_best], ranks[is_best]
    edges = np.searchsorted(places, np.arange(len(shards) + 1) * ROWS_PER_SHARD)
    return [
        ShardRows(at, places[start:end] - at * ROWS_PER_SHARD, ranks[start:end])
        for at, (start, end) in enumerate(pairwise(edges.tolist()))
        if start < end
    ]


def _merged(found: Sequence[FoundRows], numbers: Sequence[int], k: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """One channel's finds in all shards -> the K best of each query row as places and ranks, row by row.

    A place is the shard's number times ROWS_PER_SHARD, plus the row in it.
    """
    scores = np.concatenate([f.scores for f in found], axis=1)
    places = np.concatenate(
        [np.where(f.rows < 0, -1, f.rows + at * ROWS_PER_SHARD) for at, f in zip(numbers, found, strict=True)], axis=1
    )
    chosen, ranks = [], []
    for place, score in zip(places, np.where(places < 0, -np.inf, scores), strict=True):
        kept = np.arange(len(score)) if len(score) <= k else np.flatnonzero(score >= np.partition(score, -k)[-k])
        best = place[kept[np.lexsort((place[kept], -score[kept]))]]
        best = best[best >= 0][:k]
        chosen.append(best)
        ranks.append(np.arange(1, len(best) + 1))
    return np.concatenate(chosen), np.concatenate(ranks)


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
