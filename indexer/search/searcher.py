"""One search: plan, recall, score, group by video, then grains and moments of what is shown.

Letters: Q query rows (1 for a text, a clip's segments), C scored segments, F frame slots, G parts of a score.
Texts and clips are searched in the same way. It knows the model's interface, a view of the shards and the catalogue; it
knows no file and no HTTP.

A video's score is the mean, over the rows of the query, of the score of its best scored segment. For a text or a
short clip that is its best segment's score; for a long clip it is high where every part is found, in any order.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from indexer.errors import InvalidQuery
from indexer.records import SearchAnswer, SearchOptions, Video
from indexer.search.cores import Cores
from indexer.search.hits import hits_of
from indexer.search.joint import MOST_ROWS, JointScoring, parts
from indexer.search.plan import SAMPLE_COPIES, SAMPLE_SEGMENTS, Costs, Plan, choose
from indexer.search.ranking import Scored, gathered, rank
from indexer.search.recall import RecallQuery, ShardRows, num_candidates, recall
from indexer.search.scoring import KernelScorer, ModelScorer, SegmentScorer
from indexer.shards.rows import rows_allowed, rows_live, rows_of_video
from indexer.shards.view import IndexView, ShardView
from model.errors import ModelError
from model.kernels.panel import Array, Kernel
from model.scorers import choose_scorer
from model.types import ModelSpec, Query, ScorerName, TextFeatures, VideoFeatures, VideoTextModel, public_name

SPARE_VIDEOS = 64
"""Videos ranked beyond top_k, in place of those that are removed during the search."""

Warnings = list[tuple[str, str]]
Allowed = list[NDArray[np.bool_] | None]


class SearchedCatalogue(Protocol):
    """What a search needs from the catalogue; CatalogueReader is the real one."""

    def last_seq(self) -> int: ...
    def allowed_numbers(
        self, filter: Mapping[str, object] | None, video_ids: Sequence[str] | None
    ) -> NDArray[np.int64]: ...
    def live_videos(self, ids: Sequence[str]) -> Mapping[str, Video]: ...


class Searcher:
    """Searches with one model. Thread-safe; `close` ends its threads.

    budget_ms: how long scoring everything may take before `auto` recalls.
    """

    def __init__(self, model: VideoTextModel, kernel: Kernel, *, budget_ms: float, cores: Cores | None = None) -> None:
        spec = model.spec
        self.kernel = kernel
        self.budget_ms = budget_ms
        self.costs = Costs(spec.embed_dim, spec.pooled_width, spec.num_frames)
        self._model = model
        self._cores = cores or Cores()
        self._joint = JointScoring(kernel, self._cores)

    def close(self) -> None:
        """End the threads."""
        self._cores.close()

    def warm_up(self) -> None:
        """Measure what a short sentence costs by the model's default scorer, so that no search has to."""
        query = self._model.encode_text(["video"])
        name = self._model.spec.scorers[0]
        self.costs.segment_us(_kind(query, name), self._scorer(query, name))

    def stats(self) -> dict[str, Any]:
        """What scores, on how many cores, and what it was measured to cost."""
        return {
            "kernel": self.kernel.name,
            "cores": self._cores.num_cores,
            "exact_budget_ms": self.budget_ms,
            "segment_us": self.costs.measured(),
        }

    def search(
        self,
        query: Query,
        view: IndexView,
        catalogue: SearchedCatalogue,
        options: SearchOptions,
        *,
        without_video_id: str | None = None,
        encode_ms: float = 0.0,
        warnings: Sequence[tuple[str, str]] = (),
    ) -> SearchAnswer:
        """Answer a query of Q rows from what the view holds. Videos with equal scores are ordered by id.

        without_video_id: a video to leave out (a stored query). encode_ms: how long encoding the query took.
        warnings: those found so far; they come first in the answer.
        Raises: InvalidQuery for options out of range, UnknownScorer, InvalidFilter, ModelError if the model's numbers
        for the query aren't finite.
        """
        spec = self._model.spec
        name = check_options(options, spec, query_is_clip=isinstance(query, VideoFeatures))
        clock, found = _Clock(encode_ms), list(warnings)
        wanted = self._recall_query(query)
        scorer = self._scorer(query, name)
        allowed, num_allowed = _allowed(view, catalogue, options, without_video_id)
        plan = self._plan(query, name, scorer, view, options, num_allowed)
        clock.lap("plan")
        k = options.candidates or num_candidates(view.num_segments)
        rows = self._candidates(plan, wanted, scorer, view, allowed, k)
        clock.lap("recall")
        scored = self._score(scorer, view, rows, len(query.mask), found)
        ranked = rank(scored, view.shards, options.top_k + SPARE_VIDEOS)
        clock.lap("rerank")
        videos = catalogue.live_videos([video.video_id for video in ranked]) if ranked else {}
        if len(videos) < len(ranked) and catalogue.last_seq() == view.generation:  # else they were removed meanwhile
            found.append(
                ("videos_missing", f"{len(ranked) - len(videos)} indexed videos have no row: the catalogue is damaged.")
            )
        clock.lap("hydrate")
        live = [video for video in ranked if video.video_id in videos][: options.top_k]
        hits = hits_of(live, videos, scored, scorer, view.shards, options.moments_per_video)
        clock.lap("explain")
        num_scored = sum(some.count(view.shards) for some in rows)
        found += _warnings(view, num_scored, num_allowed, len(hits), options)
        return SearchAnswer(
            hits=hits,
            total_indexed=view.num_videos,
            num_candidates=num_scored,
            effective={
                "scorer": name,
                "recall": plan.mode,
                "recall_reason": plan.reason,
                "exact_ms": plan.exact_ms,
                "candidates": k,
                "kernel": scorer.name,
                "model": spec.name,
                "fingerprint": spec.fingerprint,
                "device": str(query.mask.device),
                "generation": view.generation,
            },
            timings_ms=clock.timings_ms(),
            warnings=tuple(found),
        )

    # ---- the query

    def _recall_query(self, query: Query) -> RecallQuery:
        with torch.inference_mode():
            pooled: Array = self._model.recall_vectors(query).float().cpu().numpy()
        if not np.isfinite(pooled).all():
            raise ModelError(
                f"The model {public_name(self._model.spec.name)!r} returned values for this query that aren't finite.",
                "Try another query or device, and check the model's weights.",
            )
        if not self._model.spec.has_frame_recall:
            return RecallQuery(pooled, None)
        whole = query.sentence if isinstance(query, TextFeatures) else query.pooled
        return RecallQuery(pooled, whole.float().cpu().numpy())

    def _scorer(self, query: Query, name: ScorerName) -> SegmentScorer:
        panel = self._model.panel(query, name)
        if panel is None:
            return ModelScorer(self._model, query, name)
        return KernelScorer(self.kernel, panel, self._model.spec.num_frames)

    # ---- which segments

    def _plan(
        self,
        query: Query,
        name: ScorerName,
        scorer: SegmentScorer,
        view: IndexView,
        options: SearchOptions,
        num_allowed: int,
    ) -> Plan:
        can_recall = not scorer.reads_in_place or any(shard.coarse is not None for shard in view.shards)
        return choose(
            options.recall,
            num_allowed,
            lambda: self.costs.segment_us(_kind(query, name), scorer),
            1 if scorer.takes_whole_blocks else self._cores.num_cores,
            self.budget_ms,
            can_recall=can_recall,
            few=SAMPLE_SEGMENTS if scorer.reads_in_place else SAMPLE_COPIES,
        )

    def _candidates(
        self, plan: Plan, wanted: RecallQuery, scorer: SegmentScorer, view: IndexView, allowed: Allowed, k: int
    ) -> list[ShardRows]:
        """Rows to score in each shard. Shards without a coarse index, and few allowed rows, are scored in full."""
        in_full: list[int] = []
        to_recall: list[int] = []
        for at, shard in enumerate(view.shards):
            count = _count(shard, allowed[at])
            if not count:
                continue
            is_cheap = scorer.reads_in_place and (shard.coarse is None or count <= k)
            (in_full if plan.mode == "exact" or is_cheap else to_recall).append(at)
        found = [ShardRows(at, None if (mask := allowed[at]) is None else np.flatnonzero(mask)) for at in in_full]
        if to_recall:
            shards, masks = [view.shards[at] for at in to_recall], [allowed[at] for at in to_recall]
            some = recall(wanted, k, shards, masks, self.kernel, self._cores)
            found += [replace(rows, shard=to_recall[rows.shard]) for rows in some]
        return sorted(found, key=lambda rows: rows.shard)

    # ---- scores

    def _score(
        self, scorer: SegmentScorer, view: IndexView, chosen: Sequence[ShardRows], num_rows: int, warnings: Warnings
    ) -> Scored:
        """Score the rows on the cores that are idle. Segments whose score isn't finite are left out."""
        totals = self._totals(scorer, view, chosen, num_rows)
        scored = gathered(view.shards, chosen, totals)
        is_sound = np.logical_and.reduce(np.isfinite(scored.totals), axis=0)
        if is_sound.all():
            return scored
        num_bad = int((~is_sound).sum())
        if num_bad == len(is_sound):
            name = public_name(self._model.spec.name)
            raise ModelError(f"The model {name!r} returned no finite score for any of {num_bad} segments.")
        warnings.append(
            ("segments_unscorable", f"{num_bad} segments were left out: their scores aren't finite numbers.")
        )
        return scored.take(is_sound)

    def _totals(self, scorer: SegmentScorer, view: IndexView, chosen: Sequence[ShardRows], num_rows: int) -> Array:
        """(Q, C) of the chosen rows. A search that reads everything is joined with others that do."""
        if isinstance(scorer, KernelScorer) and num_rows <= MOST_ROWS and _is_everything(chosen, view):
            everything = self._joint.totals(scorer.panel, view)
            starts = np.cumsum([0, *(len(shard) for shard in view.shards)])
            is_whole = len(chosen) == len(view.shards) and all(some.rows is None for some in chosen)
            return everything if is_whole else everything[:, _picked(chosen, view, starts)]
        tasks = [(some.shard, part) for some in chosen for part in parts(some.rows, view.shards[some.shard], scorer)]
        totals = self._cores.map(lambda task: scorer.totals(view.shards[task[0]].block, task[1]), tasks)
        return np.concatenate([np.empty((num_rows, 0), np.float32), *totals], axis=1)


def check_options(options: SearchOptions, spec: ModelSpec, *, query_is_clip: bool) -> ScorerName:
    """The scorer to use. Call it before encoding the query, which is expensive. Raises: InvalidQuery, UnknownScorer."""
    for name, value, least in (
        ("top_k", options.top_k, 1),
        ("candidates", 1 if options.candidates is None else options.candidates, 1),
        ("moments_per_video", options.moments_per_video, 0),
    ):
        if value < least:
            raise InvalidQuery(f"{name} is {value}.", f"It must be at least {least}.")
    if options.recall not in ("auto", "ann", "exact"):
        raise InvalidQuery(f"The recall mode {options.recall!r} is unknown.", "Use 'auto', 'exact' or 'ann'.")
    return choose_scorer(spec.scorers, options.scorer, query_is_clip=query_is_clip)


def _kind(query: Query, name: ScorerName) -> str:
    """Queries that cost about the same: by scorer, rows, and words in steps of 16."""
    num_rows = len(query.mask)
    num_words = int(query.mask.sum(1).max()) if num_rows else 0
    return f"{name}, {num_rows} x {16 * -(-num_words // 16)} words"


# ---- which segments


def _allowed(
    view: IndexView, catalogue: SearchedCatalogue, options: SearchOptions, without_video_id: str | None
) -> tuple[Allowed, int]:
    """For each shard the rows that may be found, None for all; and how many those are in all."""
    numbers = None
    if options.filter is not None or options.video_ids is not None:
        numbers = catalogue.allowed_numbers(options.filter, options.video_ids)
    masks = [_mask(shard, numbers, without_video_id) for shard in view.shards]
    return masks, sum(_count(shard, mask) for shard, mask in zip(view.shards, masks, strict=True))


def _mask(
    shard: ShardView, numbers: NDArray[np.int64] | None, without_video_id: str | None
) -> NDArray[np.bool_] | None:
    mask = shard.is_live if numbers is None else rows_allowed(shard, numbers)
    left_out = rows_of_video(shard, without_video_id) if without_video_id is not None else ()
    if not len(left_out):
        return mask
    without = rows_live(shard).copy() if mask is None else mask.copy()
    without[left_out] = False
    return without


def _count(shard: ShardView, allowed: NDArray[np.bool_] | None) -> int:
    return len(shard) if allowed is None else int(np.count_nonzero(allowed))


# ---- scores


def _is_everything(chosen: Sequence[ShardRows], view: IndexView) -> bool:
    """Whether every live segment is to be scored, without recall and filter."""
    return (
        all(some.ranks is None and some.count(view.shards) == view.shards[some.shard].num_live for some in chosen)
        and sum(some.count(view.shards) for some in chosen) == view.num_segments > 0
    )


def _picked(chosen: Sequence[ShardRows], view: IndexView, starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The places of the chosen rows among those of all shards."""
    return np.concatenate(
        [
            starts[some.shard] + (np.arange(len(view.shards[some.shard])) if some.rows is None else some.rows)
            for some in chosen
        ]
    )


def _warnings(view: IndexView, num_scored: int, num_allowed: int, num_hits: int, options: SearchOptions) -> Warnings:
    found: Warnings = []
    if view.unreadable:
        names = ", ".join(sorted(view.unreadable)[:5])
        found.append(("videos_unreadable", f"{len(view.unreadable)} videos have damaged features: {names}."))
    if view.num_lost:
        found.append(("segments_lost", f"{view.num_lost} stored segments have no video: the catalogue is damaged."))
    if not view.num_segments:
        found.append(("index_empty", "Nothing is indexed yet."))
    elif not num_allowed:
        found.append(("nothing_allowed", "No indexed video passes the filter."))
    if num_hits < options.top_k and num_scored < num_allowed:
        found.append(
            (
                "candidates_few",
                f"The {num_scored} candidates of {num_allowed} segments belong to {num_hits} videos, "
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
