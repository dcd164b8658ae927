"""Defaults that several layers share: the index's configurations and the service's settings all read them here.

Numbers only: this file imports nothing, so that reading the settings loads no heavy library.
"""

from __future__ import annotations

DECODE_TIMEOUT_S = 60.0
"""Seconds that one decoding request may take."""

DECODE_MEMORY_BYTES = 4 * 2**30
"""Bytes of memory that a decoding process may use."""

DECODE_CHILDREN = 3
"""Processes that decode clip queries and thumbnails."""

QUERY_DECODE_S = 30.0
"""Seconds of decoding for one clip query, and the longest that it waits for a decoding process."""

MAX_SEGMENT_S = 16.0
"""Seconds of the longest segment."""

MAX_VIDEO_S = 6 * 3600.0
"""Seconds of the longest video that is accepted."""

MAX_QUERY_S = 600.0
"""Seconds of the longest clip that may be searched with."""

LEAST_CANDIDATES = 300
"""Segments taken at least from each recall channel to be scored in full."""

CANDIDATES_PER_ROOT = 3.0
"""Segments taken from each recall channel for each square root of the number of segments (docs/experiments.md)."""

CPU_BUDGET_MS = 25.0
"""Milliseconds that scoring everything may take before a search recalls candidates, on a CPU."""

GPU_BUDGET_MS = 10.0
"""The same on a GPU."""

LEASE_S = 30.0
"""Seconds after which another worker takes over the job of a worker that fell silent."""

HEARTBEATS_PER_LEASE = 4
"""How often at least a worker renews its leases before they would expire."""

HEARTBEAT_S = 1.0
"""How often a worker renews its leases and stores its progress, unless leases are so short that more is needed."""

FRAME_BYTES = 256 * 2**20
"""Resized pixels that a worker holds: being read, waiting, and being encoded."""
