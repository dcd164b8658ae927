"""All shards of an index: one open, the others sealed; every change shows at once, by one assignment.

The thread that reads the catalogue adds and removes; another may put a merged, compacted or mapped shard in the place
of sealed ones. Searches read `view`, without a lock. A change costs what its shards cost, whatever else is held.
It knows no catalogue, no file and no FAISS.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from indexer.records import PublishedVideo
from indexer.shards.open_shard import OpenShard
from indexer.shards.shard import Mask, SealedShard, only_live, sealed, without
from indexer.shards.sizes import Layout, ShardSizes
from indexer.shards.view import IndexView, SegmentTable, ShardView, VideoTable
from model.kernels.block import FeatureBlock


@dataclass(frozen=True, slots=True)
class _Open:
    """The open shard at one moment: its memory goes on, its parts and live bits stay."""

    memory: OpenShard
    segments: SegmentTable
    videos: VideoTable
    block: FeatureBlock
    is_live: Mask | None
    num_live: int
    num_videos: int
    """Live ones."""

    @staticmethod
    def of(memory: OpenShard) -> _Open:
        """An empty one."""
        return _Open(memory, *memory.parts(), None, 0, 0)

    def __len__(self) -> int:
        return len(self.block)

    def find(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows of live videos, -1 for those that aren't here."""
        return only_live(self.memory.find(numbers), self.is_live, self.videos)

    def changed(self, gone: NDArray[np.int64], new: Sequence[PublishedVideo]) -> _Open:
        """The shard without some videos, by number, and with new ones, in the same memory."""
        found = self.find(gone)
        rows, is_live, num_gone = found[found >= 0], self.is_live, 0
        if len(rows):
            is_live, num_gone = without(is_live, len(self), self.videos, rows)
        self.memory.append(new)
        num_new = len(self.memory) - len(self)
        if is_live is not None and num_new:
            is_live = np.concatenate([is_live, np.ones(num_new, dtype=np.bool_)])
            is_live.flags.writeable = False
        return _Open(
            self.memory,
            *self.memory.parts(),
            is_live,
            self.num_live - num_gone + num_new,
            self.num_videos - len(rows) + len(new),
        )

    def view(self) -> ShardView:
        """What a search reads."""
        return ShardView(self.segments, self.videos, self.block, self.is_live, self.num_live, None)


@dataclass(frozen=True, slots=True)
class _State:
    """What is held at one moment."""

    sealed: tuple[SealedShard, ...]
    open: _Open
    view: IndexView


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What is known of the catalogue besides the features."""

    generation: int = 0
    """The newest change of the catalogue that is in here."""
    unreadable: Mapping[str, str] | None = None
    """Videos left out because their features can't be read: id -> why."""
    num_lost: int = 0
    """Stored segments that no video claims."""


class ShardSet:
    """Thread-safe."""

    def __init__(self, layout: Layout, sizes: ShardSizes) -> None:
        self.layout = layout
        self.sizes = sizes
        self._changing = threading.Lock()
        self._expected = 0
        self._state = self._empty(())

    @property
    def view(self) -> IndexView:
        """All shards now; it stays as it is."""
        return self._state.view

    @property
    def sealed(self) -> tuple[SealedShard, ...]:
        """The sealed shards now."""
        return self._state.sealed

    def start(self, shards: Sequence[SealedShard]) -> None:
        """Drop everything that is held and start with these shards."""
        with self._changing:
            self._state = self._empty(shards)

    def expect(self, num_segments: int) -> None:
        """Make room for that many new segments at once, a shard at most; memory that isn't written costs nothing."""
        with self._changing:
            self._expected = min(num_segments, self.sizes.shard_segments)
            if not len(self._state.open):
                self._state = replace(self._state, open=self._new_open())

    def held(self) -> NDArray[np.int64]:
        """All live videos, in order of number. (V, 2): number, features_seq."""
        state = self._state
        tables = [(shard.parts.videos, shard.is_live) for shard in state.sealed]
        tables.append((state.open.videos, state.open.is_live))
        is_live = [np.ones(len(v.numbers), np.bool_) if live is None else live[v.first_row] for v, live in tables]
        numbers = np.concatenate([v.numbers[live] for (v, _), live in zip(tables, is_live, strict=True)])
        seqs = np.concatenate([v.features_seq[live] for (v, _), live in zip(tables, is_live, strict=True)])
        order = np.argsort(numbers, kind="stable")
        return np.stack([numbers[order], seqs[order]], axis=1)

    def held_seqs(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The features_seq of live videos by number, 0 for those that aren't held."""
        state = self._state
        seqs = np.zeros(len(numbers), dtype=np.int64)
        for shard in state.sealed:
            if not shard.parts.may_have(numbers):
                continue
            rows = shard.find(numbers)
            seqs[rows >= 0] = shard.parts.videos.features_seq[rows[rows >= 0]]
        rows = state.open.find(numbers)
        seqs[rows >= 0] = state.open.videos.features_seq[rows[rows >= 0]]
        return seqs

    def change(
        self,
        gone: NDArray[np.int64],
        new: Sequence[PublishedVideo],
        knowledge: Knowledge,
        *,
        seal_at: int | None = None,
    ) -> None:
        """Remove videos by number, and any older features of the new ones; add the new ones.

        seal_at: the size at which the open shard is sealed, if not the usual one.
        """
        with self._changing:
            state = self._state
            numbers = np.union1d(gone, np.array([video.number for video in new], dtype=np.int64))
            opened = state.open.changed(numbers, new)
            changed = replace(state, sealed=tuple(shard.without(numbers) for shard in state.sealed), open=opened)
            if len(opened) >= (self.sizes.open_segments if seal_at is None else seal_at):
                changed = self._with_sealed_open(changed)
            self._state = replace(changed, view=_view(changed, knowledge))

    def swap(self, old: Sequence[SealedShard], build: Callable[[Sequence[SealedShard]], SealedShard | None]) -> bool:
        """Put what `build` makes in the place of sealed shards.

        build: gets the shards as they are now, with removals since, and must be quick; None: they leave no shard.
        Returns False and changes nothing if one of them is no longer held.
        """
        keys = [shard.key for shard in old]
        with self._changing:
            state = self._state
            now = {shard.key: shard for shard in state.sealed}
            if not all(key in now for key in keys):
                return False
            made = build([now[key] for key in keys])
            shards: list[SealedShard] = []
            for shard in state.sealed:
                if shard.key not in keys:
                    shards.append(shard)
                elif shard.key == keys[0] and made is not None:
                    shards.append(made)
            changed = replace(state, sealed=tuple(shards))
            self._state = replace(changed, view=_view(changed, _knowledge(changed.view)))
            return True

    def drop(self, shard: SealedShard) -> None:
        """Take a shard out; what is held is behind the catalogue until it has been read again."""
        with self._changing:
            left = tuple(other for other in self._state.sealed if other.key != shard.key)
            changed = replace(self._state, sealed=left)
            self._state = replace(changed, view=_view(changed, replace(_knowledge(changed.view), generation=0)))

    def _new_open(self) -> _Open:
        return _Open.of(OpenShard(self.layout, self._expected))

    def _empty(self, shards: Sequence[SealedShard]) -> _State:
        state = _State(tuple(shards), self._new_open(), _NOTHING)
        return replace(state, view=_view(state, Knowledge()))

    def _with_sealed_open(self, state: _State) -> _State:
        opened = state.open
        shard = sealed(opened.segments, opened.videos, opened.block, opened.is_live)
        shards = (*state.sealed, shard) if shard.num_live else state.sealed
        return replace(state, sealed=shards, open=self._new_open())


_NOTHING = IndexView((), 0, 0, 0, {}, 0)


def _knowledge(view: IndexView) -> Knowledge:
    return Knowledge(view.generation, view.unreadable, view.num_lost)


def _view(state: _State, knowledge: Knowledge) -> IndexView:
    shards = [shard.view for shard in state.sealed]
    if len(state.open):
        shards.append(state.open.view())
    return IndexView(
        tuple(shards),
        knowledge.generation,
        sum(shard.num_live for shard in shards),
        sum(shard.num_videos for shard in state.sealed) + state.open.num_videos,
        dict(knowledge.unreadable or {}),
        knowledge.num_lost,
    )
