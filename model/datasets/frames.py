"""How the frames of a clip are chosen, and what reads them for training and evaluation. It opens no file.

model/ knows no decoder: the reader is handed in, indexer/media/clip_frames.py has the real one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from model.datasets.records import Clip
from model.types import Pixels

FrameChoice = Literal["served", "clip4clip", "clip2video"]


@dataclass(frozen=True, slots=True)
class FrameRule:
    """Which frames of a clip a model is shown; model/sampling.py does the counting."""

    choice: FrameChoice = "served"
    """served: the middles of F equal parts, as the service indexes.
    clip4clip: `frames_per_s`, or F of those spread evenly if there are more (X-CLIP does the same).
    clip2video: every `divisor`-th of 5 frames per second, F of those spread evenly."""
    frames_per_s: int = 1
    """For clip4clip: frames taken from each second of the integer frame rate."""
    divisor: int = 1
    """For clip2video: its `feature_framerate`."""


class FrameReader(Protocol):
    """Reads the frames of a clip; calls may come from several threads."""

    def __call__(self, path: Path, clip: Clip, num_frames: int, *, jitter_seed: int | None = None) -> Pixels:
        """n frames in order of time, 1 <= n <= num_frames, of the clip's stretch of the video at path.

        jitter_seed: for training; a rule that moves its frames in training (clip2video) moves them by it.

        Raises: ClipUnreadable if this clip's video can't be used; callers count those and name them.
        """
        ...
