"""From a video's file to its features: check the file, probe, plan segments, read frames, encode.

The next batch is decoded in a thread of its own while the model encodes the present one. It knows no database: the
worker publishes the features. They leave the model as float32 tensors and this file as float16 arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np

from indexer import defaults
from indexer.errors import FileChanged, FileMissing, VideoTooLong, VideoUndecodable
from indexer.files import digest
from indexer.records import Frames, JobStage, MediaInfo, SegmentFeatures, SegmentPlan, Video
from indexer.segments import plan_segments
from model.read_ahead import read_ahead
from model.resize import FrameResize
from model.types import VideoTextModel

Progress = Callable[[JobStage, int, int], None]
"""Called with (stage, segments done, segments in all) between batches; it may raise to stop the work."""


class FrameSource(Protocol):
    """The verbs of DecodeSandbox that indexing needs."""

    def probe(self, path: Path) -> MediaInfo:
        """What the file holds. Raises: MediaError."""
        ...

    def read_frames(self, path: Path, instants_s: Sequence[float], resize: FrameResize | None = None) -> Frames:
        """The frames shown at these instants, resized where they are decoded. Raises: MediaError."""
        ...


@dataclass(frozen=True, slots=True)
class PipelineConfig:
    """How a video is cut up, and how much of it is in memory at once."""

    max_segment_s: float = defaults.MAX_SEGMENT_S
    """Longest segment."""
    batch_segments: int = 8
    """Segments encoded in one call of the model."""
    batch_bytes: int = 256 * 2**20
    """Resized pixels of one batch; two batches are in memory."""
    max_video_s: float = defaults.MAX_VIDEO_S
    """Longer videos are refused."""


@dataclass(frozen=True, slots=True)
class IndexedVideo:
    """A video's features, ready to be published."""

    media: MediaInfo
    """What the file holds."""
    segments: tuple[SegmentFeatures, ...]
    """Its segments in order of time."""


def index_video(
    video: Video, source: FrameSource, model: VideoTextModel, config: PipelineConfig, on_progress: Progress
) -> IndexedVideo:
    """The features of the content that was added, never those of other content that has replaced it.

    Raises: FileMissing, FileChanged, VideoTooLong, other MediaErrors of `source`, and whatever `on_progress` raises.
    """
    on_progress("probe", 0, 0)
    before = check_content(video)
    media = source.probe(video.path)
    if media.duration_s > config.max_video_s:
        raise VideoTooLong(
            f"The video lasts {media.duration_s:.0f} s; at most {config.max_video_s:.0f} s are indexed.",
            path=video.path,
        )
    plans = plan_segments(media.duration_s, model.spec.num_frames, config.max_segment_s)
    segments: list[SegmentFeatures] = []
    on_progress("encode", 0, len(plans))
    batches = cut_batches(plans, model.resize, config.batch_segments, config.batch_bytes)
    with closing(_decoded_ahead(video.path, source, batches, model.resize)) as decoded:
        for batch, frames in decoded:
            segments += encode_batch(batch, frames, model)
            on_progress("encode", len(segments), len(plans))
    if _stamp(video) != before and digest(video.path) != (video.sha256, video.size_bytes):
        raise FileChanged("The file was changed while it was read.", "Add it again once it is whole.", path=video.path)
    on_progress("publish", len(plans), len(plans))
    return IndexedVideo(media, tuple(segments))


def check_content(video: Video) -> tuple[int, ...]:
    """Compare the file with what was added; returns a stamp of it. Raises: FileMissing, FileChanged.

    Its content is hashed unless size and time of change are those that it had when it was hashed before.
    """
    stamp = _stamp(video)
    hint = "Add the file again: its new content is another video."
    if stamp[0] != video.size_bytes:
        raise FileChanged(
            f"The file has {stamp[0]} bytes; it had {video.size_bytes} when it was added.", hint, path=video.path
        )
    if stamp[1] == video.mtime_ns:
        return stamp
    if digest(video.path) != (video.sha256, video.size_bytes):
        raise FileChanged("The file holds other content than when it was added.", hint, path=video.path)
    return stamp


def encode_batch(
    plans: Sequence[SegmentPlan], frames: Sequence[Frames], model: VideoTextModel
) -> list[SegmentFeatures]:
    """Encode the frames of V segments in one call of the model; padded slots are left out."""
    encoded = model.encode_video([part.pixels for part in frames])
    pooled_VD = encoded.pooled.detach().float().cpu().numpy().astype(np.float16)
    frames_VFD = encoded.frames.detach().float().cpu().numpy().astype(np.float16)
    mask_VF = encoded.mask.cpu().numpy()
    return [
        SegmentFeatures(
            start_s=plan.start_s,
            end_s=plan.end_s,
            times_s=tuple(float(time_s) for time_s in part.times_s),
            pooled=pooled_VD[v],
            frames=frames_VFD[v][mask_VF[v]],
        )
        for v, (plan, part) in enumerate(zip(plans, frames, strict=True))
    ]


def cut_batches(
    plans: Sequence[SegmentPlan], resize: FrameResize, batch_segments: int, batch_bytes: int
) -> Iterator[Sequence[SegmentPlan]]:
    """Runs of segments whose resized pixels fit the limits; at least one segment each."""
    segment_bytes = resize.image_size**2 * 3 * max(len(plan.instants_s) for plan in plans)
    size = max(1, min(batch_segments, batch_bytes // segment_bytes))
    for start in range(0, len(plans), size):
        yield plans[start : start + size]


def _decoded_ahead(
    path: Path, source: FrameSource, batches: Iterable[Sequence[SegmentPlan]], resize: FrameResize
) -> Generator[tuple[Sequence[SegmentPlan], list[Frames]], None, None]:
    """Each batch with its frames; as many segments as a batch has are decoded while the caller works on it.

    Closing it early waits for the one segment that is being read, not for a batch.
    """

    def read(plan: SegmentPlan) -> Frames:
        frames = source.read_frames(path, plan.instants_s, resize)
        if not len(frames.pixels):
            raise VideoUndecodable(
                f"No frame could be read between {plan.start_s:.2f} s and {plan.end_s:.2f} s.", path=path
            )
        return frames

    batches = list(batches)
    plans = [plan for batch in batches for plan in batch]
    with read_ahead(read, plans, ahead=max(map(len, batches), default=1)) as frames:
        for batch in batches:
            yield batch, list(islice(frames, len(batch)))


def _stamp(video: Video) -> tuple[int, ...]:
    """Size, time of change and identity of the file."""
    try:
        status = video.path.stat()
    except (FileNotFoundError, NotADirectoryError, PermissionError, ValueError) as error:
        raise FileMissing("The file is not there, or may not be read.", path=video.path) from error
    return status.st_size, status.st_mtime_ns, status.st_ino
