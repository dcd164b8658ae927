"""Coarse recall of any shard: as many rows as the filter allows, each once, best first, scored as its code says."""

from __future__ import annotations

import faiss
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from indexer.shards.coarse import Coarse, Recipe, _Channel
from tests.support.feature_blocks import block_of, ragged_frames, unit

ROUNDING = 0.03
"""FAISS sums a score of tables of one byte a number."""


@settings(max_examples=20, deadline=None)
@given(
    num_segments=st.integers(1, 300),
    width=st.integers(2, 40),
    most_frames=st.integers(1, 9),
    store=st.sampled_from(["fp16", "int8"]),
    recipe=st.builds(
        Recipe,
        num_centres=st.integers(1, 4),
        numbers_per_code=st.sampled_from([2, 4]),
        largest_flat=st.sampled_from([50, 4096]),
        entries_per_list=st.sampled_from([16, 64]),
    ),
    k=st.integers(1, 400),
    share=st.one_of(st.none(), st.floats(0, 1)),
    seed=st.integers(0, 99),
)
def test_any_shard_gives_the_rows_that_are_allowed(
    num_segments: int, width: int, most_frames: int, store: str, recipe: Recipe, k: int, share: float | None, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    block = block_of(ragged_frames(num_segments, width=width, most_frames=most_frames, seed=seed), store=store)
    coarse = Coarse.build(block, has_frame_recall=True, seed=seed, recipe=recipe)
    allowed = None if share is None else rng.random(num_segments) < share
    queries = unit(rng.standard_normal((2, width)))
    for search, channel in ((coarse.by_pooled, coarse._pooled), (coarse.by_frames, coarse._frames)):
        assert channel is not None
        found = search(queries, k, allowed)
        num_expected = min(k, num_segments if allowed is None else int(allowed.sum()))
        assert found.rows.shape == found.scores.shape == (2, num_expected)
        vectors, owners = decoded(channel)
        best = np.full((2, num_segments), -np.inf)
        np.maximum.at(best, (slice(None), owners), queries @ vectors[:, :width].T)
        for query in range(2):
            rows, scores = found.rows[query], found.scores[query]
            assert len(set(rows.tolist())) == num_expected and (rows >= 0).all()
            assert allowed is None or allowed[rows].all()
            assert (np.diff(scores) <= 0).all()
            assert (best[query, rows] - scores).max(initial=0) < ROUNDING, "no good row is scored low"
            is_own = scores > scores.min(
                initial=np.inf
            )  # rows that FAISS drops have the score of the last one it gives
            assert np.abs(best[query, rows] - scores)[is_own].max(initial=0) < ROUNDING


def decoded(channel: _Channel) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The vectors that the codes of an index stand for, and the row that each belongs to."""
    index, vectors, owners = channel._index, [], [np.empty(0, np.int64)]
    for number in range(index.nlist):
        size = index.invlists.list_size(number)
        if size:
            owners.append(faiss.rev_swig_ptr(index.invlists.get_ids(number), size).copy())
        for place in range(size):
            vectors.append(np.empty(index.d, np.float32))
            index.reconstruct_from_offset(number, place, faiss.swig_ptr(vectors[-1]))
    return np.stack(vectors), np.concatenate(owners)
