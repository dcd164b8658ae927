"""Ready-made content for tests of the catalogue: a clock to turn, features of random numbers, videos that publish."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from indexer.catalogue.database import Catalogue
from indexer.records import AddResult, Job, MediaInfo, OnDuplicate, SegmentFeatures
from model.types import ModelSpec

SPEC = ModelSpec("fake", "fake-1", 16, 4, 8, 32, "mean", scorers=("aosm", "mean"))
MEDIA = MediaInfo(12.5, 25.0, 640, 360, 90, "h264", "mov,mp4", True)


class Clock:
    """UTC epoch seconds that pass only when told to."""

    def __init__(self, now_s: float = 1_700_000_000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def pass_s(self, seconds: float) -> None:
        """Let time pass."""
        self.now_s += seconds


def features(num_segments: int, seed: int = 0, num_frames: int = 3) -> tuple[SegmentFeatures, ...]:
    """Segments of 4 s each with random unit embeddings of width 16."""
    random = np.random.default_rng(seed)
    made = []
    for position in range(num_segments):
        frames = random.normal(size=(num_frames, SPEC.embed_dim))
        frames /= np.linalg.norm(frames, axis=1, keepdims=True)
        pooled = frames.mean(0) / np.linalg.norm(frames.mean(0))
        times_s = tuple(4.0 * position + 0.5 + n for n in range(num_frames))
        made.append(
            SegmentFeatures(
                4.0 * position, 4.0 * position + 4.0, times_s, pooled.astype(np.float16), frames.astype(np.float16)
            )
        )
    return tuple(made)


def add(
    catalogue: Catalogue,
    name: str,
    *,
    metadata: dict[str, Any] | None = None,
    on_duplicate: OnDuplicate = "skip",
    path: Path | None = None,
    title: str | None = None,
    max_attempts: int = 3,
) -> AddResult:
    """Add a video whose content is its name."""
    return catalogue.add_video(
        path=path or Path(f"{name}.mp4"),
        sha256=hashlib.sha256(name.encode()).hexdigest(),
        size_bytes=len(name),
        title=title or name,
        metadata=metadata or {},
        is_managed=False,
        on_duplicate=on_duplicate,
        max_attempts=max_attempts,
    )


def claim(catalogue: Catalogue, owner: str = "worker-1", lease_s: float = 10.0) -> Job:
    """Claim a job that must be there."""
    job = catalogue.claim_job(owner, lease_s)
    assert job is not None
    return job


def add_ready(
    catalogue: Catalogue, name: str, num_segments: int = 2, *, metadata: dict[str, Any] | None = None, seed: int = 0
) -> str:
    """Add a video and publish features for it; gives its id. No other job may be due."""
    added = add(catalogue, name, metadata=metadata)
    job = claim(catalogue)
    assert job.id == added.job_id
    catalogue.publish(job, MEDIA, features(num_segments, seed), SPEC.fingerprint)
    return added.video_id
