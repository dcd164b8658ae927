"""How an index decodes and works: numbers that its owner may choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from indexer import defaults
from indexer.indexing.pipeline import PipelineConfig
from indexer.indexing.worker import WorkerConfig
from indexer.machine import memory_bytes, num_cores
from indexer.media.pool import THUMBNAIL_LANE, LaneLimits
from indexer.media.sandbox import DecodeSandbox, SandboxLimits
from indexer.records import Sampling
from model.kernels.block import Store

if TYPE_CHECKING:
    from indexer.media.reading import Decoder  # the decoders themselves are loaded in the sandbox's process only

DecodeDevice = Literal["cpu", "cuda"]

CLIPS_WAITING = 4
"""Clip queries that may wait for a decode child."""


@dataclass(frozen=True, slots=True)
class IndexConfig:
    """How an index decodes and works."""

    decoder: Decoder = "pyav"
    """The library that decodes."""
    sampling: Sampling = "exact"
    """Which frames indexing reads."""
    decode_device: DecodeDevice = "cpu"
    """Where an indexing worker decodes."""
    device_environment: Mapping[str, str] = field(default_factory=dict)
    """Environment variables by which a decoding process finds that device."""
    decode_timeout_s: float = defaults.DECODE_TIMEOUT_S
    """Longest decoding request."""
    decode_memory_bytes: int = defaults.DECODE_MEMORY_BYTES
    """Memory of one decoding process."""
    decode_children: int = defaults.DECODE_CHILDREN
    """Processes that decode clip queries and thumbnails."""
    query_decode_s: float = defaults.QUERY_DECODE_S
    """Decoding of one clip query in all, and how long it waits for a process."""
    max_segment_s: float = defaults.MAX_SEGMENT_S
    """Longest segment."""
    max_video_s: float = defaults.MAX_VIDEO_S
    """Longest video."""
    max_query_s: float = defaults.MAX_QUERY_S
    """Longest clip to search with."""
    store: Store = "fp16"
    """How features are kept in memory."""
    exact_budget_ms: float | None = None
    """How long a search may take to score everything before it recalls; None for the default of the device."""
    lease_s: float = defaults.LEASE_S
    """Silence after which a job is taken from its worker."""
    heartbeat_s: float = defaults.HEARTBEAT_S
    """How often a worker renews its leases and stores its progress; more often where leases are short."""
    poll_s: float = 0.5
    """Pause of an idle worker."""
    worker_decoders: int | None = None
    """Decoding processes of an indexing worker; None for one for each of its cores, as far as memory allows."""
    worker_cores: int | None = None
    """Cores that a worker's encoding and decoding share; None for those that it may run on."""
    batch_segments: int | None = None
    """Segments encoded together at most; None for what suits the device."""
    max_attempts: int = 3
    """How often a job is tried."""
    thumbnail_side: int = 320
    """Longer side of a thumbnail, in pixels."""

    def sandbox_limits(self) -> SandboxLimits:
        """The limits of each decoding process."""
        return SandboxLimits(timeout_s=self.decode_timeout_s, memory_bytes=self.decode_memory_bytes)

    def clip_lane(self) -> LaneLimits:
        """The limits of clip queries: few wait, and one child is left to thumbnails."""
        return LaneLimits(
            max_running=max(1, self.decode_children - 1),
            max_waiting=CLIPS_WAITING,
            patience_s=self.query_decode_s,
            budget_s=self.query_decode_s,
        )

    @property
    def num_clip_places(self) -> int:
        """Clip queries that may run or wait at once; more are refused with DecodeBusy."""
        return self.clip_lane().num_places(self.decode_children)

    @property
    def num_thumbnail_places(self) -> int:
        """Thumbnails that may be made or wait at once; more are refused with DecodeBusy."""
        return THUMBNAIL_LANE.num_places(self.decode_children)

    def worker_children(self) -> list[DecodeSandbox]:
        """Decode children for an indexing worker, which start when they are needed.

        As many as the worker has cores, but no more than half of the memory can hold at their limit. A codec takes one
        thread: several files side by side cost less than one file by several threads.
        """
        cores = self.worker_cores or num_cores()
        num = self.worker_decoders or max(1, min(cores, memory_bytes() // 2 // self.decode_memory_bytes))
        is_cuda = self.decode_device == "cuda"
        environment = self.device_environment if is_cuda else None
        return [
            DecodeSandbox(self.decoder, self.sandbox_limits(), threads=1, hardware=is_cuda, environment=environment)
            for _ in range(num)
        ]

    def worker(self) -> WorkerConfig:
        """How this index's workers work."""
        pipeline = PipelineConfig(
            max_segment_s=self.max_segment_s,
            max_video_s=self.max_video_s,
            sampling=self.sampling,
            batch_segments=self.batch_segments,
            num_cores=self.worker_cores,
        )
        heartbeat_s = min(self.heartbeat_s, self.lease_s / defaults.HEARTBEATS_PER_LEASE)
        return WorkerConfig(lease_s=self.lease_s, heartbeat_s=heartbeat_s, poll_s=self.poll_s, pipeline=pipeline)
