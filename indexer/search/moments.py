"""From how much each frame supports a query to the stretches that are shown to a person.

Letters: V segments of one video, F frame slots, N real frames.
Every frame stands for a cell of time, from halfway to the frame before it to halfway to the next, within its segment.
A moment is a run of adjacent cells above half height: halfway from the video's own background to its best frame. So
moments never overlap, and a video that supports the query throughout is one moment.
It knows arrays of one video; it knows no model, no index and no file.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from indexer.records import Moment

BACKGROUND_QUANTILE = 0.25
"""A video's background is the lower quartile of its frames: a query that fills half of the video still stands out."""
TOUCHING_S = 1e-3
"""Cells closer than this touch; neighbouring segments meet at one instant up to rounding."""


def find_moments(
    start_s: NDArray[np.float64],
    end_s: NDArray[np.float64],
    times_s: NDArray[np.float64],
    relevance: NDArray[np.float32],
    limit: int,
) -> tuple[Moment, ...]:
    """The best stretches of one video, best first; on a tie the earlier one.

    Shapes:  start_s, end_s (V,) of its segments; times_s (V, F); relevance (V, F), not finite where there is no frame.
    Returns: at most `limit` moments; score is the relevance of the best frame. A segment that is not given (it was not
             a candidate) ends a moment.
    """
    if limit <= 0:
        return ()
    cells = _cells(start_s, end_s, times_s, relevance)
    if not len(cells):
        return ()
    scores = cells[:, 3]
    background = _quantile(scores, BACKGROUND_QUANTILE)
    is_high = scores >= background + (float(scores.max()) - background) / 2
    touches = np.abs(cells[1:, 0] - cells[:-1, 1]) <= TOUCHING_S
    goes_on = np.concatenate([[False], is_high[:-1] & touches])
    starts = np.flatnonzero(is_high & ~goes_on)
    ends = np.flatnonzero(is_high & ~np.append(goes_on[1:] & is_high[1:], False)) + 1
    highest = np.maximum.reduceat(np.append(scores, -np.inf), np.stack([starts, ends], axis=1).ravel())[::2]
    chosen = np.lexsort((starts, -highest))[:limit]
    return tuple(_moment(cells[starts[run] : ends[run]]) for run in chosen)


def _moment(cells: NDArray[np.float64]) -> Moment:
    """A run of adjacent cells as it is shown."""
    best = cells[int(cells[:, 3].argmax())]
    return Moment(start_s=float(cells[0, 0]), end_s=float(cells[-1, 1]), best_s=float(best[2]), score=float(best[3]))


def _quantile(values: NDArray[np.float64], share: float) -> float:
    """As np.quantile, which takes longer for a few hundred values than the rest of a moment."""
    ordered = np.sort(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (ordered[high] - ordered[low]) * (place - low))


def _cells(
    start_s: NDArray[np.float64],
    end_s: NDArray[np.float64],
    times_s: NDArray[np.float64],
    relevance: NDArray[np.float32],
) -> NDArray[np.float64]:
    """(N, 4) in order of time: the start and the end of each frame's cell, the frame's own time, its relevance.

    The frame shown at a segment's start may have begun before it: its time is clipped to the segment.
    """
    order = np.argsort(start_s, kind="stable")
    is_real = np.isfinite(relevance[order])
    segments = order[np.nonzero(is_real)[0]]
    start_s, end_s = start_s[segments], end_s[segments]
    times = np.clip(times_s[order][is_real], start_s, end_s)
    cells = np.empty((len(times), 4))
    cells[:, 0], cells[:, 1], cells[:, 2], cells[:, 3] = start_s, end_s, times, relevance[order][is_real]
    inside = np.flatnonzero(segments[1:] == segments[:-1])
    cells[inside, 1] = cells[inside + 1, 0] = (times[inside + 1] + times[inside]) / 2
    return cells
