"""How wide features are, how they are kept, and how large shards become. Numbers only."""

from __future__ import annotations

from dataclasses import dataclass

from model.kernels.block import Store


@dataclass(frozen=True, slots=True)
class Layout:
    """What all shards of an index have in common."""

    dim: int
    """D, the width of frames."""
    pooled_dim: int
    """P, the width of pooled vectors."""
    num_slots: int
    """F, the most frames of a segment."""
    store: Store = "fp16"


@dataclass(frozen=True, slots=True)
class ShardSizes:
    """When shards are sealed, merged and compacted; tests use small numbers."""

    open_segments: int = 8192
    """An open shard of this size is sealed: until then it is scored in full."""
    shard_segments: int = 65_536
    """Small shards are merged up to this size, and a whole catalogue is read into shards of it."""
    max_dead: float = 0.25
    """A sealed shard with a larger part of dead segments is compacted."""

    @property
    def small_segments(self) -> int:
        """Sealed shards below this size are merged."""
        return self.shard_segments // 2

    @property
    def enough_segments(self) -> int:
        """Small shards are merged once they hold this many together."""
        return self.shard_segments * 7 // 8
