"""From scores of segments to a ranking of videos.

Letters: Q query rows, C scored segments. It knows views of shards; it knows no model and no catalogue.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.search.recall import ShardRows
from indexer.shards.view import ShardView
from model.kernels.panel import Array

VIDEOS_PER_SHARD = 2**32
"""More than a shard has: its number times this, plus a video's row in it, names a video of a view."""


@dataclass(frozen=True, slots=True)
class Scored:
    """Segments with their scores, in the order of shards and rows: a video's lie side by side."""

    shards: NDArray[np.int64]
    """(C,)"""
    rows: NDArray[np.int64]
    """(C,) within the shard."""
    videos: NDArray[np.int64]
    """(C,) shard x VIDEOS_PER_SHARD + row of the video: never falls."""
    ranks: NDArray[np.int64] | None
    """(C,), from 1; None where nothing was ranked."""
    totals: Array
    """(Q, C)"""

    def take(self, kept: NDArray[np.bool_]) -> Scored:
        """Some of the segments."""
        ranks = None if self.ranks is None else self.ranks[kept]
        return Scored(self.shards[kept], self.rows[kept], self.videos[kept], ranks, self.totals[:, kept])


@dataclass(frozen=True, slots=True)
class Ranked:
    """A video with its score."""

    video_id: str
    score: float
    at: slice
    """Its segments in Scored."""


def gathered(shards: Sequence[ShardView], chosen: Sequence[ShardRows], totals: Array) -> Scored:
    """The chosen rows with their totals (Q, C), which come in the same order."""
    places, rows, videos, ranks = [], [], [], []
    for some in chosen:
        shard = shards[some.shard]
        numbers = np.arange(len(shard)) if some.rows is None else some.rows
        places.append(np.full(len(numbers), some.shard, np.int64))
        rows.append(numbers)
        videos.append(some.shard * VIDEOS_PER_SHARD + shard.segments.video_rows[numbers].astype(np.int64))
        if some.ranks is not None:
            ranks.append(some.ranks)
        else:
            ranks.append(np.zeros(len(numbers), np.int64))
    empty = np.empty(0, np.int64)
    has_ranks = any(some.ranks is not None for some in chosen)
    return Scored(
        np.concatenate([empty, *places]),
        np.concatenate([empty, *rows]),
        np.concatenate([empty, *videos]),
        np.concatenate([empty, *ranks]) if has_ranks else None,
        totals,
    )


def rank(scored: Scored, shards: Sequence[ShardView], limit: int) -> list[Ranked]:
    """The best videos among the scored segments, best first; equal scores by id."""
    if not len(scored.videos):
        return []
    starts = np.flatnonzero(np.diff(scored.videos, prepend=-1))
    ends = np.append(starts[1:], len(scored.videos))
    scores = np.maximum.reduceat(scored.totals, starts, axis=1).mean(0)
    least = -np.inf if len(scores) <= limit else np.partition(scores, -limit)[-limit]
    ranked = []
    for v in np.flatnonzero(scores >= least):
        shard, row = divmod(int(scored.videos[starts[v]]), VIDEOS_PER_SHARD)
        at = slice(int(starts[v]), int(ends[v]))
        ranked.append(Ranked(shards[shard].videos.id_of(row), float(scores[v]), at))
    return sorted(ranked, key=lambda video: (-video.score, video.video_id))[:limit]
