"""How an index decodes and works: numbers that its owner may choose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from indexer import defaults
from indexer.media.sandbox import SandboxLimits
from indexer.pipeline import PipelineConfig
from indexer.worker import WorkerConfig

if TYPE_CHECKING:
    from indexer.media.pyav import Decoder  # the decoders themselves are loaded in the sandbox's process only


@dataclass(frozen=True, slots=True)
class IndexConfig:
    """How an index decodes and works. decode_*: limits of one decoding request; max_query_s: of a clip that is searched
    with; lease_s, heartbeat_s, poll_s: of this index's worker; max_attempts of a job; thumbnail_side in pixels."""

    decoder: Decoder = "pyav"
    decode_timeout_s: float = defaults.DECODE_TIMEOUT_S
    decode_memory_bytes: int = defaults.DECODE_MEMORY_BYTES
    max_segment_s: float = defaults.MAX_SEGMENT_S
    max_video_s: float = defaults.MAX_VIDEO_S
    max_query_s: float = defaults.MAX_QUERY_S
    lease_s: float = defaults.LEASE_S
    heartbeat_s: float = defaults.LEASE_S / defaults.HEARTBEATS_PER_LEASE
    poll_s: float = 0.5
    batch_segments: int = 8
    max_attempts: int = 3
    thumbnail_side: int = 320

    def sandbox_limits(self) -> SandboxLimits:
        """The limits of each decoding process."""
        return SandboxLimits(timeout_s=self.decode_timeout_s, memory_bytes=self.decode_memory_bytes)

    def worker(self) -> WorkerConfig:
        """How this index's workers work."""
        pipeline = PipelineConfig(
            max_segment_s=self.max_segment_s, batch_segments=self.batch_segments, max_video_s=self.max_video_s
        )
        return WorkerConfig(lease_s=self.lease_s, heartbeat_s=self.heartbeat_s, poll_s=self.poll_s, pipeline=pipeline)
