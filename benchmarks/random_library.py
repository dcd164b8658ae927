"""A library of random features, written through the catalogue's own functions: for benchmarks that need many segments.

It knows no video file: the titles are made up, the paths lead nowhere, and only searching and listing work.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from indexer.catalogue import bound_model, jobs, videos
from indexer.catalogue.videos import NewVideo
from indexer.records import MediaInfo, SegmentFeatures
from indexer.storage import open_catalogue
from model.types import ModelSpec

SEGMENT_S = 4.0
VIDEOS_PER_TRANSACTION = 50


def write_library(folder: Path, spec: ModelSpec, num_segments: int, *, per_video: int = 10, seed: int = 0) -> None:
    """Make a data folder that belongs to `spec` and holds num_segments segments, `per_video` to a video."""
    random = np.random.default_rng(seed)
    media = MediaInfo(SEGMENT_S * per_video, 25.0, 640, 360, 0, "h264", "mov,mp4", False)
    counts = [min(per_video, num_segments - start) for start in range(0, num_segments, per_video)]
    database = open_catalogue(folder)
    try:
        with database.write() as tx:
            bound_model.bind(tx, spec)
        for start in range(0, len(counts), VIDEOS_PER_TRANSACTION):
            with database.write() as tx:
                for number, count in enumerate(counts[start : start + VIDEOS_PER_TRANSACTION], start):
                    name = f"video-{number:07d}"
                    digest = hashlib.sha256(f"{seed} {name}".encode()).hexdigest()
                    videos.add(tx, NewVideo(folder / f"{name}.mp4", digest, len(name), name, {"number": number}))
                    job = jobs.claim(tx, "benchmark", 60.0)
                    assert job is not None
                    jobs.publish(tx, job, media, _segments(random, spec, count), spec.fingerprint)
    finally:
        database.close()


def _segments(random: np.random.Generator, spec: ModelSpec, count: int) -> list[SegmentFeatures]:
    frames_NFD = _unit(random.standard_normal((count, spec.num_frames, spec.embed_dim), dtype=np.float32))
    pooled_NP = _unit(random.standard_normal((count, spec.pooled_width), dtype=np.float32))
    steps = (np.arange(spec.num_frames) + 0.5) * SEGMENT_S / spec.num_frames
    return [
        SegmentFeatures(
            start_s=n * SEGMENT_S,
            end_s=(n + 1) * SEGMENT_S,
            times_s=tuple((n * SEGMENT_S + steps).tolist()),
            pooled=pooled_NP[n].astype(np.float16),
            frames=frames_NFD[n].astype(np.float16),
        )
        for n in range(count)
    ]


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
