"""Coarse recall of any shard: as many rows as the filter allows, each once, best first, scored close to the truth."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.shards.centres import frame_centres
from indexer.shards.coarse import Coarse, Recipe
from tests.support.feature_blocks import block_of, ragged_frames, unit


@settings(max_examples=20, deadline=None, derandomize=True)
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
    every = np.arange(num_segments)
    scales = 1.0 if block.pooled_scales is None else block.pooled_scales[:, None]
    vectors = {
        "pooled": (block.pooled * scales, every),
        "frames": frame_centres(block, every, recipe.num_centres),
    }
    for name, search in (("pooled", coarse.by_pooled), ("frames", coarse.by_frames)):
        found = search(queries, k, allowed)
        num_expected = min(k, num_segments if allowed is None else int(allowed.sum()))
        assert found.rows.shape == found.scores.shape == (2, num_expected)
        exact = np.full((2, num_segments), -np.inf)
        np.maximum.at(exact, (slice(None), vectors[name][1]), queries @ vectors[name][0].T)
        for query in range(2):
            rows, scores = found.rows[query], found.scores[query]
            assert len(set(rows.tolist())) == num_expected and (rows >= 0).all()
            assert allowed is None or allowed[rows].all()
            assert (np.diff(scores) <= 0).all()
            assert (exact[query, rows] - scores).max(initial=0) < 0.8  # no good row is scored low
