"""What the index deals in: videos, segments, jobs, search options and answers. Data only.

A video (a file added) is cut into segments (stretches with F frame slots each); a moment is what a person is shown.
Times are seconds as floats: inside a video from its first frame, else UTC epoch seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

JobStatus = Literal["queued", "running", "succeeded", "failed", "cancelled"]
JobStage = Literal["queued", "probe", "encode", "publish", "done"]
VideoStatus = Literal["pending", "ready", "failed"]
OnDuplicate = Literal["skip", "replace", "error"]
RecallMode = Literal["auto", "exact", "ann"]
Sampling = Literal["exact", "keyframes"]
"""Which frames of a video are read: those shown at the instants asked for, or the key frames nearest to them."""


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What probing a file finds."""

    duration_s: float
    fps: float
    width: int
    """Pixels as displayed: rotation is applied."""
    height: int
    """Pixels as displayed."""
    rotation_deg: int
    """Clockwise: 0, 90, 180 or 270."""
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
    """A segment ready to be stored."""

    start_s: float
    end_s: float
    times_s: tuple[float, ...]
    """The times of its n <= F real frames."""
    pooled: NDArray[np.float16]
    """(P,)"""
    frames: NDArray[np.float16]
    """(n, D)"""


@dataclass(frozen=True, slots=True)
class StoredSegment:
    """A segment as it is stored."""

    id: int
    video_id: str
    position: int
    features: SegmentFeatures


class PackedSegment(NamedTuple):
    """A segment with its features as the catalogue stores them: little-endian bytes, n <= F frames."""

    id: int
    start_s: float
    end_s: float
    times: bytes
    """(n,) float64."""
    pooled: bytes
    """(P,) float16."""
    frames: bytes
    """(n, D) float16."""


@dataclass(frozen=True, slots=True)
class PublishedVideo:
    """A video that can be found, with the features to find it by."""

    number: int
    """The catalogue's number of the video, which never changes."""
    video_id: str
    features_seq: int
    """The change that brought its features."""
    num_segments: int
    """How many segments it should have."""
    segments: Sequence[PackedSegment]
    """In order of time; empty if they can't be read."""
    damage: str | None
    """Why they can't be read."""


@dataclass(frozen=True, slots=True)
class Video:
    """A file that was added."""

    id: str
    sha256: str
    title: str
    path: Path
    """Absolute."""
    is_managed: bool
    """Whether the file is in the data folder and is deleted with the video."""
    size_bytes: int
    metadata: Mapping[str, Any]
    status: VideoStatus
    created_at: float
    indexed_at: float | None
    num_segments: int
    media: MediaInfo | None
    """None until the file was probed."""
    mtime_ns: int | None = None
    """The file's time of change when its content was hashed; None where it can't be relied on."""
    error_code: str | None = None
    """Why status is "failed"."""
    error_message: str | None = None
    sampling: Sampling = "exact"
    """Which frames its features were made of."""

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
    number: int
    """The catalogue's number of the video, which never changes."""
    features_seq: int
    """The change that brought its features: below `seq` where only its title or metadata changed since."""

    @property
    def is_live(self) -> bool:
        """Whether it has segments to search."""
        return self.num_segments > 0


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far the indexing of one video is."""

    segments_done: int = 0
    """Segments that are encoded."""
    segments_total: int = 0
    """Segments of the video; 0 until it was probed."""
    frames_done: int = 0
    """Frames that are encoded."""
    seconds_done: float = 0.0
    """Seconds of video in the encoded segments."""
    seconds_total: float = 0.0
    """The video's duration; 0 until it was probed."""


@dataclass(frozen=True, slots=True)
class Job:
    """A durable unit of indexing."""

    id: str
    kind: Literal["index_video"]
    video_id: str
    status: JobStatus
    stage: JobStage
    progress: JobProgress
    """As last reported; for a job that failed or was cancelled, how far its last attempt came."""
    attempt: int
    max_attempts: int
    created_at: float
    started_at: float | None
    finished_at: float | None
    error_code: str | None
    error_message: str | None
    owner: str | None = None
    lease_expires_at: float | None = None
    """For a running job: when another worker may take it."""
    is_cancel_requested: bool = False
    working_since: float | None = None
    """Since when the present or last attempt has worked on the video: since it was encoding, and before that, since
    the job was claimed."""
    updated_at: float | None = None
    """When the progress was last reported."""


@dataclass(frozen=True, slots=True)
class QueueProgress:
    """How far indexing is over all jobs and workers."""

    queued: int
    """Jobs that wait."""
    running: int
    """Jobs in work."""
    succeeded: int
    """Jobs that have succeeded since the queue was last empty; a job that is retried counts each time it ends."""
    failed: int
    """Jobs that have failed since then."""
    cancelled: int
    """Jobs that were cancelled since then."""
    seconds_left: float | None
    """Seconds of video that are not done. Files that were not probed yet are estimated from their size."""
    seconds_per_byte: float | None
    """Seconds of video in a byte of a file, by which they are estimated."""
    x_real_time: float | None
    """Seconds of video done per second, over the last minutes of work."""
    frames_per_s: float | None
    """Frames encoded per second, over the last minutes of work."""
    eta_s: float | None
    """Seconds until all open jobs have ended, at that speed."""

    @property
    def num_ended(self) -> int:
        """Jobs that have ended since the queue was last empty."""
        return self.succeeded + self.failed + self.cancelled


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
    """How to search."""

    top_k: int = 10
    """At most so many videos."""
    moments_per_video: int = 3
    recall: RecallMode = "auto"
    candidates: int | None = None
    """Segments that each recall channel gives to be scored in full, where recall is used; None: by the library's size,
    see recall.num_candidates."""
    filter: Mapping[str, Any] | None = None
    """As in catalogue/filters.py."""
    video_ids: tuple[str, ...] | None = None
    """Only these videos; None for all."""
    include_self: bool = False
    """Whether a stored video that is searched with may be found itself."""
    scorer: str | None = None
    """One of the model's (model/scorers.py); None for its default."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A stretch to show to a person."""

    start_s: float
    end_s: float
    best_s: float
    """The time of the frame that supports the query most."""
    score: float


@dataclass(frozen=True, slots=True)
class Hit:
    """A video that was found."""

    rank: int
    """From 1."""
    video: Video
    score: float
    """The mean over the query's rows of its best segment; for a sentence, that of its best segment."""
    recall_rank: int | None
    """Where recall had the first of its segments, from 1; None where they were scored without recall."""
    grains: Mapping[str, float]
    """The parts of the score, by the scorer's names."""
    moments: tuple[Moment, ...]


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """What a search found, and how."""

    hits: tuple[Hit, ...]
    """Best first."""
    total_indexed: int
    """Videos that can be found."""
    num_candidates: int
    """Segments that were scored in full."""
    effective: Mapping[str, Any]
    """What was done: scorer, recall and why, candidates, kernel, model, fingerprint, device, generation."""
    timings_ms: Mapping[str, float]
    """encode, plan, recall, rerank, hydrate, explain, total."""
    warnings: tuple[tuple[str, str], ...] = field(default=())
    """(code, message)"""
