"""What is computed for the videos that are shown, and only for them: the parts of their scores, and their moments.

Letters: Q query rows, F frame slots, G parts of a score, n segments of one video. It knows scorers and views of shards;
it knows no model and no catalogue.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.cores import Cores
from indexer.moments import find_moments
from indexer.ranking import Ranked, Scored
from indexer.records import Hit, Moment, Video
from indexer.scoring import SegmentScorer
from indexer.shards.view import ShardView
from model.kernels.panel import Array


@dataclass(frozen=True, slots=True)
class _Shown:
    """What is computed only for videos that are shown."""

    grains: Array
    """(Q, G) of its best segments."""
    relevance: Array
    """(n, F) of its scored segments."""


def hits_of(
    ranked: Sequence[Ranked],
    videos: Mapping[str, Video],
    scored: Scored,
    scorer: SegmentScorer,
    shards: Sequence[ShardView],
    num_moments: int,
    cores: Cores,
) -> tuple[Hit, ...]:
    """The ranked videos as they are shown, each with at most num_moments moments."""
    shown = cores.map(lambda video: _shown(video, scored, scorer, shards, num_moments), ranked)
    return tuple(
        _hit(rank, found, videos[found.video_id], scored, shards, scorer.names, details, num_moments)
        for rank, (found, details) in enumerate(zip(ranked, shown, strict=True), start=1)
    )


def _shown(
    found: Ranked, scored: Scored, scorer: SegmentScorer, shards: Sequence[ShardView], num_moments: int
) -> _Shown:
    block = shards[int(scored.shards[found.at.start])].block
    rows = scored.rows[found.at]
    best_Q = scored.totals[:, found.at].argmax(1)
    chosen, place_Q = np.unique(best_Q, return_inverse=True)
    grains_QBG = scorer.grains(block, rows[chosen])
    relevance = scorer.relevance(block, rows) if num_moments else np.empty((0, 0), np.float32)
    return _Shown(grains_QBG[np.arange(len(best_Q)), place_Q], relevance)


def _hit(
    rank: int,
    found: Ranked,
    video: Video,
    scored: Scored,
    shards: Sequence[ShardView],
    names: Sequence[str],
    shown: _Shown,
    num_moments: int,
) -> Hit:
    ranks = None if scored.ranks is None else scored.ranks[found.at]
    is_ranked = ranks is not None and (ranks > 0).any()
    moments: tuple[Moment, ...] = ()
    if num_moments:
        shard, rows = shards[int(scored.shards[found.at.start])], scored.rows[found.at]
        table = shard.segments
        times_s = _times_s(shard, rows, shown.relevance.shape[1])
        moments = find_moments(table.start_s[rows], table.end_s[rows], times_s, shown.relevance, num_moments)
    return Hit(
        rank=rank,
        video=video,
        score=found.score,
        recall_rank=int(ranks[ranks > 0].min()) if ranks is not None and is_ranked else None,
        grains={name: float(value) for name, value in zip(names, shown.grains.mean(0), strict=True)},
        moments=moments,
    )


def _times_s(shard: ShardView, rows: NDArray[np.int64], num_slots: int) -> NDArray[np.float64]:
    """(n, F) the times of the frames, 0 s in padded slots."""
    block = shard.block
    is_real = np.arange(num_slots)[None, :] < block.num_frames[rows][:, None]
    at = block.first_frame[rows][:, None] + np.arange(num_slots)[None, :]
    return np.where(is_real, shard.segments.times_s[np.where(is_real, at, 0)], 0.0)
