"""What is measured: clips with their texts and the way to their frames, in one form for every dataset.

Letters: T texts, V clips. Here a dataset's split, or the drawn shapes, becomes an `EvaluationSet`. It decodes nothing:
the reader of frames is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.datasets.frames import FrameReader, FrameRule
from model.datasets.load import dataset_of
from model.datasets.records import Clip, Split
from model.datasets.shapes import SLICES, Item, held_out
from model.types import Pixels

ClipReader = Callable[[int], Pixels]
"""F -> the frames of one clip, n of them, 1 <= n <= F, of any size. Raises: ClipUnreadable."""

Identity = Mapping[str, str | int | float | None]
"""What a clip's frames depend on: its file, its stretch and the rule; plain JSON values."""

SHAPES = "shapes"


@dataclass(frozen=True, slots=True)
class MeasuredClip:
    """A clip, its texts and its frames. identity: None where features aren't to be kept on disk."""

    id: str
    texts: tuple[str, ...]
    read: ClipReader
    identity: Identity | None = None
    slices: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """The clips in their order, and how they are measured.

    is_multi_caption: every caption is a query, and a clip's captions are one group; else clip i has the one text i.
    num_words W and num_frames F are the protocol's; None where a model's own are meant. slices: names that clips carry.
    """

    dataset: str
    split: str
    clips: tuple[MeasuredClip, ...]
    frame_rule: FrameRule
    is_paragraph: bool = False
    is_multi_caption: bool = False
    num_words: int | None = None
    num_frames: int | None = None
    slices: tuple[str, ...] = ()

    @property
    def texts(self) -> list[str]:
        """All captions of all clips, in order: T."""
        return [text for clip in self.clips for text in clip.texts]

    @property
    def video_of_text(self) -> NDArray[np.int64]:
        """(T,) the position of each text's clip."""
        return np.repeat(np.arange(len(self.clips), dtype=np.int64), [len(clip.texts) for clip in self.clips])

    def members(self, name: str) -> NDArray[np.bool_]:
        """(V,) which clips belong to a slice."""
        return np.array([name in clip.slices for clip in self.clips])

    def only(self, clip_ids: Collection[str]) -> EvaluationSet:
        """This set with these clips alone."""
        return replace(self, clips=tuple(clip for clip in self.clips if clip.id in clip_ids))


def set_of_split(
    split: Split, paths: Mapping[str, Path], reader: FrameReader, rule: FrameRule, *, reading: str = ""
) -> EvaluationSet:
    """A dataset's split over the files that were found; clips without one are left out: callers count them.

    rule: by which the reader chooses. reading: names what else the pixels depend on, for the cache. The protocol is the
    dataset's own; of users' own videos the model's.
    """
    row = dataset_of(split.dataset)
    return EvaluationSet(
        split.dataset,
        split.name,
        tuple(_measured(clip, paths[clip.id], reader, rule, reading) for clip in split.clips if clip.id in paths),
        rule,
        row.is_paragraph,
        split.is_multi_caption,
        None if row.is_own else row.num_words,
        None if row.is_own else row.num_frames,
    )


def set_of_shapes(items: Sequence[Item] | None = None) -> EvaluationSet:
    """The held-out drawn shapes, all 1,000, or `items`; they are drawn as they are read."""
    chosen = held_out() if items is None else items
    clips = tuple(
        MeasuredClip(
            str(number),
            (item.sentence,),
            item.pixels,
            slices=frozenset(name for name, belongs in SLICES.items() if belongs(item)),
        )
        for number, item in enumerate(chosen)
    )
    return EvaluationSet(SHAPES, "test", clips, FrameRule("served"), slices=tuple(SLICES))


def _measured(clip: Clip, path: Path, reader: FrameReader, rule: FrameRule, reading: str) -> MeasuredClip:
    identity: Identity | None
    try:
        about = path.stat()
        identity = {
            "path": str(path.resolve()),
            "size_bytes": about.st_size,
            "mtime_ns": about.st_mtime_ns,
            "start_s": clip.start_s,
            "end_s": clip.end_s,
            **asdict(rule),
            "reading": reading,
        }
    except OSError:  # the reader will report what is wrong with it
        identity = None
    return MeasuredClip(clip.id, clip.captions, partial(reader, path, clip), identity)
