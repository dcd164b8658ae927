"""VideoIndex: the front door. HTTP, the command line, benchmarks and end-to-end tests use it and nothing behind it.

One data folder holds one index: catalogue.sqlite (the truth), media/ (files it manages), incoming/ (uploads in flight)
and thumbnails/ (made when asked for, gone with their video). Several processes may open one folder: what any of them
publishes or removes shows in the next search of all.
It knows no HTTP, no settings and no environment.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from indexer.catalogue.database import Catalogue
from indexer.catalogue.rows import storable
from indexer.errors import CatalogueUnreadable, FileMissing, InvalidQuery
from indexer.files import digest, existing, total_bytes
from indexer.locks import FolderLock
from indexer.media.pool import THUMBNAIL_LANE, DecodePool, clip_lane
from indexer.media.sandbox import DecodeSandbox, SandboxLimits
from indexer.media.thumbnails import Thumbnails
from indexer.pipeline import PipelineConfig
from indexer.queries import checked_range, clip_features, stored_features
from indexer.records import (
    AddResult,
    Job,
    JobStatus,
    OnDuplicate,
    SearchAnswer,
    SearchOptions,
    Video,
    VideoStatus,
)
from indexer.search import check_options, search
from indexer.vectors import VectorIndex
from indexer.worker import Worker, WorkerConfig
from model.types import Query, VideoFeatures, VideoTextModel

if TYPE_CHECKING:
    from indexer.media.reading import Decoder  # the decoders themselves are loaded in the sandbox's process only

MAX_QUERY_CHARS = 2000
CATALOGUE_FILE = "catalogue.sqlite"
MEDIA_FOLDER = "media"
INCOMING_FOLDER = "incoming"
THUMBNAILS_FOLDER = "thumbnails"


@dataclass(frozen=True, slots=True)
class IndexConfig:
    """How an index decodes and works. decode_*: limits of one decoding request; decode_children: processes that decode
    clip queries and thumbnails; query_decode_s: of one clip query in all, and how long it waits for a child;
    max_query_s: of a clip that is searched with; lease_s, heartbeat_s, poll_s: of this index's worker; max_attempts of
    a job; thumbnail_side in pixels."""

    decoder: Decoder = "pyav"
    decode_timeout_s: float = 60.0
    decode_memory_bytes: int = 4 * 2**30
    decode_children: int = 3
    query_decode_s: float = 30.0
    max_segment_s: float = 16.0
    max_video_s: float = 4 * 3600.0
    max_query_s: float = 600.0
    lease_s: float = 15.0
    heartbeat_s: float = 3.0
    poll_s: float = 0.5
    batch_segments: int = 8
    max_attempts: int = 3
    thumbnail_side: int = 320


class VideoIndex:
    """Videos in, searches answered. Thread-safe. Made by `open`; `close` it, or use it in a `with`."""

    def __init__(
        self, folder: Path, catalogue: Catalogue, vectors: VectorIndex, model: VideoTextModel, config: IndexConfig
    ) -> None:
        """Of built parts; `open` builds them."""
        self.folder = folder
        self.model = model
        self.config = config
        self._catalogue = catalogue
        self._vectors = vectors
        self._pool = DecodePool(config.decode_children, config.decoder, self._decode_limits())
        self._clips = self._pool.lane(clip_lane(config.decode_children, config.query_decode_s))
        self._pictures = self._pool.lane(THUMBNAIL_LANE)
        self._worker_sandboxes: list[DecodeSandbox] = []
        self._text_lock = threading.Lock()  # some tokenizers can't be used by two threads at once
        self._files_lock = FolderLock(folder)
        self._thumbnails = Thumbnails(folder / THUMBNAILS_FOLDER)
        self._model_device: torch.device | None = None

    @classmethod
    def open(cls, folder: Path, model: VideoTextModel, config: IndexConfig = IndexConfig()) -> VideoIndex:
        """Open or make the index of a data folder and load its features.

        Raises: ModelMismatch if the data was made by another model, CatalogueUnreadable, BackendMissing.
        """
        spec = model.spec
        vectors = VectorIndex(spec.embed_dim, spec.num_frames, pooled_dim=spec.pooled_width)
        folder = folder.absolute()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CatalogueUnreadable(
                f"The data folder can't be made: {error.strerror}.",
                "Choose another with --data or VIDGRAIN_DATA.",
                path=folder,
            ) from error
        catalogue = Catalogue(folder / CATALOGUE_FILE)
        try:
            catalogue.bind_model(spec)
            vectors.follow(catalogue)
        except BaseException:
            catalogue.close()
            raise
        return cls(folder, catalogue, vectors, model, config)

    def close(self) -> None:
        """End the decoding processes and close the catalogue. Twice is as good as once."""
        self.stop_decoding()
        self._pool.close()
        self._catalogue.close()

    def __enter__(self) -> VideoIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- videos

    def add(
        self,
        path: Path,
        *,
        title: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        on_duplicate: OnDuplicate = "skip",
        is_managed: bool = False,
    ) -> AddResult:
        """Put a file in the queue of the worker. The video's id comes from the content, so a copy is the same video.

        title: the file's name without suffix if None. is_managed: the file is the index's own and goes with the video.
        Raises: FileMissing, UnsupportedMedia (a folder, an empty file), DuplicateVideo, InvalidMetadata, StorageFull.
        """
        path = path.absolute()
        sha256, size_bytes = digest(path)
        with self._files_lock.holding():
            if not path.is_file():
                raise FileMissing("The file was removed while it was added.", path=path)
            added = self._catalogue.add_video(
                path=path,
                sha256=sha256,
                size_bytes=size_bytes,
                title=path.stem if title is None else title,
                metadata={} if metadata is None else metadata,
                is_managed=is_managed,
                on_duplicate=on_duplicate,
                max_attempts=self.config.max_attempts,
            )
            if added.abandoned is not None:
                added.abandoned.unlink(missing_ok=True)
            return added

    def discard(self, path: Path) -> None:
        """Delete a file that was to be managed, unless a video has it."""
        with self._files_lock.holding():
            if not self._catalogue.has_file(path.absolute()):
                path.unlink(missing_ok=True)

    def get(self, video_id: str) -> Video:
        """A video. Raises: NotFound."""
        return self._catalogue.get_video(video_id)

    def list(
        self,
        *,
        limit: int = 50,
        cursor: str | None = None,
        filter: Mapping[str, Any] | None = None,
        status: VideoStatus | None = None,
    ) -> tuple[tuple[Video, ...], str | None]:
        """A page of videos, newest first, and the cursor of the next page. Raises: InvalidFilter, InvalidQuery."""
        return self._catalogue.list_videos(limit=limit, cursor=cursor, filter=filter, status=status)

    def update(self, video_id: str, *, title: str | None = None, metadata: Mapping[str, Any] | None = None) -> Video:
        """Change a title, or replace the metadata as a whole; None leaves it. Raises: NotFound, InvalidMetadata."""
        return self._catalogue.update_video(video_id, title=title, metadata=metadata)

    def remove(self, video_id: str) -> None:
        """Take a video out of every search at once, with its thumbnails and, if the index manages it, its file.

        Raises: NotFound.
        """
        with self._files_lock.holding():
            video = self._catalogue.remove_video(video_id)
            if video.is_managed:
                video.path.unlink(missing_ok=True)
        self._thumbnails.remove(video.id)

    # ---- search

    def search_text(self, query: str, options: SearchOptions = SearchOptions()) -> SearchAnswer:  # noqa: B008
        """Videos that show what a sentence says.

        Raises: InvalidQuery if it is empty or over 2,000 characters, UnknownScorer.
        """
        text = storable(query).strip()
        if not text:
            raise InvalidQuery("The query is empty.", "Describe in a few words what the video shows.")
        if len(text) > MAX_QUERY_CHARS:
            raise InvalidQuery(f"The query has {len(text)} characters.", f"It may have {MAX_QUERY_CHARS}.")
        check_options(options, self.model.spec, is_clip=False)
        started = time.perf_counter()
        with self._text_lock:
            features = self.model.encode_text([text])
        self._model_device = features.sentence.device
        said = []
        if bool(features.mask[0, -1]):
            num_words = self.model.spec.num_words
            said.append(("query_truncated", f"The model reads {num_words} tokens; what is beyond them was not read."))
        return self._search(features, options, started, said=said)

    def search_video(
        self,
        path: Path,
        options: SearchOptions = SearchOptions(),  # noqa: B008
        *,
        start_s: float | None = None,
        end_s: float | None = None,
    ) -> SearchAnswer:
        """Videos like a clip, or like a range of it. The file isn't kept.

        Raises: InvalidQuery, UnknownScorer, MediaError, DecodeBusy.
        """
        check_options(options, self.model.spec, is_clip=True)
        started = time.perf_counter()
        return self._search(self._clip(existing(path.absolute()), start_s, end_s), options, started)

    def search_stored(
        self,
        video_id: str,
        options: SearchOptions = SearchOptions(),  # noqa: B008
        *,
        start_s: float | None = None,
        end_s: float | None = None,
    ) -> SearchAnswer:
        """Videos like one that is indexed, or like a range of it; itself left out unless include_self.

        A range so short that no stored frame lies in it is read from the file. Raises: NotFound, InvalidQuery if the
        video isn't indexed yet or the range is empty, UnknownScorer, MediaError, DecodeBusy.
        """
        check_options(options, self.model.spec, is_clip=True)
        started = time.perf_counter()
        video = self._catalogue.get_video(video_id)
        segments = self._catalogue.segments(video_id)
        if not segments:
            raise InvalidQuery(f"The video {video_id} isn't indexed: it is {video.status}.", "Wait for its job.")
        start, end = checked_range(start_s, end_s, segments[-1].features.end_s)
        query = stored_features(segments, start, end, self.model.spec.num_frames, self._device())
        if query is None:
            query = self._clip(existing(video.path), start, end)
        return self._search(query, options, started, without=None if options.include_self else video.id)

    # ---- jobs

    def job(self, job_id: str) -> Job:
        """A job. Raises: NotFound."""
        return self._catalogue.get_job(job_id)

    def jobs(
        self,
        *,
        status: JobStatus | None = None,
        video_id: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> tuple[tuple[Job, ...], str | None]:
        """A page of jobs, newest first, and the cursor of the next page."""
        return self._catalogue.list_jobs(status=status, video_id=video_id, limit=limit, cursor=cursor)

    def cancel_job(self, job_id: str) -> Job:
        """Cancel a job; a running one ends at its next segment. Raises: NotFound, JobConflict if it has ended."""
        return self._catalogue.cancel_job(job_id)

    def retry_job(self, job_id: str) -> Job:
        """Queue a failed or cancelled job again. Raises: NotFound, JobConflict."""
        return self._catalogue.retry_job(job_id)

    def worker(self, owner: str | None = None, wait: Callable[[float], object] | None = None) -> Worker:
        """A worker on this index with a decoding process of its own, which `close` ends."""
        sandbox = DecodeSandbox(self.config.decoder, self._decode_limits())
        self._worker_sandboxes.append(sandbox)
        config = self.config
        pipeline = PipelineConfig(
            max_segment_s=config.max_segment_s, batch_segments=config.batch_segments, max_video_s=config.max_video_s
        )
        return Worker(
            self._catalogue,
            sandbox,
            self.model,
            WorkerConfig(
                lease_s=config.lease_s, heartbeat_s=config.heartbeat_s, poll_s=config.poll_s, pipeline=pipeline
            ),
            owner=owner,
            wait=wait,
        )

    def stop_decoding(self) -> None:
        """End the decoding of this index's workers, also in the middle of a file: a job in hand is given back."""
        for sandbox in self._worker_sandboxes:
            sandbox.close()

    # ---- what it is and shows

    def thumbnail(self, video_id: str, at_s: float) -> Path:
        """A JPEG of the frame shown at a time, clipped to the video; kept for a while (indexer/media/thumbnails.py).

        Raises: NotFound, InvalidQuery for a time that is no number, MediaError, DecodeBusy.
        """
        if not math.isfinite(at_s):
            raise InvalidQuery(f"The time {at_s} isn't a finite number.")
        video = self._catalogue.get_video(video_id)
        at_s = max(0.0, at_s if video.media is None else min(at_s, video.media.duration_s))

        def make() -> bytes:
            with self._pictures.turn() as source:
                return source.thumbnail(existing(video.path), at_s, self.config.thumbnail_side)

        return self._thumbnails.get(video.id, at_s, make)

    @property
    def num_clip_places(self) -> int:
        """Clip queries that may run or wait at once; more are refused with DecodeBusy."""
        return self._clips.num_places

    @property
    def num_thumbnail_places(self) -> int:
        """Thumbnails that may be made or wait at once; more are refused with DecodeBusy."""
        return self._pictures.num_places

    def stats(self) -> dict[str, Any]:
        """Counts and sizes: videos, segments, jobs by status, generation, model, fingerprint, bytes, unreadable."""
        num_videos, num_segments = self._catalogue.count()
        generation = self._vectors.follow(self._catalogue)
        return {
            "videos": num_videos,
            "segments": num_segments,
            "jobs": self._catalogue.count_jobs(),
            "generation": generation,
            "model": self.model.spec.name,
            "fingerprint": self.model.spec.fingerprint,
            "bytes": {
                "catalogue": total_bytes(self.folder.glob(CATALOGUE_FILE + "*")),
                "media": total_bytes(self.folder.glob(MEDIA_FOLDER + "/*")),
            },
            "unreadable": self._vectors.unreadable,
        }

    # ---- helpers

    def _search(
        self,
        query: Query,
        options: SearchOptions,
        started: float,
        *,
        without: str | None = None,
        said: Sequence[tuple[str, str]] = (),
    ) -> SearchAnswer:
        encode_ms = (time.perf_counter() - started) * 1e3
        return search(
            query,
            self.model,
            self._vectors,
            self._catalogue,
            options,
            without_video_id=without,
            encode_ms=encode_ms,
            warnings=said,
        )

    def _clip(self, path: Path, start_s: float | None, end_s: float | None) -> VideoFeatures:
        with self._clips.turn() as source:
            return clip_features(
                path,
                source,
                self.model,
                start_s=start_s,
                end_s=end_s,
                max_segment_s=self.config.max_segment_s,
                max_clip_s=self.config.max_query_s,
            )

    def _device(self) -> torch.device:
        """Where the model wants its queries; learnt from what it encodes."""
        if self._model_device is None:
            with self._text_lock:
                self._model_device = self.model.encode_text(["video"]).sentence.device
        return self._model_device

    def _decode_limits(self) -> SandboxLimits:
        return SandboxLimits(timeout_s=self.config.decode_timeout_s, memory_bytes=self.config.decode_memory_bytes)
