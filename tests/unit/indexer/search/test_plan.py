"""Which plan a search takes, and what it costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from indexer.records import RecallMode
from indexer.search.plan import SAMPLE_COPIES, SAMPLE_SEGMENTS, Costs, Plan, choose, sample_block
from model.kernels.block import FeatureBlock, Rows


def plan(asked: RecallMode, num_allowed: int, segment_us: float = 1.0, **options: Any) -> Plan:
    given: dict[str, Any] = {"can_recall": True, "few": 100} | options
    return choose(asked, num_allowed, lambda: segment_us, 2, 25.0, **given)


@pytest.mark.parametrize(
    ("asked", "num_allowed", "options", "mode", "reason"),
    [
        ("auto", 40_000, {}, "exact", "Within the budget of 25 ms: 40,000 segments would take about 20 ms."),
        ("auto", 60_000, {}, "ann", "Beyond the budget of 25 ms: 60,000 segments would take about 30 ms."),
        ("auto", 60_000, {"can_recall": False}, "exact", "No part of the library has a coarse index: 60,000 segments."),
        ("ann", 60_000, {"can_recall": False}, "exact", "No part of the library has a coarse index: 60,000 segments."),
        ("exact", 60_000, {}, "exact", "As asked: 60,000 segments."),
        ("ann", 10, {}, "ann", "As asked; scoring all 10 segments would take about 0.005 ms."),
        ("auto", 0, {}, "exact", "Few enough to score them all: 0 segments."),
    ],
)
def test_the_plan_follows_the_cost(
    asked: RecallMode, num_allowed: int, options: dict[str, Any], mode: str, reason: str
) -> None:
    found = plan(asked, num_allowed, **options)
    assert (found.mode, found.reason) == (mode, reason)


def test_few_segments_are_scored_without_measuring_the_cost() -> None:
    def measured() -> float:
        raise AssertionError("measured")

    assert choose("auto", 100, measured, 2, 0.0, can_recall=True, few=100).mode == "exact"
    with pytest.raises(AssertionError):
        choose("auto", 101, measured, 2, 0.0, can_recall=True, few=100)


class _Counting:
    """A scorer that notes how many segments it is asked for."""

    name, names = "counting", ("one",)
    takes_whole_blocks = False

    def __init__(self, *, reads_in_place: bool) -> None:
        self.reads_in_place = reads_in_place
        self.asked: list[int] = []

    def totals(self, block: FeatureBlock, rows: Rows | None) -> Any:
        self.asked.append(len(block) if rows is None else len(rows))
        return np.zeros((1, self.asked[-1]), np.float32)

    def grains(self, block: FeatureBlock, rows: Rows) -> Any:
        raise NotImplementedError

    def relevance(self, block: FeatureBlock, rows: Rows) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(("reads_in_place", "size"), [(True, SAMPLE_SEGMENTS), (False, SAMPLE_COPIES)])
def test_a_cost_is_measured_once_for_each_kind_of_query(reads_in_place: bool, size: int) -> None:
    costs, scorer = Costs(8, 16, 3), _Counting(reads_in_place=reads_in_place)
    first = costs.segment_us("mean", scorer)
    assert first > 0 and scorer.asked == [size] * 4
    assert costs.segment_us("mean", scorer) == first and len(scorer.asked) == 4
    costs.segment_us("aosm", scorer)
    assert len(scorer.asked) == 8 and set(costs.measured()) == {"mean", "aosm"}


def test_the_sample_is_like_a_shard() -> None:
    block = sample_block(8, 16, 3)
    assert len(block) == SAMPLE_SEGMENTS and block.frames.shape == (3 * SAMPLE_SEGMENTS, 8)
    assert block.pooled.shape == (SAMPLE_SEGMENTS, 16)
    np.testing.assert_allclose(np.linalg.norm(block.frames.astype(np.float32), axis=1), 1, atol=2e-3)
