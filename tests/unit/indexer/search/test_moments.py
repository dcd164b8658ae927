"""From frame relevance to the stretches a person is shown."""

from __future__ import annotations

import numpy as np
import pytest

from indexer.records import Moment
from indexer.search.moments import find_moments


def moments_of(*segments: tuple[float, float, list[float]], limit: int = 3) -> tuple[Moment, ...]:
    """Segments as (start_s, end_s, relevance of each of their frames, evenly spread); F = 4."""
    start_s = np.array([start for start, _, _ in segments])
    end_s = np.array([end for _, end, _ in segments])
    times_s = np.zeros((len(segments), 4))
    relevance = np.full((len(segments), 4), -np.inf, dtype=np.float32)
    for row, (start, end, scores) in enumerate(segments):
        times_s[row, : len(scores)] = [start + (end - start) * (f + 0.5) / len(scores) for f in range(len(scores))]
        relevance[row, : len(scores)] = scores
    return find_moments(start_s, end_s, times_s, relevance, limit)


def test_a_single_relevant_frame_is_shown_with_its_cell() -> None:
    (moment,) = moments_of((0.0, 8.0, [0.1, 0.1, 0.9, 0.1]))
    assert (moment.start_s, moment.end_s, moment.best_s) == (4.0, 6.0, 5.0)
    assert moment.score == pytest.approx(0.9)


def test_a_stretch_reaches_over_neighbours_above_half_height_and_over_segments() -> None:
    (moment,) = moments_of((0.0, 8.0, [0.1, 0.1, 0.7, 0.8]), (8.0, 16.0, [0.9, 0.6, 0.1, 0.1]))
    assert (moment.start_s, moment.end_s, moment.best_s) == (4.0, 12.0, 9.0)


def test_two_peaks_are_two_moments_best_first_and_never_overlap() -> None:
    first, second = moments_of((0.0, 8.0, [0.1, 0.8, 0.1, 0.1]), (8.0, 16.0, [0.1, 0.1, 0.1, 0.9]))
    assert (first.best_s, second.best_s) == (15.0, 3.0)
    assert second.end_s <= first.start_s


def test_a_segment_that_was_no_candidate_ends_a_moment() -> None:
    moments = moments_of((0.0, 8.0, [0.9, 0.9, 0.9, 0.9]), (16.0, 24.0, [0.9, 0.9, 0.9, 0.9]))
    assert [(m.start_s, m.end_s) for m in moments] == [(0.0, 8.0), (16.0, 24.0)]


def test_a_video_that_is_relevant_all_along_is_one_moment() -> None:
    (moment,) = moments_of((0.0, 8.0, [0.5, 0.5, 0.5, 0.5]))
    assert (moment.start_s, moment.end_s) == (0.0, 8.0)


def test_padding_and_the_limit_are_respected() -> None:
    assert moments_of((0.0, 2.0, [0.4]))[0].best_s == 1.0
    assert moments_of((0.0, 8.0, [])) == ()
    assert moments_of((0.0, 8.0, [0.9, 0.1, 0.8, 0.1]), limit=0) == ()
    assert len(moments_of((0.0, 8.0, [0.9, 0.1, 0.8, 0.1]), limit=1)) == 1


def test_segments_may_come_in_any_order() -> None:
    late, early = (8.0, 16.0, [0.1, 0.1, 0.1, 0.9]), (0.0, 8.0, [0.1, 0.8, 0.1, 0.1])
    assert moments_of(late, early) == moments_of(early, late)


def test_a_frame_that_began_before_its_segment_is_shown_within_it() -> None:
    times_s = np.array([[7.9, 10.0]])
    (moment,) = find_moments(np.array([8.0]), np.array([12.0]), times_s, np.array([[0.9, 0.1]], dtype=np.float32), 3)
    assert (moment.start_s, moment.end_s, moment.best_s) == (8.0, 9.0, 8.0)
