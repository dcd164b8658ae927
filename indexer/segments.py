"""Cuts a video's duration into segments: whole if short, equal windows that tile it if long.

It knows no file and no pixel; model.sampling chooses the instants of a segment that are read.
"""

from __future__ import annotations

import math
from itertools import pairwise

from indexer.records import SegmentPlan
from model.sampling import served_instants


def plan_segments(duration_s: float, num_frames: int, max_segment_s: float = 16.0) -> tuple[SegmentPlan, ...]:
    """Segments that tile [0, duration_s) in order, each at most max_segment_s seconds, with num_frames instants inside.

    Raises: ValueError for a duration or limit that isn't a positive time.
    """
    if not (math.isfinite(duration_s) and duration_s > 0 and max_segment_s > 0):
        raise ValueError(f"{duration_s} s can't be cut into segments of at most {max_segment_s} s")
    num = max(1, math.ceil(duration_s / max_segment_s * (1 - 1e-12)))
    edges = [duration_s * i / num for i in range(num)] + [duration_s]
    return tuple(
        SegmentPlan(start_s, end_s, served_instants(start_s, end_s, num_frames)) for start_s, end_s in pairwise(edges)
    )
