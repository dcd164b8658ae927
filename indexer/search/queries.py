"""How a sentence or a clip becomes a query. A clip is read from a file as an indexed video is, or taken from stored
features.

Letters: Q segments of the clip, F frame slots, D width of frames, P width of pooled vectors.
It knows a source of frames, segments and the model's interface; it knows no catalogue and no index.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize

from indexer.catalogue.rows import storable
from indexer.errors import EmptyQuery, InvalidQuery, QueryTooLong, VideoTooLong
from indexer.media.frame_source import FrameSource
from indexer.records import StoredSegment
from indexer.segments import plan_segments
from model.types import VideoFeatures, VideoTextModel

MAX_QUERY_CHARS = 2000
"""Characters of the longest sentence that may be searched for; the model reads fewer, see `query_truncated`."""

SEGMENTS_PER_BATCH = 8
"""Segments decoded before they are encoded."""
BYTES_PER_BATCH = 256 * 2**20
"""Bytes of their resized pixels."""


def checked_text(query: str) -> str:
    """The sentence to encode, without space around it. Raises: EmptyQuery, QueryTooLong."""
    text = storable(query).strip()
    if not text:
        raise EmptyQuery("The query is empty.", "Describe in a few words what the video shows.")
    if len(query) > MAX_QUERY_CHARS:
        raise QueryTooLong(
            f"The query has {len(query)} characters, and {MAX_QUERY_CHARS} are allowed.",
            "Describe what the video shows in a sentence or two.",
        )
    return text


def checked_range(start_s: float | None, end_s: float | None, duration_s: float) -> tuple[float, float]:
    """The range asked for within a video, its end clipped to the video's. Raises: InvalidQuery for an empty one."""
    start = 0.0 if start_s is None else float(start_s)
    end = duration_s if end_s is None else float(end_s)
    if not (math.isfinite(start) and math.isfinite(end)):
        raise InvalidQuery(f"The range {start} s to {end} s isn't made of finite numbers.")
    if start < 0 or start >= end or start >= duration_s:
        raise InvalidQuery(
            f"The range {start:g} s to {end:g} s holds nothing of a video of {duration_s:g} s.",
            "Give 0 <= start_s < end_s, with start_s inside the video.",
        )
    return start, min(end, duration_s)


def clip_features(
    path: Path,
    source: FrameSource,
    model: VideoTextModel,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    max_segment_s: float,
    max_clip_s: float,
) -> VideoFeatures:
    """Decode and encode a file, or a range of it, in segments planned as for the index.

    Returns: features of Q segments. Raises: InvalidQuery for an empty range, VideoTooLong past max_clip_s, MediaError.
    """
    media = source.probe(path)
    start, end = checked_range(start_s, end_s, media.duration_s)
    if end - start > max_clip_s:
        raise VideoTooLong(
            f"The clip lasts {end - start:.1f} s; a query may last {max_clip_s:g} s.",
            "Choose a range within it.",
            path=path,
        )
    plans = plan_segments(end - start, model.spec.num_frames, max_segment_s)
    found: list[VideoFeatures] = []
    segment_bytes = model.resize.image_size**2 * 3 * model.spec.num_frames
    size = max(1, min(SEGMENTS_PER_BATCH, BYTES_PER_BATCH // segment_bytes))
    for batch in (plans[first : first + size] for first in range(0, len(plans), size)):
        read = [source.read_frames(path, [start + t for t in plan.instants_s], model.resize) for plan in batch]
        found.append(model.encode_video([frames.pixels for frames in read]))
    return VideoFeatures(
        torch.cat([features.pooled for features in found]),
        torch.cat([features.frames for features in found]),
        torch.cat([features.mask for features in found]),
    )


def stored_features(
    segments: Sequence[StoredSegment], start_s: float, end_s: float, num_frames: int, device: torch.device
) -> VideoFeatures | None:
    """Stored segments as a query, float32 on `device`; None if no stored frame lies in [start_s, end_s).

    A segment that the range cuts keeps the frames inside; its pooled embedding is then their normalised mean, which
    with a temporal encoder is close to what encoding the range would give, but not equal. Where pooled vectors and
    frames differ in width (CLIP2Video: two side by side) no mean can replace them, and the segment keeps its own: such
    a range is compared by the whole of the segments that it touches.
    """
    cut = [part for segment in segments if (part := _cut(segment, start_s, end_s)) is not None]
    if not cut:
        return None
    pooled = torch.stack([pooled for pooled, _ in cut])
    frames = torch.zeros(len(cut), num_frames, cut[0][1].shape[-1])
    mask = torch.zeros(len(cut), num_frames, dtype=torch.bool)
    for row, (_, inside) in enumerate(cut):
        frames[row, : len(inside)] = inside
        mask[row, : len(inside)] = True
    return VideoFeatures(pooled.to(device), frames.to(device), mask.to(device))


def _cut(segment: StoredSegment, start_s: float, end_s: float) -> tuple[torch.Tensor, torch.Tensor] | None:
    """pooled (P,) and the frames (n, D) of a segment inside the range."""
    features = segment.features
    frames = torch.from_numpy(features.frames.astype(np.float32))
    pooled = torch.from_numpy(features.pooled.astype(np.float32))
    if start_s <= features.start_s and features.end_s <= end_s:
        return pooled, frames
    if features.end_s <= start_s or end_s <= features.start_s:
        return None
    times_s = np.clip(np.array(features.times_s), features.start_s, features.end_s)
    is_inside = (times_s >= start_s) & (times_s < end_s)
    if not is_inside.any():
        return None
    inside = frames[torch.from_numpy(is_inside)]
    if pooled.shape[-1] != frames.shape[-1]:
        return pooled, inside
    return normalize(normalize(inside, dim=-1).sum(0), dim=-1), inside
