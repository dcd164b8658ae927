"""What a step is given: clips and sentences of its rows, as tensors; and where they come from.

Letters: N rows of one rank, F frame slots, W words, S image side. The rows of a step follow from the seed and the step
alone, and not from how many processes share them: a run that is resumed at a step, also on another number of GPUs, sees
what it would have seen. It knows no network and no optimiser; frames of files come through a FrameReader.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.backbone import Backbone
from model.datasets.frames import FrameReader
from model.datasets.records import Split
from model.datasets.shapes import training_batches
from model.errors import ClipUnreadable, DatasetError
from model.types import Pixels

MAX_SUBSTITUTES = 20
"""So many clips in a row that can't be read end the training."""

Item = TypeVar("Item")
Made = TypeVar("Made")
Each = Callable[[Callable[[Item], Made], Iterable[Item]], Iterator[Made]]
"""map, or the same done by several threads."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """N clips of at most F resized frames each, and their sentences."""

    clips: Sequence[Pixels]
    sentences: Sequence[str]


class PairSource(Protocol):
    """Gives the rows of any step. Calls may come from several threads."""

    @property
    def steps_per_epoch(self) -> int | None:
        """None for data without end."""
        ...

    def load(self, step: int, rows: range, each: Each[int, tuple[Pixels, str]]) -> Pairs:
        """These rows of the global batch of a step; `each` may spread the work. Raises: DatasetError."""
        ...


@dataclass(frozen=True, slots=True)
class Batch:
    """N pairs of a clip and a text, on the CPU."""

    frames: Tensor
    """(N, F, S, S, 3) uint8, zeros where `frame_mask` is False."""
    frame_mask: Tensor
    """(N, F) bool."""
    ids: Tensor
    """(N, W) tokens."""
    word_mask: Tensor
    """(N, W) bool, True from start to end."""

    def pinned(self) -> Batch:
        """In memory from which a GPU can copy while it computes."""
        return Batch(*(x.pin_memory() for x in (self.frames, self.frame_mask, self.ids, self.word_mask)))


def collate(pairs: Pairs, backbone: Backbone, num_words: int, num_frames: int) -> Batch:
    """Pairs -> tensors, padded to F and W."""
    side = backbone.image_size
    frames = torch.zeros(len(pairs.clips), num_frames, side, side, 3, dtype=torch.uint8)
    mask = torch.zeros(len(pairs.clips), num_frames, dtype=torch.bool)
    for row, pixels in enumerate(pairs.clips):
        frames[row, : len(pixels)] = torch.from_numpy(pixels)
        mask[row, : len(pixels)] = True
    ids, word_mask, *_ = backbone.tokenize(pairs.sentences, num_words)
    return Batch(frames, mask, ids, word_mask)


class ShapesPairs:
    """The drawn shapes: endless, each step's scenes from the seed and the step."""

    def __init__(self, batch_size: int, num_frames: int, size: int, seed: int) -> None:
        self._batch_size, self._num_frames, self._size, self._seed = batch_size, num_frames, size, seed

    @property
    def steps_per_epoch(self) -> int | None:
        """None."""
        return None

    def load(self, step: int, rows: range, each: Each[int, tuple[Pixels, str]]) -> Pairs:
        """See `PairSource`. A rank draws the whole batch and keeps its rows: hard negatives stay side by side."""
        seed = int(np.random.SeedSequence([self._seed, step]).generate_state(1, np.uint64)[0])
        clips, sentences = next(training_batches(self._batch_size, self._num_frames, self._size, seed))
        return Pairs([clips[row] for row in rows], [sentences[row] for row in rows])


class SplitPairs:
    """A dataset's training split: every (clip, caption) once an epoch in an order of the epoch's own; what doesn't fill
    a batch is left out of that epoch.

    A clip that can't be read is reported once, and the pair that another step of the epoch has there takes its place;
    which one follows from the files, so that a resumed run does the same.
    """

    def __init__(
        self,
        split: Split,
        paths: Mapping[str, Path],
        reader: FrameReader,
        *,
        batch_size: int,
        num_frames: int,
        seed: int,
        on_unreadable: Callable[[ClipUnreadable, int], None],
    ) -> None:
        """Raises: DatasetError if the pairs don't fill one batch."""
        self._split, self._paths, self._reader = split, paths, reader
        self._pairs = split.pairs
        self._batch_size, self._num_frames, self._seed = batch_size, num_frames, seed
        self._on_unreadable = on_unreadable
        self._unreadable: set[str] = set()
        if len(self._pairs) < batch_size:
            raise DatasetError(
                f"{split.dataset} {split.name} has {len(self._pairs)} pairs of clip and caption with a video; "
                f"a batch takes {batch_size}.",
                "Lower [run] batch_size, or see which videos are missing.",
            )

    @property
    def steps_per_epoch(self) -> int | None:
        """Whole batches in the split."""
        return len(self._pairs) // self._batch_size

    def load(self, step: int, rows: range, each: Each[int, tuple[Pixels, str]]) -> Pairs:
        """See `PairSource`. Raises: DatasetError where too many clips in a row can't be read."""
        num_steps = len(self._pairs) // self._batch_size
        epoch, place = divmod(step, num_steps)
        order = _order(len(self._pairs), self._seed, epoch)

        def read(row: int) -> tuple[Pixels, str]:
            elsewhere = [((place + turn) % num_steps) * self._batch_size + row for turn in range(num_steps)]
            behind = range(elsewhere[0] + 1, elsewhere[0] + MAX_SUBSTITUTES)  # a small split has too few other steps
            for at in [*elsewhere, *behind][:MAX_SUBSTITUTES]:
                number = int(order[at % len(order)])
                pixels = self._pixels(number, epoch, step)
                if pixels is not None:
                    return pixels, self._pairs[number][1]
            raise DatasetError(
                f"{MAX_SUBSTITUTES} clips in a row can't be read, the last of them "
                f"{self._split.clips[self._pairs[number][0]].id}.",
                "Check the videos; vidgrain doctor lists what decodes here.",
            )

        read_rows = list(each(read, rows))
        return Pairs([pixels for pixels, _ in read_rows], [sentence for _, sentence in read_rows])

    def _pixels(self, number: int, epoch: int, step: int) -> Pixels | None:
        clip = self._split.clips[self._pairs[number][0]]
        if clip.id in self._unreadable:
            return None
        try:
            jitter_seed = int(np.random.SeedSequence([self._seed, epoch, number]).generate_state(1)[0])
            return self._reader(self._paths[clip.id], clip, self._num_frames, jitter_seed=jitter_seed)
        except ClipUnreadable as error:
            self._unreadable.add(clip.id)
            self._on_unreadable(error, step)
            return None


@lru_cache(maxsize=4)
def _order(num_pairs: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(num_pairs)
