"""Ready-made content for tests of the catalogue: a clock to turn, features of random numbers, videos that publish."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from indexer.catalogue import bound_model, jobs, queue, segments, videos
from indexer.catalogue.database import Database
from indexer.catalogue.filters import compile_filter
from indexer.catalogue.videos import NewVideo
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


def _allowed_numbers(tx: Any, filter: Any, video_ids: Any) -> Any:
    return segments.allowed_numbers(tx, compile_filter(filter), video_ids)


class Catalogue(Database):
    """The catalogue's functions as verbs that each open a transaction of their own, which is what most tests want."""

    READS: ClassVar[dict[str, Callable[..., Any]]] = {
        "model": bound_model.bound,
        "get_video": videos.get,
        "list_videos": videos.list_page,
        "live_videos": videos.live,
        "managed_paths": videos.managed_paths,
        "count": videos.count_ready,
        "changes": segments.changes_after,
        "segments": segments.read_segments,
        "published": segments.published,
        "allowed_numbers": _allowed_numbers,
        "last_seq": lambda tx: tx.last_seq(),
        "get_job": jobs.get_job,
        "list_jobs": jobs.list_page,
        "count_jobs": queue.counts,
        "queue": queue.progress,
    }
    WRITES: ClassVar[dict[str, Callable[..., Any]]] = {
        "bind_model": bound_model.bind,
        "add_video": videos.add,
        "update_video": videos.update,
        "remove_video": videos.remove,
        "claim_job": jobs.claim,
        "heartbeat": jobs.heartbeat,
        "publish": jobs.publish,
        "fail_job": jobs.fail,
        "end_cancelled": jobs.end_cancelled,
        "release_job": jobs.release,
        "cancel_job": jobs.cancel,
        "retry_job": jobs.retry,
    }

    def __getattr__(self, name: str) -> Callable[..., Any]:
        for functions, begin in ((self.READS, self.read), (self.WRITES, self.write)):
            if name in functions:
                return partial(self._in_transaction, begin, functions[name])
        raise AttributeError(name)

    def __enter__(self) -> Catalogue:
        return self

    @staticmethod
    def _in_transaction(begin: Callable[[], Any], function: Callable[..., Any], *given: Any, **named: Any) -> Any:
        with begin() as tx:
            return function(tx, *given, **named)


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
    sha256 = hashlib.sha256(name.encode()).hexdigest()
    new = NewVideo(path or Path(f"/videos/{name}.mp4"), sha256, len(name), title or name, metadata or {})
    added: AddResult = catalogue.add_video(new, on_duplicate, max_attempts)
    return added


def claim(catalogue: Catalogue, owner: str = "worker-1", lease_s: float = 10.0) -> Job:
    """Claim a job that must be there."""
    job: Job | None = catalogue.claim_job(owner, lease_s)
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
