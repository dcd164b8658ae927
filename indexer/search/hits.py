"""What is computed for the videos that are shown, and only for them: the parts of their scores, and their moments.

Letters: Q query rows, F frame slots, G parts of a score, n segments of one video. It knows scorers and views of shards;
it knows no model and no catalogue.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.records import Hit, Moment, Video
from indexer.search.moments import find_moments
from indexer.search.ranking import Ranked, Scored
from indexer.search.scoring import SegmentScorer
from indexer.shards.view import ShardView
from model.kernels.panel import Array


@dataclass(frozen=True, slots=True)
class _Shown:
    """What is computed only for videos that are shown."""

    grains: Array
    """(Q, G) of its best segments."""
    moments: tuple[Moment, ...]


def hits_of(
    ranked: Sequence[Ranked],
    videos: Mapping[str, Video],
    scored: Scored,
    scorer: SegmentScorer,
    shards: Sequence[ShardView],
    num_moments: int,
) -> tuple[Hit, ...]:
    """The ranked videos as they are shown, each with at most num_moments moments."""
    shown: dict[str, _Shown] = {}
    for number in sorted({int(scored.shards[video.at.start]) for video in ranked}):
        mine = [video for video in ranked if scored.shards[video.at.start] == number]
        shown |= _shown(mine, scored, scorer, shards[number], num_moments)
    return tuple(
        Hit(
            rank=rank,
            video=videos[found.video_id],
            score=found.score,
            recall_rank=_recall_rank(found, scored),
            grains=dict(zip(scorer.names, shown[found.video_id].grains.mean(0).tolist(), strict=True)),
            moments=shown[found.video_id].moments,
        )
        for rank, found in enumerate(ranked, start=1)
    )


def _shown(
    ranked: Sequence[Ranked], scored: Scored, scorer: SegmentScorer, shard: ShardView, num_moments: int
) -> dict[str, _Shown]:
    """Videos of one shard: their best segments are scored by parts in one call, their frames are weighed in another."""
    best = np.stack([scored.rows[video.at][scored.totals[:, video.at].argmax(1)] for video in ranked])
    chosen, place = np.unique(best, return_inverse=True)
    grains_QBG, place_VQ = scorer.grains(shard.block, chosen), place.reshape(best.shape)
    grains_VQG = grains_QBG[np.arange(best.shape[1])[None, :], place_VQ]
    moments = _moments(ranked, scored, scorer, shard, num_moments) if num_moments else [()] * len(ranked)
    return {video.video_id: _Shown(grains_VQG[v], moments[v]) for v, video in enumerate(ranked)}


def _moments(
    ranked: Sequence[Ranked], scored: Scored, scorer: SegmentScorer, shard: ShardView, num_moments: int
) -> list[tuple[Moment, ...]]:
    table = shard.segments
    rows = np.concatenate([scored.rows[video.at] for video in ranked])
    relevance = scorer.relevance(shard.block, rows)
    times_s, start_s, end_s = _times_s(shard, rows, relevance.shape[1]), table.start_s[rows], table.end_s[rows]
    ends = np.cumsum([video.at.stop - video.at.start for video in ranked])
    return [
        find_moments(start_s[at], end_s[at], times_s[at], relevance[at], num_moments)
        for at in (slice(end - (video.at.stop - video.at.start), end) for end, video in zip(ends, ranked, strict=True))
    ]


def _recall_rank(found: Ranked, scored: Scored) -> int | None:
    """The best rank of its segments; None where they were scored without recall."""
    if scored.ranks is None:
        return None
    ranks = scored.ranks[found.at]
    return int(ranks[ranks > 0].min()) if (ranks > 0).any() else None


def _times_s(shard: ShardView, rows: NDArray[np.int64], num_slots: int) -> NDArray[np.float64]:
    """(n, F) the times of the frames, 0 s in padded slots."""
    block = shard.block
    is_real = np.arange(num_slots)[None, :] < block.num_frames[rows][:, None]
    at = block.first_frame[rows][:, None] + np.arange(num_slots)[None, :]
    return np.where(is_real, shard.segments.times_s[np.where(is_real, at, 0)], 0.0)
