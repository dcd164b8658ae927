"""Every kernel is held to torch's referee: shapes, masks, ragged frames, mixing, temperature, store, rows.

A path that this CPU lacks isn't tested, and nothing of the compiled kernel where it isn't built.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.kernels import native
from model.kernels.block import FeatureBlock, Store
from model.kernels.native import NativeKernel, PathName
from model.kernels.panel import Kernel
from model.kernels.torch_kernel import TorchKernel
from model.shared_scorers import SHARED_SCORERS
from model.types import ScorerName
from tests.support.kernels import bound, random_block, random_case, referee

TORCH = "torch"
ROUNDING = 1e-6
"""It may take another branch for all segments of a chunk."""
NAMES = [TORCH, *native.paths()]
"""The torch kernel, and each path of the compiled one that this CPU has."""


def kernel_of(name: str) -> Kernel:
    return TorchKernel() if name == TORCH else NativeKernel(cast(PathName, name))


@pytest.mark.parametrize("path", NAMES)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_every_path_agrees_with_the_referee(path: str, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    store: Store = data.draw(st.sampled_from(["fp16", "int8"]))
    scorer: ScorerName = data.draw(st.sampled_from(SHARED_SCORERS))
    dim = data.draw(st.sampled_from([1, 3, 17, 33, 64, 100, 128, 200]))
    num_words = data.draw(st.sampled_from([1, 2, 5, 15, 16, 17, 31, 33, 48, 70]))
    num_slots = data.draw(st.sampled_from([1, 2, 7, 12, 13, 16, 17, 40]))
    num_segments = data.draw(st.integers(1, 40))
    has_unit_frames = data.draw(st.booleans())
    counts = rng.integers(1, num_slots + 1, num_segments).astype(np.int32)
    block = random_block(rng, counts, dim, store, length=1.0 if has_unit_frames else 3.0)
    case = random_case(
        rng,
        scorer,
        num_rows=data.draw(st.integers(1, 3)),
        num_words=num_words,
        num_slots=num_slots,
        dim=dim,
        is_mixed=data.draw(st.booleans()),
        is_ragged=data.draw(st.booleans()),
        temperature=data.draw(st.sampled_from([0.01, 0.05, 1.0])),
        is_clip=data.draw(st.booleans()),
        has_unit_frames=has_unit_frames,
    )
    rows = rng.integers(0, num_segments, data.draw(st.integers(0, 50))) if data.draw(st.booleans()) else None
    totals, grains, relevance = referee(case, block, rows, num_slots)

    query = kernel_of(path).prepare(case.panel)
    every = np.arange(num_segments) if rows is None else rows
    off = bound(path, store)
    # few numbers make few roundings that even one another out, and a mixing of more weights more of them
    off *= max(1.0, (512 / dim) ** 0.5)
    np.testing.assert_allclose(query.totals(block, rows), totals, atol=off, rtol=0)
    np.testing.assert_allclose(query.grains(block, every), grains, atol=4 * off, rtol=0)
    np.testing.assert_allclose(query.relevance(block, every, num_slots), relevance, atol=2 * off, rtol=0)


@pytest.mark.parametrize("path", NAMES)
@pytest.mark.parametrize("is_mixed", [False, True])
def test_similarities_from_minus_one_to_one_are_exact(path: str, is_mixed: bool) -> None:
    """At a temperature of 0.01 an exponential that is shifted by the segment's best vanishes for the worst rows."""
    rng = np.random.default_rng(1)
    case = random_case(rng, "aosm", num_words=20, num_slots=9, dim=64, is_mixed=is_mixed, is_ragged=False)
    block = random_block(rng, np.full(30, 9, np.int32), 64)
    frames = block.frames.reshape(30, 9, 64).copy()
    words = case.panel.parts[0].astype(np.float16)
    frames[:, 0], frames[:, 1], frames[:, 2:4] = words[3], -words[3], -words[None, 5:7]
    block = FeatureBlock(frames.reshape(-1, 64), block.pooled, block.first_frame, block.num_frames)
    totals, _, _ = referee(case, block, None, 9)
    found = kernel_of(path).prepare(case.panel).totals(block)
    np.testing.assert_allclose(found, totals, atol=3 * bound(path, "fp16"), rtol=0)


@pytest.mark.parametrize("path", NAMES)
def test_all_similarities_at_minus_one_are_exact(path: str) -> None:
    rng = np.random.default_rng(2)
    case = random_case(rng, "aosm", num_words=1, dim=64, is_ragged=False, temperature=0.001)
    opposite = -np.repeat(case.panel.parts[0], 12, axis=0).astype(np.float16)
    counts, first = np.full(3, 4, np.int32), np.array([0, 4, 8])
    block = FeatureBlock(opposite, opposite[:3], first, counts)
    totals, _, _ = referee(case, block, None, 4)
    np.testing.assert_allclose(kernel_of(path).prepare(case.panel).totals(block), totals, atol=4e-3, rtol=0)


@pytest.mark.parametrize("path", NAMES)
@pytest.mark.parametrize("scorer", SHARED_SCORERS)
@pytest.mark.parametrize("store", ["fp16", "int8"])
def test_a_segment_that_is_not_a_number_leaves_the_others_alone(path: str, scorer: ScorerName, store: Store) -> None:
    rng = np.random.default_rng(3)
    case = random_case(rng, scorer, num_rows=2, num_words=7, num_slots=5, dim=40)
    block = random_block(rng, np.full(20, 5, np.int32), 40, store)
    query = kernel_of(path).prepare(case.panel)
    before = query.totals(block)
    spoilt = (block.frames, block.pooled) if store == "fp16" else (block.frame_scales, block.pooled_scales)
    for array, at in zip(spoilt, (5 * 8 + 2, 8), strict=True):
        assert array is not None
        array[at] = np.nan
    after = query.totals(block)
    assert np.isnan(after[:, 8]).all()
    others, were = np.delete(after, 8, axis=1), np.delete(before, 8, axis=1)
    np.testing.assert_allclose(others, were, rtol=0, atol=ROUNDING if path == TORCH else 0)


@pytest.mark.parametrize("path", NAMES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 70, 99])
def test_one_number_that_is_not_finite_spoils_its_segment_alone(path: str, value: float, at: int) -> None:
    rng = np.random.default_rng(4)
    case = random_case(rng, "aosm", num_rows=1, num_words=7, num_slots=5, dim=100)
    block = random_block(rng, np.full(20, 5, np.int32), 100, "fp16")
    query = kernel_of(path).prepare(case.panel)
    before = query.totals(block)
    block.frames[5 * 8 + 2, at] = value
    after = query.totals(block)
    assert not np.isfinite(after[:, 8]).any()
    others, were = np.delete(after, 8, axis=1), np.delete(before, 8, axis=1)
    np.testing.assert_allclose(others, were, rtol=0, atol=ROUNDING if path == TORCH else 0)
