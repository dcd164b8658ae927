"""What a dataset consists of: clips with captions, splits of them, and where their videos were found. Data only.

Letters: T texts (all captions of all clips, in order), V clips. Times are seconds from a video's first frame.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

SplitName = Literal["train", "val", "test"]
SPLIT_NAMES: tuple[SplitName, ...] = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Clip:
    """A stretch of a video, and sentences that describe it."""

    id: str
    """Unique in its split."""
    video: str
    """The file's name, with or without its suffix; it may be in a sub-folder ("a/b")."""
    captions: tuple[str, ...]
    start_s: float | None = None
    """None: the start of the video."""
    end_s: float | None = None
    """None: the end of the video."""
    aliases: tuple[str, ...] = ()
    """Other names that the file may have."""


@dataclass(frozen=True, slots=True)
class Split:
    """The clips of one split in their fixed order."""

    dataset: str
    name: SplitName
    clips: tuple[Clip, ...]
    is_multi_caption: bool
    """Decides how it is measured; False: clip i has one caption, which is text i."""
    without_captions: tuple[str, ...] = ()
    """Videos on the split's list that have no captions; they are left out."""

    @property
    def pairs(self) -> list[tuple[int, str]]:
        """(clip's position, caption) of each text: training uses each once per epoch."""
        return [(position, caption) for position, clip in enumerate(self.clips) for caption in clip.captions]

    @property
    def video_of_text(self) -> NDArray[np.int64]:
        """(T,) the position of each text's clip."""
        counts = [len(clip.captions) for clip in self.clips]
        return np.repeat(np.arange(len(counts), dtype=np.int64), counts)

    @property
    def num_captions(self) -> int:
        """T."""
        return sum(len(clip.captions) for clip in self.clips)

    def only(self, clip_ids: Collection[str]) -> Split:
        """This split with only these clips, in the same order, for when videos are missing."""
        kept = clip_ids if isinstance(clip_ids, set | frozenset | Mapping) else frozenset(clip_ids)
        return replace(self, clips=tuple(clip for clip in self.clips if clip.id in kept))


@dataclass(frozen=True, slots=True)
class VideoFiles:
    """The files of a split's clips."""

    paths: Mapping[str, Path]
    """By the clip's id."""
    missing: tuple[str, ...]
    """Ids of clips without a file, in order."""
    ambiguous: tuple[str, ...] = ()
    """Ids of clips that several files fit; the one nearest to the top of the folder was taken, then the first."""
