"""Candidates of several shards, ranked together: through coarse indexes where there are some, else by a flat pass."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.search.recall import RecallQuery, ShardRows, recall
from indexer.shards.view import FoundRows, SegmentTable, ShardView, VideoTable
from model.kernels.block import FeatureBlock, gather
from tests.support.searching import CORES, KERNEL

DIM, SLOTS = 8, 3


def unit(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    rows = rng.standard_normal(shape).astype(np.float32)
    unit_rows: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return unit_rows


class ExactCoarse:
    """A coarse index that misses nothing."""

    def __init__(self, block: FeatureBlock) -> None:
        dense = gather(block, slice(0, len(block)), SLOTS)
        self._pooled, self._frames = dense.pooled, np.where(dense.mask[..., None], dense.frames, np.nan)

    def by_pooled(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None) -> FoundRows:
        return self._best(queries @ self._pooled.T, k, allowed)

    def by_frames(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None) -> FoundRows:
        return self._best(np.nanmax(np.einsum("qd,nfd->qnf", queries, self._frames), axis=2), k, allowed)

    def _best(self, scores: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None) -> FoundRows:
        if allowed is not None:
            scores = np.where(allowed, scores, -np.inf)
        rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        values = np.take_along_axis(scores, rows, axis=1)
        return FoundRows(np.where(np.isneginf(values), -1, rows), values)


def shard_of(rng: np.random.Generator, size: int, *, is_sealed: bool) -> ShardView:
    counts = rng.integers(1, SLOTS + 1, size).astype(np.int32)
    first = (np.cumsum(counts) - counts).astype(np.int64)
    frames, pooled = unit(rng, int(counts.sum()), DIM), unit(rng, size, DIM)
    block = FeatureBlock(frames.astype(np.float16), pooled.astype(np.float16), first, counts)
    ids, seconds = np.arange(size, dtype=np.int64), np.arange(size, dtype=np.float64)
    table = SegmentTable(ids, ids.astype(np.int32), seconds, seconds + 1, np.zeros(len(frames)))
    videos = VideoTable(ids, np.array([f"v{n}" for n in ids], "S8"), ids, np.ones(size, np.int64), ids)
    return ShardView(table, videos, block, None, size, ExactCoarse(block) if is_sealed else None)


def expected(
    query: RecallQuery, k: int, shards: list[ShardView], allowed: list[NDArray[np.bool_] | None]
) -> dict[tuple[int, int], int]:
    """(shard, row) -> its best rank in any channel, by brute force."""
    best: dict[tuple[int, int], int] = {}
    for channel in ("pooled", "frames"):
        queries = getattr(query, channel)
        for vector in queries if queries is not None else ():
            scored = []
            for number, (shard, mask) in enumerate(zip(shards, allowed, strict=True)):
                dense = gather(shard.block, slice(0, len(shard)), SLOTS)
                for row in range(len(shard)):
                    if mask is None or mask[row]:
                        rows = dense.pooled[row][None] if channel == "pooled" else dense.frames[row][dense.mask[row]]
                        scored.append((-float((rows @ vector).max()), number, row))
            for rank, (_, number, row) in enumerate(sorted(scored)[:k], start=1):
                best[number, row] = min(rank, best.get((number, row), rank))
    return best


def as_dict(found: list[ShardRows]) -> dict[tuple[int, int], int]:
    ranks = {}
    for some in found:
        assert some.rows is not None and some.ranks is not None and (np.diff(some.rows) > 0).all()
        ranks |= {(some.shard, int(row)): int(rank) for row, rank in zip(some.rows, some.ranks, strict=True)}
    return ranks


@pytest.mark.parametrize("is_sealed", [(True, True, True), (False, False, False), (True, False, True)])
@pytest.mark.parametrize("num_rows", [1, 3])
@pytest.mark.parametrize("has_frames", [True, False])
def test_candidates_are_the_best_of_all_shards(is_sealed: tuple[bool, ...], num_rows: int, has_frames: bool) -> None:
    rng = np.random.default_rng(num_rows)
    shards = [shard_of(rng, size, is_sealed=sealed) for size, sealed in zip((30, 1, 50), is_sealed, strict=True)]
    query = RecallQuery(unit(rng, num_rows, DIM), unit(rng, num_rows, DIM) if has_frames else None)
    allowed: list[NDArray[np.bool_] | None] = [None, None, rng.random(50) < 0.5]
    for k in (1, 7, 1000):
        assert as_dict(recall(query, k, shards, allowed, KERNEL, CORES)) == expected(query, k, shards, allowed)


def test_a_shard_of_which_nothing_is_allowed_gives_nothing() -> None:
    rng = np.random.default_rng(5)
    shards = [shard_of(rng, 10, is_sealed=sealed) for sealed in (True, False)]
    query = RecallQuery(unit(rng, 1, DIM), None)
    assert recall(query, 5, shards, [np.zeros(10, np.bool_)] * 2, KERNEL, CORES) == []


def test_a_score_that_is_no_number_is_found_last() -> None:
    rng = np.random.default_rng(6)
    shard = shard_of(rng, 10, is_sealed=False)
    pooled = shard.block.pooled.copy()
    pooled[3] = np.nan
    shard = replace(shard, block=replace(shard.block, pooled=pooled))
    (found,) = recall(RecallQuery(unit(rng, 1, DIM), None), 10, [shard], [None], KERNEL, CORES)
    assert found.rows is not None and found.ranks is not None
    assert found.ranks[list(found.rows).index(3)] == 10
