"""Which instants or frames of a video a model looks at: what we serve, and the official choices that papers report.

Letters: F frame slots. Plain numbers in, plain numbers out; it opens no file.
Sources: CLIP4Clip at revision 508ffa3 (X-CLIP's is the same), CLIP2Video at revision e941318.
"""

from __future__ import annotations

from math import ceil
from typing import Literal

import numpy as np

Cut = Literal["head", "tail", "uniform"]
"""What to keep of too many frames; the official `slice_framepos` 0, 1 and 2."""


def served_instants(start_s: float, end_s: float, num_frames: int) -> tuple[float, ...]:
    """The midpoints of F equal parts of [start_s, end_s), in seconds, rising.

    Raises: ValueError if the stretch is empty or num_frames is below 1.
    """
    if not end_s > start_s or num_frames < 1:
        raise ValueError(f"{num_frames} instants of {start_s} s to {end_s} s can't be chosen")
    part_s = (end_s - start_s) / num_frames
    return tuple(start_s + (slot + 0.5) * part_s for slot in range(num_frames))


def clip4clip_frames(
    frame_count: int,
    fps: float,
    max_frames: int,
    *,
    frames_per_s: int = 1,
    cut: Cut = "uniform",
    start_s: int | None = None,
    end_s: int | None = None,
) -> tuple[int, ...]:
    """The frames that the official CLIP4Clip and X-CLIP loaders put into a clip, as 0-based indices in order.

    frame_count: frames that can be decoded; fps is cut to an integer, so that 29.97 drifts, as officially.
    start_s and end_s are whole seconds, end_s included. Shorter answers than max_frames are padded by the caller.
    Raises: ValueError if the fps are below frames_per_s, or start_s isn't before end_s.
    """
    whole_fps = int(fps)
    if whole_fps < max(1, frames_per_s):
        raise ValueError(f"a video of {fps} frames/s can't give {frames_per_s} frames per second")
    if start_s is not None and end_s is not None and start_s >= end_s:
        raise ValueError(f"the stretch from {start_s} s to {end_s} s is empty")
    total_s = ceil(frame_count / whole_fps)
    first_s = start_s or 0
    last_s = total_s if end_s is None else min(end_s, total_s)
    step = max(1, whole_fps // frames_per_s)
    indices: list[int] = []
    for second in range(first_s, last_s + 1):
        for slot in range(frames_per_s):
            index = second * whole_fps + slot * step
            if index >= frame_count:
                return _cut(indices, max_frames, cut)
            indices.append(index)
    return _cut(indices, max_frames, cut)


def clip2video_frames(
    num_files: int, max_frames: int, *, divisor: int = 1, jitter: np.random.RandomState | None = None
) -> tuple[int, ...]:
    """The frames that CLIP2Video takes of num_files extracted ones (5 per second officially), as 0-based positions.

    divisor: the official `feature_framerate`, 2 for MSR-VTT, 1 for MSVD and VATEX. jitter: the random state of
    training, which moves the inner entries; None in evaluation.
    """
    count = num_files // divisor
    chosen = _spread(num_files, count)
    if count <= max_frames:
        return tuple(chosen.tolist())
    places = _spread(count, max_frames)
    half = (places[1] - places[0]) // 2 if max_frames > 1 else 0
    if jitter is not None and half > 2:
        places[1:-1] += jitter.randint(-half, half, size=max_frames - 2)
    return tuple(chosen[places].tolist())


def _cut(indices: list[int], max_frames: int, cut: Cut) -> tuple[int, ...]:
    if len(indices) <= max_frames:
        return tuple(indices)
    if cut == "head":
        return tuple(indices[:max_frames])
    if cut == "tail":
        return tuple(indices[-max_frames:])
    return tuple(indices[place] for place in _spread(len(indices), max_frames).tolist())


def _spread(length: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """`count` places over 0..length-1, both ends included, cut to integers."""
    return np.linspace(0, length - 1, num=count, dtype=np.int64)
