"""What the index speaks of: videos, segments, jobs, search options and answers. Data only.

A video (a file added) is cut into segments (stretches with F frame slots each); a moment is what a person is shown.
Times are seconds as floats: of a video from its first frame, of the world as UTC epoch seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

JobStatus = Literal["queued", "running", "succeeded", "failed", "cancelled"]
JobStage = Literal["queued", "probe", "encode", "publish", "done"]
VideoStatus = Literal["pending", "ready", "failed"]
OnDuplicate = Literal["skip", "replace", "error"]
RecallMode = Literal["ann", "exact"]


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What `probe` finds. width and height in pixels as displayed (rotation applied); rotation_deg clockwise, of
    {0, 90, 180, 270}."""

    duration_s: float
    fps: float
    width: int
    height: int
    rotation_deg: int
    codec: str
    container: str
    has_audio: bool


@dataclass(frozen=True, slots=True)
class Frames:
    """Frames read at instants: pixels (n, height, width, 3) uint8 sRGB upright; times_s (n,) float64, the
    presentation time of each frame, strictly rising. Instants that fall on one frame give it once, so n <= asked."""

    pixels: NDArray[np.uint8]
    times_s: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SegmentPlan:
    """A stretch of a video [start_s, end_s) and the instants at which its frames are to be read."""

    start_s: float
    end_s: float
    instants_s: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class SegmentFeatures:
    """A segment ready to be stored: times_s (n,) of its n <= F real frames, pooled (P,), frames (n, D) float16."""

    start_s: float
    end_s: float
    times_s: tuple[float, ...]
    pooled: NDArray[np.float16]
    frames: NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class StoredSegment:
    """A segment as the catalogue gives it back."""

    id: int
    video_id: str
    position: int
    features: SegmentFeatures


@dataclass(frozen=True, slots=True)
class Video:
    """A file added. `media` is None until it was probed. `error_*` say why status is "failed"."""

    id: str
    sha256: str
    title: str
    path: Path
    is_managed: bool
    size_bytes: int
    metadata: Mapping[str, Any]
    status: VideoStatus
    created_at: float
    indexed_at: float | None
    num_segments: int
    media: MediaInfo | None
    mtime_ns: int | None = None
    error_code: str | None = None
    error_message: str | None = None

    @property
    def file_name(self) -> str:
        """What to call the file to a person: its name, or the title where the index keeps it under its digest."""
        return f"{self.title.replace('/', '-')}{self.path.suffix}" if self.is_managed else self.path.name


@dataclass(frozen=True, slots=True)
class VideoChange:
    """The newest change of a video."""

    seq: int
    video_id: str
    num_segments: int
    """How many segments it has to search; 0: drop those that are held."""

    @property
    def is_live(self) -> bool:
        """Whether it has segments to search."""
        return self.num_segments > 0


@dataclass(frozen=True, slots=True)
class Job:
    """A durable unit of indexing. progress in segments; lease_expires_at of a running job."""

    id: str
    kind: Literal["index_video"]
    video_id: str
    status: JobStatus
    stage: JobStage
    progress_done: int
    progress_total: int
    attempt: int
    max_attempts: int
    created_at: float
    started_at: float | None
    finished_at: float | None
    error_code: str | None
    error_message: str | None
    owner: str | None = None
    lease_expires_at: float | None = None
    is_cancel_requested: bool = False


@dataclass(frozen=True, slots=True)
class AddResult:
    """What became of a file that was added."""

    video_id: str
    job_id: str
    """The job to follow; for a duplicate its last job, unless another was queued."""
    is_duplicate: bool
    """Whether the content was known already."""


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """How to search. candidates: segments taken from each recall channel to be reranked. `filter` as in filters.py.
    scorer: by name, one of the model's (model/scorers.py); None takes its default."""

    top_k: int = 10
    moments_per_video: int = 3
    recall: RecallMode = "ann"
    candidates: int = 200
    filter: Mapping[str, Any] | None = None
    video_ids: tuple[str, ...] | None = None
    include_self: bool = False
    scorer: str | None = None


@dataclass(frozen=True, slots=True)
class Moment:
    """A stretch to show. best_s is the time of the frame that supports the query most."""

    start_s: float
    end_s: float
    best_s: float
    score: float


@dataclass(frozen=True, slots=True)
class Hit:
    """A video found. score of its best segment; grains: the parts of that score, as the scorer names them; recall_rank
    (from 1) of the first of its segments in recall."""

    rank: int
    video: Video
    score: float
    recall_rank: int | None
    grains: Mapping[str, float]
    moments: tuple[Moment, ...]


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """effective: scorer, recall, candidates, model, fingerprint, device, generation. timings_ms: encode, recall,
    rerank, hydrate, total."""

    hits: tuple[Hit, ...]
    total_indexed: int
    num_candidates: int
    effective: Mapping[str, Any]
    timings_ms: Mapping[str, float]
    warnings: tuple[tuple[str, str], ...] = field(default=())
