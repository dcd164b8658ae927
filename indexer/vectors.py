"""The features of every video that can be found, in memory, kept up with the catalogue.

They lie in shards (indexer/shards). Everything here is derived: thrown away and read again from the catalogue at no
loss. It knows no model, no SQL and no scoring.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import chain
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from indexer.records import PublishedVideo, VideoChange
from indexer.shards.open_shard import fits
from indexer.shards.rows import among, same_features
from indexer.shards.shard import SealedShard
from indexer.shards.shard_set import Knowledge, ShardSet
from indexer.shards.sizes import Layout, ShardSizes
from indexer.shards.snapshot import Snapshots
from indexer.shards.view import IndexView
from model.kernels.block import Store

FEED_PAGE = 1000
"""Changes read from the catalogue at once."""
SEGMENTS_PER_BATCH = 1024
"""Segments read before they are shown: bounds what a large change needs besides the shards."""

Numbers = NDArray[np.int64]


class Snapshot(Protocol):
    """What is needed of a catalogue at one moment."""

    def last_seq(self) -> int: ...
    def published(self) -> NDArray[np.int64]: ...
    def videos(self, first_number: int, last_number: int) -> Iterator[PublishedVideo]: ...
    def changes(self, after_seq: int, limit: int = ...) -> Sequence[VideoChange]: ...
    def num_stored(self) -> int: ...
    def shard_tokens(self) -> Sequence[str]: ...


class Feed(Protocol):
    """A catalogue that can be looked at."""

    def last_seq(self) -> int: ...
    def snapshot(self) -> AbstractContextManager[Snapshot]: ...


class VectorIndex:
    """Shards that keep up with a catalogue. Safe to share by threads: many search a view, one follows."""

    def __init__(
        self,
        dim: int,
        num_frames: int,
        *,
        pooled_dim: int | None = None,
        store: Store = "fp16",
        sizes: ShardSizes = ShardSizes(),  # noqa: B008
        snapshots: Snapshots | None = None,
    ) -> None:
        """dim: D. num_frames: F. pooled_dim: P, D if not given. store: how features are kept in memory.

        snapshots: files of shards to open with, in place of the catalogue where they are up to date.
        """
        self.shards = ShardSet(Layout(dim, pooled_dim or dim, num_frames, store), sizes)
        self._snapshots = snapshots
        self._following = threading.Lock()
        self._damaged: dict[int, PublishedVideo] = {}
        self._is_loaded = False
        """Whether the files of shards have been opened, as far as they could be."""
        self._is_open = False
        """Whether everything has been read once."""

    def view(self) -> IndexView:
        """Everything that can be searched at this moment: a search holds one view from its start to its end."""
        return self.shards.view

    @property
    def generation(self) -> int:
        """The newest change of the catalogue that is in here."""
        return self.view().generation

    @property
    def num_segments(self) -> int:
        """Segments that can be found."""
        return self.view().num_segments

    @property
    def num_videos(self) -> int:
        """Videos that can be found."""
        return self.view().num_videos

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Videos left out because their features can't be read: id -> why."""
        return self.view().unreadable

    @property
    def num_lost(self) -> int:
        """Stored segments that no video of the change feed claims: more than 0 only in a damaged catalogue."""
        return self.view().num_lost

    @property
    def is_whole(self) -> bool:
        """Whether everything that is stored could be read."""
        return self.view().is_whole

    def describe(self) -> dict[str, Any]:
        """For people: shards with their sizes, how much memory they take, and how far upkeep has come."""
        sealed, view = self.shards.sealed, self.view()
        return {
            "store": self.shards.layout.store,
            "segments": [shard.num_live for shard in view.shards],
            "dead": sum(len(shard) - shard.num_live for shard in view.shards),
            "sealed": len(sealed),
            "mapped": sum(shard.backing is not None for shard in sealed),
            "coarse": sum(shard.coarse is not None for shard in sealed),
            "bytes": sum(shard.block.size_bytes for shard in view.shards),
        }

    def follow(self, catalogue: Feed) -> int:
        """Catch up with the catalogue and return the seq reached; one short query where nothing changed.

        A video whose stored features are damaged, or not all there, is left out and named in `unreadable`.
        """
        with self._following:
            if self._is_open and catalogue.last_seq() == self.generation:
                return self.generation
            with catalogue.snapshot() as now:
                if self._is_open:
                    while page := now.changes(self.generation, FEED_PAGE):
                        self._follow_page(now, page)
                else:
                    self._open(now)
                    self._is_open = True
            return self.generation

    def forget(self, shard: SealedShard) -> None:
        """Drop a shard whose features turned out to be damaged; `follow` reads its videos from the catalogue again."""
        with self._following:
            self.shards.drop(shard)
            self._is_open = False

    def _open(self, now: Snapshot) -> None:
        """Read everything that isn't held; what an earlier try had read before it failed is."""
        published = now.published()
        numbers = published[:, 0]
        if self._snapshots is not None and not self._is_loaded:
            self._is_loaded = True
            self.shards.start(self._snapshots.load(now.shard_tokens(), published))
        held = self.shards.held()
        is_held = same_features(numbers, published[:, 1], held)[1]
        gone = held[~among(held[:, 0], numbers), 0]
        self.shards.expect(int(published[~is_held, 2].sum()))
        try:
            self._read(now, _runs(np.flatnonzero(~is_held), numbers), gone, self._known(), is_opening=True)
        finally:
            self.shards.expect(0)
        num_missing = sum(video.num_segments for video in self._damaged.values())
        num_lost = max(0, now.num_stored() - self.num_segments - num_missing)
        self.shards.change(_NONE, (), Knowledge(now.last_seq(), self._reasons(), num_lost))

    def _follow_page(self, now: Snapshot, page: Sequence[VideoChange]) -> None:
        """Take over some changes; the generation rises with the last of them."""
        numbers = np.array([change.number for change in page], dtype=np.int64)
        is_live = np.array([change.is_live for change in page])
        seqs = np.array([change.features_seq for change in page], dtype=np.int64)
        for number in numbers.tolist():
            self._damaged.pop(number, None)
        wanted = np.sort(numbers[is_live & (self.shards.held_seqs(numbers) != seqs)])
        known = replace(self._known(), generation=page[-1].seq)
        self._read(now, _runs(wanted), numbers[~is_live], known)

    def _read(
        self,
        now: Snapshot,
        runs: Sequence[tuple[int, int]],
        gone: Numbers,
        known: Knowledge,
        *,
        is_opening: bool = False,
    ) -> None:
        """Read videos in batches and show them; the last one shows together with the removals and what is known.

        runs: the first and last number of each stretch of videos to read.
        """
        sizes = self.shards.sizes
        seal_at = max(sizes.open_segments, sizes.shard_segments - SEGMENTS_PER_BATCH) if is_opening else None
        batch: list[PublishedVideo] = []
        num_segments = 0
        damaged: list[int] = []
        for video in chain.from_iterable(now.videos(first, last) for first, last in runs):
            video = self._checked(video)
            if video.damage is not None:
                self._damaged[video.number] = video
                damaged.append(video.number)
                continue
            batch.append(video)
            num_segments += len(video.segments)
            if num_segments >= SEGMENTS_PER_BATCH:
                self.shards.change(_NONE, batch, self._known(), seal_at=seal_at)
                batch, num_segments = [], 0
        gone = np.concatenate([gone, np.array(damaged, dtype=np.int64)])
        self.shards.change(gone, batch, replace(known, unreadable=self._reasons()), seal_at=seal_at)

    def _checked(self, video: PublishedVideo) -> PublishedVideo:
        if video.damage is not None or fits(video.segments, self.shards.layout):
            return video
        return replace(video, damage=f"The features of video {video.video_id!r} don't fit the model.")

    def _known(self) -> Knowledge:
        view = self.view()
        return Knowledge(view.generation, view.unreadable, view.num_lost)

    def _reasons(self) -> dict[str, str]:
        return {video.video_id: video.damage or "" for video in self._damaged.values()}


_NONE: Numbers = np.empty(0, dtype=np.int64)


def _runs(places: Numbers, numbers: Numbers | None = None) -> list[tuple[int, int]]:
    """Sorted places -> the first and last of each stretch without gaps, as numbers if their list is given."""
    if not len(places):
        return []
    ends = np.flatnonzero(np.diff(places) != 1)
    first, last = np.append(places[0], places[ends + 1]), np.append(places[ends], places[-1])
    if numbers is not None:
        first, last = numbers[first], numbers[last]
    return list(zip(first.tolist(), last.tolist(), strict=True))
