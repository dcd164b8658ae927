"""The frames of a dataset's clip, read from its video: the real FrameReader of training and evaluation.

model/sampling.py chooses the frames; here they become instants for the decoder. A frame is requested by the middle of
the time it is shown, so that neither a container's rounding of times nor a drifting rate gives its neighbour: frame i
of a video of f frames/s at (i + 0.5) / f, the k-th of 5 frames a second at (k + 0.5) / 5, which is where FFmpeg's own
`-r 5` changes over.

It knows no catalogue and no dataset's annotations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from indexer.errors import DecodeInterrupted, MediaError
from indexer.media.frame_source import FrameSource
from indexer.records import MediaInfo
from model.datasets.frames import FrameRule
from model.datasets.records import Clip
from model.errors import ClipUnreadable
from model.resize import FrameResize
from model.sampling import clip2video_frames, clip4clip_frames, served_instants
from model.types import Pixels

CLIP2VIDEO_FPS = 5
"""The rate at which the official sample_frame.py extracts frames."""

SLACK_S = 1e-6
"""Rounding of presentation times."""
READING_VERSION = 2
"""Raise it when the same clip gives other pixels than before: cached features are then computed again."""


class ClipFrames:
    """Reads clips by one rule.

    source: decodes, from as many threads as call. resize: the model's own, applied where frames are decoded; None gives
    them as they are.
    """

    def __init__(self, source: FrameSource, rule: FrameRule, resize: FrameResize | None = None) -> None:
        self._source = source
        self._rule = rule
        self._resize = resize

    def __call__(self, path: Path, clip: Clip, num_frames: int, *, jitter_seed: int | None = None) -> Pixels:
        """See `model.datasets.frames.FrameReader`. Raises: ClipUnreadable; SandboxClosed, BackendMissing."""
        try:
            return self._read_again_if_interrupted(path, clip, num_frames, jitter_seed)
        except (MediaError, DecodeInterrupted) as error:
            raise ClipUnreadable(f"clip {clip.id}: {error.describe(folders=False)}", error.hint) from error
        except ValueError as error:
            raise ClipUnreadable(f"clip {clip.id}: {path.name}: {error}.") from error

    def _read_again_if_interrupted(self, path: Path, clip: Clip, num_frames: int, jitter_seed: int | None) -> Pixels:
        """A decoder that was killed from outside ends no evaluation or training of hours: the clip is read again."""
        for is_last_try in (False, True):
            try:
                media = self._source.probe(path)
                return self._read(path, clip_instants(media, clip, self._rule, num_frames, jitter_seed))
            except DecodeInterrupted:
                if is_last_try:
                    raise
        raise AssertionError("unreachable")

    def _read(self, path: Path, instants_s: Sequence[float]) -> Pixels:
        frames = self._source.read_frames(path, instants_s, self._resize)
        if self._rule.choice == "served":  # a frame that is shown for long counts once, as in the index
            return frames.pixels
        rows = np.searchsorted(frames.times_s, np.array(instants_s) + SLACK_S, side="right") - 1
        pixels: Pixels = frames.pixels[np.clip(rows, 0, None)]
        return pixels


def clip_instants(
    media: MediaInfo, clip: Clip, rule: FrameRule, num_frames: int, jitter_seed: int | None = None
) -> tuple[float, ...]:
    """The instants of the clip to read, in seconds, rising: one per frame that the rule chooses, at most num_frames.

    jitter_seed: moves the inner frames of CLIP2Video's choice as its training does; other rules have no jitter.

    Raises: ValueError where the rule finds no frame: the stretch lies behind the end, or fewer than one frame a second.
    """
    start_s = clip.start_s or 0.0
    end_s = media.duration_s if clip.end_s is None else min(clip.end_s, media.duration_s)
    if not start_s < end_s:
        raise ValueError(f"the stretch from {start_s:g} s lies behind the end at {media.duration_s:g} s")
    if rule.choice == "served":
        return served_instants(start_s, end_s, num_frames)
    if rule.choice == "clip2video":
        count = max(1, round((end_s - start_s) * CLIP2VIDEO_FPS))
        jitter = None if jitter_seed is None else np.random.RandomState(jitter_seed)
        places = clip2video_frames(count, num_frames, divisor=rule.divisor, jitter=jitter) or (0,)
        return tuple(start_s + (place + 0.5) / CLIP2VIDEO_FPS for place in places)
    frame_count = max(1, round(media.duration_s * media.fps))
    first_s, last_s = _whole_seconds(clip)
    indices = clip4clip_frames(
        frame_count, media.fps, num_frames, frames_per_s=rule.frames_per_s, start_s=first_s, end_s=last_s
    )
    if not indices:
        raise ValueError(f"no frame of {frame_count} lies in the stretch from {start_s:g} s")
    return tuple((index + 0.5) / media.fps for index in indices)


def _whole_seconds(clip: Clip) -> tuple[int | None, int | None]:
    """The official loaders count in whole seconds: outwards, and at least one."""
    first_s = None if clip.start_s is None else math.floor(clip.start_s)
    if clip.end_s is None:
        return first_s, None
    return first_s or 0, max(math.ceil(clip.end_s), (first_s or 0) + 1)
