"""The Triton kernel gives the referee's scores: on a GPU, or without one under Triton's interpreter.

The interpreter must be asked for before triton is imported, so tests/unit/model/kernels/test_triton_kernel.py runs this
file in a process of its own; the suite's process skips it where there is no GPU.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from model.kernels.aosm_reference import Mixing
from model.kernels.block import FeatureBlock, Store, gather, quantize
from model.kernels.panel import MixingArrays, Panel
from model.kernels.triton_kernel import TritonKernel, load
from model.shared_scorers import SHARED_SCORERS, Parts, frame_relevance, shared_score

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = pytest.mark.skipif(not (IS_INTERPRETED or torch.cuda.is_available()), reason="no GPU here")

TOLERANCE: dict[Store, float] = {"fp16": 1e-3, "int8": 1.5e-3}
Case = dict[str, Any]
Random = np.random.Generator


def kernel(**options: Any) -> TritonKernel:
    found = load(torch.device("cpu" if IS_INTERPRETED else "cuda"), **options)
    assert found is not None
    return found


def block_of(counts: list[int], width: int, store: Store, rng: Random, length: float = 1.0) -> FeatureBlock:
    """Segments whose frames resemble one another, as real ones do."""
    pooled = unit(rng.normal(size=(len(counts), width)))
    frames = unit(np.repeat(pooled, counts, 0) + rng.normal(size=(sum(counts), width)) * 0.7 / width**0.5) * length
    first = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    if store == "fp16":
        return FeatureBlock(frames.astype(np.float16), pooled.astype(np.float16), first, np.array(counts, np.int32))
    (frames8, frame_scales), (pooled8, pooled_scales) = quantize(frames), quantize(pooled)
    return FeatureBlock(frames8, pooled8, first, np.array(counts, np.int32), frame_scales, pooled_scales)


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def query_of(
    block: FeatureBlock, lengths: list[int], words: int, slots: int, rng: Random, spread: float, **kind: Any
) -> tuple[Panel, Mixing]:
    """Queries near some segments of the block, so that scores differ; spread: how far mixing is from the identity."""
    width = block.pooled.shape[1]
    near = gather(block, rng.integers(0, len(block), len(lengths)), 1).pooled
    whole = unit(near + rng.normal(size=near.shape) / width**0.5)
    parts = unit(near[:, None] + rng.normal(size=(len(lengths), words, width)) * 1.5 / width**0.5)
    mask = np.arange(words)[None, :] < np.array(lengths)[:, None]
    if words > 2:
        mask[:, 1] &= np.array(lengths) < 2  # as the start token: no part of the score
    sizes = dict.fromkeys(("sentence_DD", "local_DD"), width) | {
        name: words if name.startswith("words") else slots for name in Mixing._fields if "_DD" not in name
    }
    mixing = Mixing()
    if spread:
        noise = {name: rng.normal(size=(size, size)) * spread / size**0.5 for name, size in sizes.items()}
        mixing = Mixing(**{name: torch.from_numpy(np.eye(len(x)) + x).float() for name, x in noise.items()})
    arrays = {name[:-3]: None if x is None else x.numpy() for name, x in mixing._asdict().items() if "_DD" not in name}
    through = [np.eye(width) if x is None else x.numpy() for x in (mixing.sentence_DD, mixing.local_DD)]
    panel = Panel(
        scorer="aosm",
        whole=whole,
        whole_mixed=(whole @ through[0]).astype(np.float32),
        parts=parts,
        parts_local=(parts @ through[1]).astype(np.float32),
        mask=mask,
        mixing=MixingArrays(**arrays),
        temperature=0.01,
        **kind,
    )
    return panel, mixing


def referee(panel: Panel, mixing: Mixing, block: FeatureBlock, rows: np.ndarray, slots: int) -> tuple[Any, Any, Any]:
    """Totals, grains and relevance of the rows."""
    dense = gather(block, rows, slots)
    frames = torch.from_numpy(dense.frames)
    given = Parts(
        torch.from_numpy(panel.whole),
        torch.from_numpy(panel.parts),
        torch.from_numpy(panel.mask),
        torch.from_numpy(dense.pooled),
        frames if panel.has_unit_frames else normalize(frames, dim=-1),
        torch.from_numpy(dense.mask),
        panel.parts_are_frames,
    )
    found = shared_score(panel.scorer, given, mixing, panel.temperature)
    return found.total.numpy(), found.grains.numpy(), frame_relevance(given).numpy()


@st.composite
def cases(draw: st.DrawFn) -> Case:
    slots = draw(st.sampled_from([1, 3, 12, 16, 20]))
    words = draw(st.sampled_from([1, 5, 15, 16, 40]))
    counts = draw(st.lists(st.integers(1, slots), min_size=1, max_size=20))
    lengths = draw(st.lists(st.integers(1, words), min_size=1, max_size=5))
    return {
        "slots": slots,
        "words": words,
        "counts": counts,
        "lengths": lengths,
        "width": draw(st.sampled_from([32, 40, 128, 512])),
        "store": draw(st.sampled_from(["fp16", "int8"])),
        "spread": draw(st.sampled_from([0.0, 0.1, 0.3])),
        "temperature": draw(st.sampled_from([0.01, 0.05, 1.0])),
        "rows": draw(st.none() | st.lists(st.integers(0, len(counts) - 1), min_size=1, max_size=9)),
        "seed": draw(st.integers(0, 2**20)),
    }


@pytest.mark.parametrize("scorer", SHARED_SCORERS)
@settings(max_examples=8 if IS_INTERPRETED else 60, deadline=None)
@given(case=cases())
def test_scores_are_those_of_the_referee(scorer: str, case: Case) -> None:
    rng = np.random.default_rng(case["seed"])
    block = block_of(case["counts"], case["width"], case["store"], rng)
    panel, mixing = query_of(block, case["lengths"], case["words"], case["slots"], rng, case["spread"])
    panel = replace(panel, scorer=scorer, temperature=case["temperature"])
    rows = None if case["rows"] is None else np.array(case["rows"])
    scored = np.arange(len(block)) if rows is None else rows
    total, grains, relevance = referee(panel, mixing, block, scored, case["slots"])
    query = kernel().prepare(panel)
    bound = TOLERANCE[case["store"]] * max(1.0, float(np.abs(grains).max()))
    np.testing.assert_allclose(query.totals(block, rows), total, atol=bound, rtol=0)
    if rows is not None:
        np.testing.assert_allclose(query.grains(block, rows), grains, atol=2 * bound, rtol=0)
        np.testing.assert_allclose(query.relevance(block, rows, case["slots"]), relevance, atol=1e-4, rtol=0)


def test_similarities_from_minus_one_to_one_lose_nothing() -> None:
    """Softmaxes at 0.01 over cosines 2 apart: one shared exponential would underflow for every word of a frame."""
    rng = np.random.default_rng(3)
    block = block_of([4, 2, 1, 4], 64, "fp16", rng)
    frames = block.frames.copy()
    frames[1::2] = -frames[0]
    block = replace(block, frames=frames)
    panel, mixing = query_of(block, [6, 3], 6, 4, rng, 0.3)
    parts = unit(frames[0].astype(np.float32) + rng.normal(size=panel.parts.shape) * 0.01)
    panel = replace(panel, parts=parts, parts_local=parts @ mixing.local_DD.numpy())
    total, grains, _ = referee(panel, mixing, block, np.arange(4), 4)
    found = kernel().prepare(panel)
    np.testing.assert_allclose(found.totals(block), total, atol=1e-3)
    np.testing.assert_allclose(found.grains(block, np.arange(4)), grains, atol=2e-3)


@pytest.mark.parametrize("scorer", SHARED_SCORERS)
def test_a_segment_of_nan_scores_nan_and_no_other_does(scorer: str) -> None:
    rng = np.random.default_rng(5)
    block = block_of([3, 3, 2, 3], 32, "fp16", rng)
    panel, mixing = query_of(block, [4], 4, 3, rng, 0.2)
    panel = replace(panel, scorer=scorer)
    total = referee(panel, mixing, block, np.arange(4), 3)[0]
    block.frames[3:6] = np.nan
    block.pooled[1] = np.nan
    found = kernel().prepare(panel)
    assert np.isnan(found.totals(block)).tolist() == [[False, True, False, False]]
    np.testing.assert_allclose(found.totals(block)[0, [0, 2, 3]], total[0, [0, 2, 3]], atol=1e-3)
    assert found.top(block, None, 4).rows[0, 3] == -1


@pytest.mark.parametrize("store", ["fp16", "int8"])
def test_raw_frames_are_scored_as_unit_vectors(store: Store) -> None:
    rng = np.random.default_rng(6)
    block = block_of([3, 1, 5], 40, store, rng, length=9.0)
    panel, mixing = query_of(block, [5], 5, 5, rng, 0.0, has_unit_frames=False)
    for scorer in SHARED_SCORERS:
        panel = replace(panel, scorer=scorer)
        total, _, relevance = referee(panel, mixing, block, np.arange(3), 5)
        query = kernel().prepare(panel)
        np.testing.assert_allclose(query.totals(block), total, atol=TOLERANCE[store])
        np.testing.assert_allclose(query.relevance(block, np.arange(3), 5), relevance, atol=2e-3)


def test_a_clips_relevance_counts_its_best_frame_too() -> None:
    rng = np.random.default_rng(7)
    block = block_of([3, 4, 2], 32, "fp16", rng)
    panel, mixing = query_of(block, [3, 4], 4, 4, rng, 0.0, parts_are_frames=True)
    rows = np.array([2, 0])
    relevance = referee(panel, mixing, block, rows, 4)[2]
    np.testing.assert_allclose(kernel().prepare(panel).relevance(block, rows, 4), relevance, atol=1e-4)


def test_the_best_come_in_order_by_segment_and_by_video() -> None:
    rng = np.random.default_rng(8)
    block = block_of([3] * 23, 32, "fp16", rng)
    panel, _ = query_of(block, [4, 2, 3], 4, 3, rng, 0.0)
    query = kernel().prepare(panel)
    totals = query.totals(block)
    best = query.top(block, None, 5)
    np.testing.assert_array_equal(best.rows, np.argsort(-totals, axis=1)[:, :5])
    np.testing.assert_array_equal(best.totals, np.take_along_axis(totals, best.rows, 1))
    videos = np.arange(23, dtype=np.int32) // 4
    rows = np.arange(1, 23, 2)
    best = query.top(block, rows, 9, videos)
    for row, (found, scores) in enumerate(zip(best.rows, best.totals, strict=True)):
        wanted = {v: max(rows[videos[rows] == v], key=lambda n: totals[row, n]) for v in set(videos[rows])}
        ranked = sorted(wanted.values(), key=lambda n: -totals[row, n])
        assert found.tolist() == ranked and scores == pytest.approx(totals[row, ranked])


def test_nothing_to_score_gives_nothing() -> None:
    rng = np.random.default_rng(9)
    block = block_of([2, 2], 32, "fp16", rng)
    panel, _ = query_of(block, [2], 2, 2, rng, 0.0)
    nothing = np.empty(0, np.int64)
    query = kernel().prepare(panel)
    assert query.totals(block, nothing).shape == (1, 0)
    assert query.grains(block, nothing).shape == (1, 0, 4)
    assert query.relevance(block, nothing, 2).shape == (1, 0, 2)
    assert query.top(block, nothing, 5).rows.shape == (1, 0)
