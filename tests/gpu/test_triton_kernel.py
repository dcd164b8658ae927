"""The Triton kernel gives the referee's scores: on a GPU, or without one under Triton's interpreter.

The interpreter must be asked for before triton is imported, so tests/unit/model/kernels/test_triton_kernel.py runs this
file in a process of its own; where there is no GPU the suite's own process skips it.
"""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.kernels.block import Store
from model.kernels.panel import Panel
from model.kernels.triton_kernel import TritonKernel, TritonQuery, load
from model.shared_scorers import SHARED_SCORERS
from model.types import ScorerName
from tests.support.kernels import random_block, random_case, referee

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = pytest.mark.skipif(not (IS_INTERPRETED or torch.cuda.is_available()), reason="no GPU here")

TOLERANCE: dict[Store, float] = {"fp16": 1e-3, "int8": 1.5e-3}
"""Of a total, in cosines."""


def kernel() -> TritonKernel:
    found = load(torch.device("cpu" if IS_INTERPRETED else "cuda"))
    assert found is not None
    return found


def prepared(panel: Panel) -> TritonQuery:
    return kernel().prepare(panel)


@pytest.mark.parametrize("scorer", SHARED_SCORERS)
@settings(max_examples=10 if IS_INTERPRETED else 100, deadline=None, derandomize=True)
@given(data=st.data())
def test_scores_are_those_of_the_referee(scorer: ScorerName, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    store: Store = data.draw(st.sampled_from(["fp16", "int8"]))
    dim = data.draw(st.sampled_from([17, 32, 64, 100, 512]))
    num_slots = data.draw(st.sampled_from([1, 3, 12, 16, 20]))
    num_segments = data.draw(st.integers(1, 20))
    has_unit_frames = data.draw(st.booleans())
    case = random_case(
        rng,
        scorer,
        num_rows=data.draw(st.integers(1, 5)),
        num_words=data.draw(st.sampled_from([1, 5, 15, 16, 40])),
        num_slots=num_slots,
        dim=dim,
        is_mixed=data.draw(st.booleans()),
        is_ragged=data.draw(st.booleans()),
        temperature=data.draw(st.sampled_from([0.01, 0.05, 1.0])),
        is_clip=data.draw(st.booleans()),
        has_unit_frames=has_unit_frames,
    )
    counts = rng.integers(1, num_slots + 1, num_segments).astype(np.int32)
    block = random_block(rng, counts, dim, store, length=1.0 if has_unit_frames else 3.0)
    rows = rng.integers(0, num_segments, data.draw(st.integers(0, 9))) if data.draw(st.booleans()) else None
    totals, grains, relevance = referee(case, block, rows, num_slots)

    query = prepared(case.panel)
    every = np.arange(num_segments) if rows is None else rows
    np.testing.assert_allclose(query.totals(block, rows), totals, atol=TOLERANCE[store], rtol=0)
    np.testing.assert_allclose(query.grains(block, every), grains, atol=2 * TOLERANCE[store], rtol=0)
    np.testing.assert_allclose(query.relevance(block, every, num_slots), relevance, atol=1e-4, rtol=0)


def test_similarities_from_minus_one_to_one_lose_nothing() -> None:
    """Softmaxes at 0.01 over cosines 2 apart: one shared exponential vanishes for every word of a frame, and what is
    lost comes to light once the frames are mixed."""
    rng = np.random.default_rng(3)
    case = random_case(rng, "aosm", num_rows=2, num_words=6, num_slots=4, dim=64, is_mixed=True)
    block = random_block(rng, np.array([4, 2, 1, 4], np.int32), 64)
    block.frames[1::2] = -block.frames[0]
    local = torch.from_numpy(block.frames[0].astype(np.float32) + 0.02 * rng.standard_normal((2, 6, 64), np.float32))
    mixing = case.mixing._replace(local_DD=None, frames_second_FF=torch.eye(4) + 0.3)
    case = replace(
        case,
        parts=local,
        mixing=mixing,
        panel=replace(
            case.panel,
            parts=local.numpy(),
            parts_local=local.numpy(),
            mixing=replace(case.panel.mixing, frames_second=mixing.frames_second_FF.numpy()),  # type: ignore[union-attr]
        ),
    )
    totals, grains, _ = referee(case, block, None, 4)
    found = prepared(case.panel)
    np.testing.assert_allclose(found.totals(block), totals, atol=1e-3, rtol=0)
    np.testing.assert_allclose(found.grains(block, np.arange(4)), grains, atol=2e-3, rtol=0)


@pytest.mark.parametrize("scorer", SHARED_SCORERS)
@pytest.mark.parametrize("store", ["fp16", "int8"])
def test_a_segment_that_is_not_a_number_leaves_the_others_alone(scorer: ScorerName, store: Store) -> None:
    rng = np.random.default_rng(5)
    case = random_case(rng, scorer, num_rows=2, num_slots=3, dim=40, is_mixed=True)
    block = random_block(rng, np.full(9, 3, np.int32), 40, store)
    before = prepared(case.panel).totals(block)
    spoilt = (block.frames, block.pooled) if store == "fp16" else (block.frame_scales, block.pooled_scales)
    for array, at in zip(spoilt, (3 * 4 + 2, 4), strict=True):
        assert array is not None
        array[at] = np.nan
    query = prepared(case.panel)
    after = query.totals(block)
    assert np.isnan(after[:, 4]).all()
    np.testing.assert_array_equal(np.delete(after, 4, axis=1), np.delete(before, 4, axis=1))
    best = query.top(block, None, 9)
    assert best.rows[:, -1].tolist() == [-1, -1] and 4 not in best.rows


def test_the_best_come_in_order_by_segment_and_by_video() -> None:
    rng = np.random.default_rng(8)
    case = random_case(rng, "aosm", num_rows=3, num_slots=3)
    block = random_block(rng, np.full(23, 3, np.int32), 32)
    query = prepared(case.panel)
    totals = query.totals(block)
    best = query.top(block, None, 5)
    np.testing.assert_array_equal(best.rows, np.argsort(-totals, axis=1)[:, :5])
    np.testing.assert_array_equal(best.totals, np.take_along_axis(totals, best.rows, 1))

    videos, rows = np.arange(23, dtype=np.int32) // 4, np.arange(1, 23, 2)
    best = query.top(block, rows, 9, videos)
    for row, (found, scores) in enumerate(zip(best.rows, best.totals, strict=True)):
        wanted = [max(rows[videos[rows] == video], key=lambda n: totals[row, n]) for video in set(videos[rows])]
        wanted.sort(key=lambda n: -totals[row, n])
        assert found.tolist() == wanted and scores == pytest.approx(totals[row, wanted])


def test_features_that_were_scored_once_stay_on_the_device() -> None:
    rng = np.random.default_rng(9)
    block, one = random_block(rng, np.full(5, 3, np.int32), 32), kernel()
    case = random_case(rng, "mean", num_slots=3)
    first = one.prepare(case.panel).totals(block)
    block.pooled[:] = 0  # a shard never does; it shows that nothing is copied again
    np.testing.assert_array_equal(one.prepare(case.panel).totals(block), first)


def test_several_blocks_are_scored_as_one_by_one() -> None:
    rng = np.random.default_rng(11)
    query = prepared(random_case(rng, "maxsim", num_rows=2, num_slots=3).panel)
    blocks = [random_block(rng, np.full(count, 3, np.int32), 32) for count in (4, 7, 1)]
    wanted = [(blocks[0], None), (blocks[1], np.array([5, 0])), (blocks[2], np.empty(0, np.int64)), (blocks[2], None)]
    for found, (block, rows) in zip(query.totals_of(wanted), wanted, strict=True):
        np.testing.assert_array_equal(found, query.totals(block, rows))
    assert query.totals_of([]) == []


def test_nothing_to_score_gives_nothing() -> None:
    rng = np.random.default_rng(9)
    block, nothing = random_block(rng, np.full(2, 2, np.int32), 32), np.empty(0, np.int64)
    query = prepared(random_case(rng, "aosm", num_slots=2).panel)
    assert query.totals(block, nothing).shape == (1, 0)
    assert query.grains(block, nothing).shape == (1, 0, 4)
    assert query.relevance(block, nothing, 2).shape == (1, 0, 2)
    assert query.top(block, nothing, 5).rows.shape == (1, 0)


def test_many_queries_are_scored_as_one_by_one() -> None:
    rng = np.random.default_rng(10)
    case = random_case(rng, "aosm", num_rows=21, num_words=3, num_slots=3, is_mixed=True)
    block = random_block(rng, rng.integers(1, 4, 11).astype(np.int32), 32, "int8")
    together = prepared(case.panel).totals(block)
    names = ("whole", "whole_mixed", "parts", "parts_local", "mask")
    for number in (0, 9, 20):
        alone = replace(case.panel, **{name: getattr(case.panel, name)[number : number + 1] for name in names})
        np.testing.assert_allclose(prepared(alone).totals(block)[0], together[number], atol=1e-5, rtol=0)
