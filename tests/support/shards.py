"""An index with tiny shards over a catalogue in memory, with files and upkeep that are run by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.shards.shard import SealedShard
from indexer.shards.sizes import Layout, ShardSizes
from indexer.shards.snapshot import CoarseMaker, Snapshots
from indexer.shards.upkeep import Upkeep
from indexer.shards.view import FoundRows
from indexer.vectors import VectorIndex
from model.kernels.block import Store
from tests.support.shelf import MemoryShelf, random_features

DIM, SLOTS = 16, 4
TINY = ShardSizes(open_segments=8, shard_segments=32)


class FakeCoarse:
    """Knows how many segments it was built from."""

    def __init__(self, num_segments: int) -> None:
        self.num_segments = num_segments

    def parts(self) -> Mapping[str, NDArray[np.uint8]]:
        return {"count": np.frombuffer(self.num_segments.to_bytes(8, "little"), np.uint8)}

    def by_pooled(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None) -> FoundRows:
        raise NotImplementedError

    def by_frames(self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None) -> FoundRows:
        raise NotImplementedError


FAKE_COARSE = CoarseMaker(
    build=lambda shard: FakeCoarse(len(shard)),
    open=lambda parts: FakeCoarse(int.from_bytes(parts["count"].tobytes(), "little")),
)


class Library:
    """A catalogue, the vectors over it, their files and their upkeep. `again` opens the same folder once more."""

    def __init__(
        self,
        folder: Path,
        shelf: MemoryShelf | None = None,
        *,
        store: Store = "fp16",
        fingerprint: str = "model",
        coarse: CoarseMaker | None = FAKE_COARSE,
        sizes: ShardSizes = TINY,
    ) -> None:
        self.folder = folder
        self.shelf = shelf or MemoryShelf()
        self.rng = np.random.default_rng(0)
        layout = Layout(DIM, DIM, SLOTS, store)
        self.snapshots = Snapshots(folder, layout, fingerprint, coarse)
        self.vectors = VectorIndex(DIM, SLOTS, store=store, sizes=sizes, snapshots=self.snapshots)
        self.upkeep = Upkeep(
            self.vectors.shards,
            coarse=coarse,
            snapshots=self.snapshots,
            renew_token=self.shelf.renew_shard_token,
            forget=self.vectors.forget,
            poll_s=0.001,
            retry_s=0.0,
        )

    @property
    def sealed(self) -> tuple[SealedShard, ...]:
        """The sealed shards."""
        return self.vectors.shards.sealed

    @property
    def num_mapped(self) -> int:
        """How many of them are mapped from files."""
        return sum(shard.backing is not None for shard in self.sealed)

    def publish(self, *video_ids: str, num_segments: int = 2) -> None:
        """Make videos searchable, or replace their features."""
        for video_id in video_ids:
            self.shelf.publish(video_id, random_features(self.rng, num_segments))

    def follow(self) -> None:
        """Catch up with the catalogue."""
        self.vectors.follow(self.shelf)

    def kept(self) -> None:
        """Catch up, and do all upkeep."""
        self.follow()
        self.upkeep.run_once()

    def close(self) -> None:
        """Let others write."""
        self.upkeep.stop()

    def again(self, **options: object) -> Library:
        """The same folder and catalogue after a restart."""
        self.close()
        library = Library(self.folder, self.shelf, **options)  # type: ignore[arg-type]
        library.follow()
        return library


class CountedShelf(MemoryShelf):
    """Counts the videos whose features are read."""

    num_read = 0

    def videos(self, first_number: int, last_number: int):  # type: ignore[no-untyped-def]
        for video in super().videos(first_number, last_number):
            self.num_read += 1
            yield video
