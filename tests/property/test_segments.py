"""Segments tile a video exactly, whatever its duration."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.segments import plan_segments


@settings(deadline=None)
@given(
    duration_s=st.floats(min_value=0.001, max_value=4_000),
    num_frames=st.integers(1, 64),
    max_segment_s=st.floats(min_value=2.0, max_value=600),
)
def test_segments_tile_the_video(duration_s: float, num_frames: int, max_segment_s: float) -> None:
    plans = plan_segments(duration_s, num_frames, max_segment_s)
    assert plans[0].start_s == 0.0
    assert plans[-1].end_s == duration_s
    assert all(a.end_s == b.start_s for a, b in pairwise(plans))
    for plan in plans:
        assert 0 < plan.end_s - plan.start_s <= max_segment_s * (1 + 1e-9)
        assert len(plan.instants_s) == num_frames
        assert plan.start_s <= plan.instants_s[0]
        assert plan.instants_s[-1] < plan.end_s
        assert all(a < b for a, b in pairwise(plan.instants_s))


@settings(deadline=None)
@given(num=st.integers(1, 500), max_segment_s=st.floats(min_value=0.5, max_value=60))
def test_whole_multiples_make_no_extra_segment(num: int, max_segment_s: float) -> None:
    assert len(plan_segments(num * max_segment_s, 4, max_segment_s)) == num
