"""Segments: whole if short, equal windows if long."""

from __future__ import annotations

import pytest

from indexer.segments import plan_segments


def test_a_short_video_is_one_segment() -> None:
    (plan,) = plan_segments(10.0, 4)
    assert (plan.start_s, plan.end_s) == (0.0, 10.0)
    assert plan.instants_s == (1.25, 3.75, 6.25, 8.75)


def test_exactly_the_limit_is_one_segment() -> None:
    assert len(plan_segments(16.0, 2)) == 1


def test_a_long_video_is_cut_into_equal_windows() -> None:
    plans = plan_segments(40.0, 2, max_segment_s=16.0)
    assert [round(p.end_s - p.start_s, 9) for p in plans] == [round(40 / 3, 9)] * 3


@pytest.mark.parametrize("duration_s", [0.0, -1.0, float("nan"), float("inf")])
def test_no_duration_is_refused(duration_s: float) -> None:
    with pytest.raises(ValueError, match="can't be cut"):
        plan_segments(duration_s, 4)
