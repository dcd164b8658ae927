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
    """A stretch of a video, and sentences that describe it.

    id: unique in its split. video: the file's name without its suffix, or with it; may stand below a sub-folder
    ("a/b"). aliases: other names the file may go by. start_s, end_s: the stretch; None for the video's own ends.
    """

    id: str
    video: str
    captions: tuple[str, ...]
    start_s: float | None = None
    end_s: float | None = None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Split:
    """The clips of one split in their fixed order.

    is_multi_caption: which figures it is measured by; False: clip i has one caption, and it is text i.
    without_captions: videos that the split's list names and the caption file doesn't know; they are left out.
    """

    dataset: str
    name: SplitName
    clips: tuple[Clip, ...]
    is_multi_caption: bool
    without_captions: tuple[str, ...] = ()

    @property
    def pairs(self) -> list[tuple[int, str]]:
        """(clip's position, caption) of each text: what training goes through once an epoch."""
        return [(position, caption) for position, clip in enumerate(self.clips) for caption in clip.captions]

    @property
    def video_of_text(self) -> NDArray[np.int64]:
        """(T,) the clip's position of each text."""
        counts = [len(clip.captions) for clip in self.clips]
        return np.repeat(np.arange(len(counts), dtype=np.int64), counts)

    @property
    def num_captions(self) -> int:
        """T."""
        return sum(len(clip.captions) for clip in self.clips)

    def only(self, clip_ids: Collection[str]) -> Split:
        """This split with these clips alone, in the same order: what is left when videos are missing."""
        kept = clip_ids if isinstance(clip_ids, set | frozenset | Mapping) else frozenset(clip_ids)
        return replace(self, clips=tuple(clip for clip in self.clips if clip.id in kept))


@dataclass(frozen=True, slots=True)
class VideoFiles:
    """The files of a split's clips. missing: ids of clips without a file, in order.

    ambiguous: ids of clips that several files fit; the one nearest to the top of the folder was taken, of those the
    first by name.
    """

    paths: Mapping[str, Path]
    missing: tuple[str, ...]
    ambiguous: tuple[str, ...] = ()
