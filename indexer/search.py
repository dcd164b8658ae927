"""One search: recall candidates, rerank them by the scorer asked for, group by video, find moments, describe.

Letters: Q query rows (1 for a text, a clip's segments), C candidate segments, F frame slots, G parts of a score.
Texts and clips are searched in the same way. It knows the model's interface, the vectors and the catalogue; it knows no
file and no HTTP.

A video's score is the mean, over the rows of the query, of the score of its best candidate segment. For a text or a
short clip that is its best segment's score; for a long clip it is high where every part is found, in any order.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from indexer.errors import InvalidQuery
from indexer.moments import find_moments
from indexer.records import Hit, SearchAnswer, SearchOptions, Video
from indexer.vectors import Ids, Recall, SegmentTable, VectorIndex
from model.errors import ModelError
from model.scorers import SCORERS, choose_scorer
from model.types import ModelSpec, Query, ScorerName, Scores, TextFeatures, VideoFeatures, VideoTextModel, public_name

CELLS_PER_BLOCK = 2048 * 32 * 12
"""Rows x words x frames that are scored at once: bounds the memory of exact search whatever the index's size."""
JOINT_FRAMES_PER_BLOCK = 1024 * 12
"""Frames that a transformer reads at once together with the sentence: each costs layers of activations, not a cell."""
SPARE_VIDEOS = 64
"""Videos ranked beyond top_k, in place of those that are removed during the search."""

Warnings = list[tuple[str, str]]


class SearchedCatalogue(Protocol):
    """What a search needs from the catalogue; CatalogueReader is the real one."""

    def last_seq(self) -> int: ...
    def segment_ids(self, filter: Mapping[str, object] | None, video_ids: Sequence[str] | None) -> Ids: ...
    def live_videos(self, ids: Sequence[str]) -> Mapping[str, Video]: ...


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Segments to rerank."""

    segment_ids: Ids
    """In the order of recall; every allowed segment for an exact search."""
    has_ranks: bool
    """Whether that order is a rank: not for an exact search."""


@dataclass(frozen=True, slots=True)
class _Scored:
    """Candidates with their scores."""

    table: SegmentTable
    recall_ranks: Ids
    """(C,), from 1."""
    total: NDArray[np.float32]
    """(Q, C)."""
    grains: NDArray[np.float32]
    """(Q, C, G): the parts of the score."""
    relevance: NDArray[np.float32]
    """(C, F): how much a frame supports the query, the best over its rows."""
    names: tuple[str, ...]
    """Of the G parts."""


@dataclass(frozen=True, slots=True)
class _Ranked:
    """A video with its score."""

    video_id: str
    score: float
    rows: Ids
    """Its segments' rows in _Scored."""


def search(
    query: Query,
    model: VideoTextModel,
    vectors: VectorIndex,
    catalogue: SearchedCatalogue,
    options: SearchOptions,
    *,
    without_video_id: str | None = None,
    encode_ms: float = 0.0,
    warnings: Sequence[tuple[str, str]] = (),
) -> SearchAnswer:
    """Answer a query of Q rows from what the vectors hold. Videos with equal scores are ordered by id.

    without_video_id: a video to leave out (a stored query). encode_ms: how long encoding the query took.
    warnings: those found so far; they come first in the answer.
    Raises: InvalidQuery for options out of range, UnknownScorer, InvalidFilter, ModelError if the model's numbers for
    the query aren't finite.
    """
    scorer = check_options(options, model.spec, query_is_clip=isinstance(query, VideoFeatures))
    clock = _Clock(encode_ms)
    found: Warnings = list(warnings)
    generation = vectors.generation
    vectors_Q = _recall_vectors(query, model)
    allowed = _allowed(vectors, catalogue, options, without_video_id)
    whole_Q = _whole(query) if model.spec.has_frame_recall else None
    candidates = _candidates(vectors_Q, whole_Q, vectors, options, allowed)
    clock.lap("recall")
    scored = _rerank(query, model, scorer, vectors, candidates, found)
    ranked = _rank(scored, vectors, options.top_k + SPARE_VIDEOS)
    clock.lap("rerank")
    videos = catalogue.live_videos([video.video_id for video in ranked]) if ranked else {}
    hits = _hits(ranked, scored, videos, candidates.has_ranks, options)
    if len(videos) < len(ranked) and catalogue.last_seq() == generation:  # else they were removed meanwhile
        found.append(
            ("videos_missing", f"{len(ranked) - len(videos)} indexed videos have no row: the catalogue is damaged.")
        )
    clock.lap("hydrate")
    found += _warnings(vectors, candidates, allowed, len(hits), options)
    return SearchAnswer(
        hits=hits,
        total_indexed=vectors.num_videos,
        num_candidates=len(candidates.segment_ids),
        effective={
            "scorer": scorer,
            "recall": options.recall,
            "candidates": options.candidates,
            "model": model.spec.name,
            "fingerprint": model.spec.fingerprint,
            "device": str(query.mask.device),
            "generation": generation,
        },
        timings_ms=clock.timings_ms(),
        warnings=tuple(found),
    )


def check_options(options: SearchOptions, spec: ModelSpec, *, query_is_clip: bool) -> ScorerName:
    """The scorer to use. Call it before encoding the query, which is expensive. Raises: InvalidQuery, UnknownScorer."""
    for name, value, least in (
        ("top_k", options.top_k, 1),
        ("candidates", options.candidates, 1),
        ("moments_per_video", options.moments_per_video, 0),
    ):
        if value < least:
            raise InvalidQuery(f"{name} is {value}.", f"It must be at least {least}.")
    if options.recall not in ("ann", "exact"):
        raise InvalidQuery(f"The recall mode {options.recall!r} is unknown.", "Use 'ann' or 'exact'.")
    return choose_scorer(spec.scorers, options.scorer, query_is_clip=query_is_clip)


# ---- recall


def _recall_vectors(query: Query, model: VideoTextModel) -> NDArray[np.float32]:
    with torch.inference_mode():
        found: NDArray[np.float32] = model.recall_vectors(query).float().cpu().numpy()
    if not np.isfinite(found).all():
        raise ModelError(
            f"The model {public_name(model.spec.name)!r} returned values for this query that aren't finite.",
            "Try another query or device, and check the model's weights.",
        )
    return found


def _allowed(
    vectors: VectorIndex, catalogue: SearchedCatalogue, options: SearchOptions, without_video_id: str | None
) -> Ids | None:
    """Segments that may be found; None: all of them."""
    if options.filter is None and options.video_ids is None:
        return None if without_video_id is None else vectors.all_ids(without_video_id)
    ids = catalogue.segment_ids(options.filter, options.video_ids)
    held = vectors.all_ids(without_video_id)
    return ids[np.isin(ids, held)]


def _whole(query: Query) -> NDArray[np.float32]:
    """(Q, D): the vectors that recall single frames."""
    whole = query.sentence if isinstance(query, TextFeatures) else query.pooled
    found: NDArray[np.float32] = whole.float().cpu().numpy()
    return found


def _candidates(
    vectors_Q: NDArray[np.float32],
    whole_Q: NDArray[np.float32] | None,
    vectors: VectorIndex,
    options: SearchOptions,
    allowed: Ids | None,
) -> _Candidates:
    """Every allowed segment, or those that any row of the query recalls; whole_Q None: not by their frames."""
    if options.recall == "exact":
        return _Candidates(vectors.all_ids() if allowed is None else allowed, has_ranks=False)
    channels = [vectors.recall(vectors_Q, options.candidates, allowed)]
    if whole_Q is not None:
        channels.append(vectors.recall_frames(whole_Q, options.candidates, allowed))
    return _Candidates(_merge(channels), has_ranks=True)


def _merge(channels: Sequence[Recall]) -> Ids:
    """The segments of all channels and query rows, by their best rank anywhere; ties by channel, then by id."""
    ids = np.concatenate([found.segment_ids.ravel() for found in channels])
    ranks = np.concatenate([np.tile(np.arange(f.segment_ids.shape[1]), len(f.segment_ids)) for f in channels])
    channel = np.concatenate([np.full(found.segment_ids.size, c) for c, found in enumerate(channels)])
    order = np.lexsort((ids, channel, ranks))
    ids = ids[order]
    _, first = np.unique(ids, return_index=True)
    merged: Ids = ids[np.sort(first)]
    return merged[merged >= 0]


# ---- rerank


def _rerank(
    query: Query,
    model: VideoTextModel,
    scorer: ScorerName,
    vectors: VectorIndex,
    candidates: _Candidates,
    warnings: Warnings,
) -> _Scored:
    """Score the candidates in blocks. Segments removed meanwhile, or whose score isn't finite, are left out."""
    size = _block_size(query, scorer, model.spec.num_frames)
    ids = candidates.segment_ids
    blocks = [_score_block(query, model, scorer, vectors, ids[at : at + size], at) for at in range(0, len(ids), size)]
    if not blocks:
        return _nothing(len(query.mask), model.spec.num_frames)
    scored = _Scored(
        SegmentTable.concat([block.table for block in blocks]),
        np.concatenate([block.recall_ranks for block in blocks]),
        np.concatenate([block.total for block in blocks], axis=1),
        np.concatenate([block.grains for block in blocks], axis=1),
        np.concatenate([block.relevance for block in blocks]),
        blocks[0].names,
    )
    is_sound: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(scored.total), axis=0)
    is_sound &= np.logical_and.reduce(np.isfinite(scored.grains), axis=(0, 2))
    if is_sound.all():
        return scored
    num_bad = int((~is_sound).sum())
    if num_bad == len(is_sound):
        name = public_name(model.spec.name)
        raise ModelError(f"The model {name!r} returned no finite score for any of {num_bad} candidates.")
    warnings.append(("segments_unscorable", f"{num_bad} segments were left out: their scores aren't finite numbers."))
    return _Scored(
        scored.table.take(is_sound),
        scored.recall_ranks[is_sound],
        scored.total[:, is_sound],
        scored.grains[:, is_sound],
        scored.relevance[is_sound],
        scored.names,
    )


def _nothing(num_rows: int, num_slots: int) -> _Scored:
    return _Scored(
        SegmentTable.empty(num_slots),
        np.empty(0, np.int64),
        np.empty((num_rows, 0), np.float32),
        np.empty((num_rows, 0, 0), np.float32),
        np.empty((0, num_slots), np.float32),
        (),
    )


def _block_size(query: Query, scorer: ScorerName, num_frames: int) -> int:
    rows, parts = query.mask.shape
    if SCORERS[scorer].cost == "joint":
        return max(32, JOINT_FRAMES_PER_BLOCK // max(1, rows * num_frames))
    return max(32, CELLS_PER_BLOCK // max(1, rows * parts * num_frames))


def _score_block(
    query: Query, model: VideoTextModel, scorer: ScorerName, vectors: VectorIndex, ids: Ids, offset: int
) -> _Scored:
    block = vectors.features(ids)
    like = query.sentence if isinstance(query, TextFeatures) else query.pooled
    videos = VideoFeatures(
        torch.from_numpy(block.pooled).to(like.device).to(like.dtype),
        torch.from_numpy(block.frames).to(like.device).to(like.dtype),
        torch.from_numpy(block.mask).to(like.device),
    )
    with torch.inference_mode():
        scores: Scores = model.score(query, videos, scorer)
        relevance = scores.frame_relevance.amax(0).float().cpu().numpy()
        total, grains = scores.total.float().cpu().numpy(), scores.grains.float().cpu().numpy()
    ranks = offset + np.flatnonzero(np.isin(ids, block.table.segment_ids)) + 1
    return _Scored(block.table, ranks, total, grains, np.where(block.mask, relevance, -np.inf), scores.names)


def _rank(scored: _Scored, vectors: VectorIndex, limit: int) -> list[_Ranked]:
    """The best videos among the candidates' segments, best first; equal scores by id."""
    codes = scored.table.video_codes
    if not len(codes):
        return []
    order = np.argsort(codes, kind="stable")
    video_codes, starts = np.unique(codes[order], return_index=True)
    scores = np.maximum.reduceat(scored.total[:, order], starts, axis=1).mean(0)
    least = -np.inf if len(scores) <= limit else np.partition(scores, -limit)[-limit]
    ends = np.append(starts[1:], len(order))
    ranked = [
        _Ranked(vectors.video_id(int(video_codes[v])), float(scores[v]), order[starts[v] : ends[v]])
        for v in np.flatnonzero(scores >= least)
    ]
    return sorted(ranked, key=lambda video: (-video.score, video.video_id))[:limit]


# ---- describe


def _hits(
    ranked: Sequence[_Ranked],
    scored: _Scored,
    videos: Mapping[str, Video],
    has_ranks: bool,
    options: SearchOptions,
) -> tuple[Hit, ...]:
    live = [video for video in ranked if video.video_id in videos][: options.top_k]
    return tuple(
        _hit(rank, found, videos[found.video_id], scored, has_ranks, options.moments_per_video)
        for rank, found in enumerate(live, start=1)
    )


def _hit(rank: int, found: _Ranked, video: Video, scored: _Scored, has_ranks: bool, num_moments: int) -> Hit:
    rows, table = found.rows, scored.table
    best_Q = rows[scored.total[:, rows].argmax(1)]
    grains = scored.grains[np.arange(len(best_Q)), best_Q].mean(0)
    return Hit(
        rank=rank,
        video=video,
        score=found.score,
        recall_rank=int(scored.recall_ranks[rows].min()) if has_ranks else None,
        grains={name: float(value) for name, value in zip(scored.names, grains, strict=True)},
        moments=find_moments(
            table.start_s[rows], table.end_s[rows], table.times_s[rows], scored.relevance[rows], num_moments
        ),
    )


def _warnings(
    vectors: VectorIndex, candidates: _Candidates, allowed: Ids | None, num_hits: int, options: SearchOptions
) -> Warnings:
    found: Warnings = []
    if vectors.unreadable:
        names = ", ".join(sorted(vectors.unreadable)[:5])
        found.append(("videos_unreadable", f"{len(vectors.unreadable)} videos have damaged features: {names}."))
    if vectors.num_lost:
        found.append(("segments_lost", f"{vectors.num_lost} stored segments have no video: the catalogue is damaged."))
    if not vectors.num_segments:
        found.append(("index_empty", "Nothing is indexed yet."))
    elif allowed is not None and not len(allowed):
        found.append(("nothing_allowed", "No indexed video passes the filter."))
    num_allowed = vectors.num_segments if allowed is None else len(allowed)
    if num_hits < options.top_k and len(candidates.segment_ids) < num_allowed:
        found.append(
            (
                "candidates_few",
                f"The {len(candidates.segment_ids)} candidates of {num_allowed} segments belong to {num_hits} videos, "
                f"fewer than top_k {options.top_k}: ask for more candidates, or for exact recall.",
            )
        )
    return found


class _Clock:
    """Milliseconds of each stage; `total` is their sum, with the encoding before them."""

    def __init__(self, encode_ms: float) -> None:
        self._laps = {"encode": encode_ms}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._laps[name] = (now - self._last) * 1e3
        self._last = now

    def timings_ms(self) -> dict[str, float]:
        return {**self._laps, "total": sum(self._laps.values())}
