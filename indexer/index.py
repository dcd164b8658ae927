"""VideoIndex: the front door. HTTP, the command line, benchmarks and end-to-end tests use it and nothing behind it.

One data folder holds one index: catalogue.sqlite (the truth), media/ (files it manages), incoming/ (uploads in flight),
thumbnails/ (made when asked for, gone with their video) and shards/ (features as they are mapped into memory).
Several processes may open one folder: what any of them publishes or removes shows in the next search of all.
It knows no HTTP, no settings and no environment, and it imports torch in searches only: lists do without.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from indexer.catalogue import bound_model, jobs, queue, segments, videos
from indexer.catalogue.database import Database
from indexer.catalogue.videos import NewVideo
from indexer.config import IndexConfig
from indexer.errors import InvalidQuery
from indexer.files import digest, existing, total_bytes, unchanged_since_ns
from indexer.indexing.worker import Worker
from indexer.loaded import LoadedParts, ModelLoader
from indexer.media.pool import THUMBNAIL_LANE, DecodePool
from indexer.media.sandbox import DecodeSandbox
from indexer.media.thumbnails import Thumbnails
from indexer.records import (
    AddResult,
    Job,
    JobStatus,
    OnDuplicate,
    QueueProgress,
    SearchAnswer,
    SearchOptions,
    Video,
    VideoStatus,
)
from indexer.storage import CATALOGUE_FILE, ReceivedFile, Storage, open_catalogue
from model.types import Query, VideoFeatures, VideoTextModel

log = logging.getLogger("vidgrain.index")

THUMBNAILS_FOLDER = "thumbnails"
SHARDS_FOLDER = "shards"


class VideoIndex:
    """Adds videos and answers searches. Thread-safe. Made by `open`; `close` it, or use it in a `with`.

    Only what is used is loaded: listing, adding and removing need neither the model nor the vectors, a worker needs no
    vectors. `warm_up` loads everything and keeps the vectors up to date in a thread.
    """

    def __init__(self, folder: Path, database: Database, load_model: ModelLoader, config: IndexConfig) -> None:
        """From built parts; `open` builds them."""
        self.folder = folder
        self.config = config
        self.storage = Storage(folder, database)
        self._database = database
        self._parts = LoadedParts(database, load_model, config, folder / SHARDS_FOLDER)
        self._pool = DecodePool(config.decode_children, config.decoder, config.sandbox_limits())
        self._clips = self._pool.lane(config.clip_lane())
        self._pictures = self._pool.lane(THUMBNAIL_LANE)
        self._worker_children: list[DecodeSandbox] = []
        self._thumbnails = Thumbnails(folder / THUMBNAILS_FOLDER)

    @classmethod
    def open(
        cls,
        folder: Path,
        model: VideoTextModel | ModelLoader,
        config: IndexConfig = IndexConfig(),  # noqa: B008
    ) -> VideoIndex:
        """Open or make the index of a data folder. model: the model, or a function that loads it once it is
        needed, given the spec that the data are bound to (None for a new folder).

        Raises: CatalogueUnreadable, StorageFull for an upgrade, ModelMismatch if the data belong to another model.
        """
        folder = folder.absolute()
        database = open_catalogue(folder)
        if callable(model):
            return cls(folder, database, model, config)
        given = model
        index = cls(folder, database, lambda _: given, config)
        try:
            _ = index.model
        except BaseException:
            index.close()
            raise
        return index

    def warm_up(self) -> None:
        """Load the model and the vectors, clean up after killed processes, and keep the vectors in order by threads.

        Raises: ModelError, ModelMismatch, BackendMissing, CatalogueUnreadable.
        """
        num_deleted = self.storage.sweep()
        follower = self._parts.follower
        follower.catch_up()
        self._parts.start()
        self._parts.searcher.warm_up()
        if follower.vectors.is_whole:
            self._database.drop_old_copy()
        log.info("index_opened", extra={"segments": follower.vectors.num_segments, "files_deleted": num_deleted})

    def catch_up_soon(self) -> None:
        """Read the change feed now: another process has published something. Returns at once."""
        if (follower := self._parts.loaded_follower) is not None:
            follower.wake()

    def close(self) -> None:
        """End the threads and the decoding processes, close the catalogue. Closing twice is fine."""
        self._parts.close()
        self.stop_decoding()
        self._pool.close()
        self._database.close()

    def __enter__(self) -> VideoIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def model(self) -> VideoTextModel:
        """The model, loaded at its first use and bound to the data. Raises: ModelError, ModelMismatch."""
        return self._parts.model

    # ---- videos

    def add(
        self,
        path: Path,
        *,
        title: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        on_duplicate: OnDuplicate = "skip",
    ) -> AddResult:
        """Queue a file for the worker; it stays where it is. The id comes from the content: a copy is the same video.

        title: the file's name without its suffix if None. Symbolic links are followed now and never again.
        Raises: FileMissing, UnsupportedMedia (a folder, an empty file), DuplicateVideo, InvalidMetadata, StorageFull.
        """
        real = existing(path.absolute()).resolve()
        mtime_ns = unchanged_since_ns(real)
        sha256, size_bytes = digest(real)
        new = NewVideo(
            path=real,
            sha256=sha256,
            size_bytes=size_bytes,
            title=path.stem if title is None else title,
            metadata={} if metadata is None else metadata,
            mtime_ns=mtime_ns,
        )
        return self.storage.add_in_place(new, on_duplicate, self.config.max_attempts)

    def add_received(
        self,
        received: ReceivedFile,
        *,
        title: str,
        metadata: Mapping[str, Any] | None = None,
        on_duplicate: OnDuplicate = "skip",
    ) -> AddResult:
        """Keep a received file, which is on the disk of the data folder, and queue it; it is deleted with its video.

        Raises: DuplicateVideo, InvalidMetadata, StorageFull, CatalogueUnreadable.
        """
        return self.storage.adopt(
            received,
            title=title,
            metadata={} if metadata is None else metadata,
            on_duplicate=on_duplicate,
            max_attempts=self.config.max_attempts,
        )

    def get(self, video_id: str) -> Video:
        """A video. Raises: NotFound."""
        with self._database.read() as tx:
            return videos.get(tx, video_id)

    def list(
        self,
        *,
        limit: int = 50,
        cursor: str | None = None,
        filter: Mapping[str, Any] | None = None,
        status: VideoStatus | None = None,
    ) -> tuple[tuple[Video, ...], str | None]:
        """A page of videos, newest first, and the cursor of the next page. Raises: InvalidFilter, InvalidQuery."""
        with self._database.read() as tx:
            return videos.list_page(tx, limit=limit, cursor=cursor, filter=filter, status=status)

    def update(self, video_id: str, *, title: str | None = None, metadata: Mapping[str, Any] | None = None) -> Video:
        """Change a title, or replace the metadata as a whole; None leaves it. Raises: NotFound, InvalidMetadata."""
        with self._database.write() as tx:
            return videos.update(tx, video_id, title=title, metadata=metadata)

    def remove(self, video_id: str) -> None:
        """Remove a video from every search at once, with its thumbnails and, if the index manages it, its file.

        Raises: NotFound.
        """
        self._thumbnails.remove(self.storage.remove(video_id).id)

    def open_file(self, video_id: str) -> tuple[Video, BinaryIO]:
        """A video and its file, opened for reading; the caller closes it. Raises: NotFound, FileMissing."""
        video = self.get(video_id)
        return video, self.storage.open_file(video)

    # ---- search

    def search_text(self, query: str, options: SearchOptions = SearchOptions()) -> SearchAnswer:  # noqa: B008
        """Videos that show what a sentence describes.

        Raises: EmptyQuery, QueryTooLong, InvalidQuery for options out of bounds, UnknownScorer.
        """
        spec = self.model.spec  # the model is loaded before what imports torch as well
        from indexer.search.queries import checked_text
        from indexer.search.searcher import check_options

        text = checked_text(query)
        check_options(options, spec, query_is_clip=False)
        started = time.perf_counter()
        features = self.model.encode_text([text])
        cut = ("query_truncated", f"The model reads {spec.num_words} tokens; the rest of the query was ignored.")
        answer = self._search(features, options, started, warnings=[cut] if any(features.is_cut) else [])
        return replace(answer, effective={**answer.effective, "query_precision": features.precision})

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
        from indexer.search.searcher import check_options

        check_options(options, self.model.spec, query_is_clip=True)
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
        """Videos like an indexed one, or like a range of it; the video itself is left out unless include_self.

        A range too short to hold a stored frame is read from the file. Raises: NotFound, InvalidQuery if the
        video isn't indexed yet or the range is empty, UnknownScorer, MediaError, DecodeBusy.
        """
        from indexer.search.queries import checked_range, stored_features
        from indexer.search.searcher import check_options

        check_options(options, self.model.spec, query_is_clip=True)
        started = time.perf_counter()
        with self._database.read() as tx:
            video = videos.get(tx, video_id)
            stored = segments.read_segments(tx, video.id)
        if not stored:
            raise InvalidQuery(f"The video {video_id} isn't indexed: it is {video.status}.", "Wait for its job.")
        start, end = checked_range(start_s, end_s, stored[-1].features.end_s)
        query = stored_features(stored, start, end, self.model.spec.num_frames, self.model.device)
        if query is None:
            query = self._clip(self._readable(video), start, end)
        return self._search(query, options, started, without=None if options.include_self else video.id)

    # ---- jobs

    def job(self, job_id: str) -> Job:
        """A job. Raises: NotFound."""
        with self._database.read() as tx:
            return jobs.get_job(tx, job_id)

    def jobs(
        self,
        *,
        status: JobStatus | None = None,
        video_id: str | None = None,
        ids: Sequence[str] | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> tuple[tuple[Job, ...], str | None]:
        """A page of jobs, newest first, and the cursor of the next page."""
        with self._database.read() as tx:
            return jobs.list_page(tx, status=status, video_id=video_id, ids=ids, limit=limit, cursor=cursor)

    def queue(self) -> QueueProgress:
        """How far all jobs together are, what is left and when it ends."""
        with self._database.read() as tx:
            return queue.progress(tx)

    def cancel_job(self, job_id: str) -> Job:
        """Cancel a job; a running one stops at its next segment. Raises: NotFound, JobConflict if it has ended."""
        with self._database.write() as tx:
            return jobs.cancel(tx, job_id)

    def retry_job(self, job_id: str) -> Job:
        """Queue a failed or cancelled job again. Raises: NotFound, JobConflict."""
        with self._database.write() as tx:
            return jobs.retry(tx, job_id)

    def worker(
        self,
        owner: str | None = None,
        wait: Callable[[float], object] | None = None,
        on_published: Callable[[], object] | None = None,
    ) -> Worker:
        """A worker for this index, with decoding processes of its own that `close` ends; see Worker."""
        children = self.config.worker_children()
        self._worker_children += children
        config = self.config.worker()
        return Worker(self._database, children, self.model, config, owner=owner, wait=wait, on_published=on_published)

    def stop_decoding(self) -> None:
        """End the decoding of this index's workers, even in the middle of a file: their jobs are given back."""
        for child in self._worker_children:
            child.close()

    # ---- thumbnails and counts

    def thumbnail(self, video_id: str, at_s: float) -> Path:
        """A JPEG of the frame shown at a time, clipped to the video; kept for a while (indexer/media/thumbnails.py).

        Raises: NotFound, InvalidQuery for a time that isn't finite, MediaError, DecodeBusy.
        """
        if not math.isfinite(at_s):
            raise InvalidQuery(f"The time {at_s} isn't a finite number.")
        video = self.get(video_id)
        at_s = max(0.0, at_s if video.media is None else min(at_s, video.media.duration_s))

        def make() -> bytes:
            with self._pictures.turn() as source:
                return source.thumbnail(self._readable(video), at_s, self.config.thumbnail_side)

        return self._thumbnails.get(video.id, at_s, make)

    def stats(self) -> dict[str, Any]:
        """Counts and sizes: videos, segments, jobs by status, bytes; generation; the model that the data are bound to.

        shards: how the features lie in memory; search: what scoring them costs; None before they were first needed.
        """
        with self._database.read() as tx:
            num_videos, num_segments = videos.count_ready(tx)
            generation, spec = tx.last_seq(), bound_model.bound(tx)
            num_jobs, progress = queue.counts(tx), queue.progress(tx)
        catalogue_bytes = total_bytes(self.folder.glob(CATALOGUE_FILE + "*"))
        follower = self._parts.loaded_follower
        return {
            "videos": num_videos,
            "segments": num_segments,
            "jobs": num_jobs,
            "queue": progress,
            "generation": generation,
            "model": None if spec is None else spec.name,
            "fingerprint": None if spec is None else spec.fingerprint,
            "precision": None if spec is None else spec.precision,
            "bytes": {"catalogue": catalogue_bytes, "media": self.storage.size_bytes()},
            "shards": None if follower is None else follower.vectors.describe(),
            "unreadable": {} if follower is None else dict(follower.vectors.unreadable),
            "search": None if (searcher := self._parts.loaded_searcher) is None else searcher.stats(),
        }

    # ---- helpers

    def _search(
        self,
        query: Query,
        options: SearchOptions,
        started: float,
        *,
        without: str | None = None,
        warnings: Sequence[tuple[str, str]] = (),
    ) -> SearchAnswer:
        encode_ms = (time.perf_counter() - started) * 1e3
        follower = self._parts.follower
        found = list(warnings)
        if not follower.catch_up():
            found.append(("index_behind", "The newest videos are still being read; search again."))
        return self._parts.searcher.search(
            query,
            follower.vectors.view(),
            self._parts.reader,
            options,
            without_video_id=without,
            encode_ms=encode_ms,
            warnings=found,
        )

    def _readable(self, video: Video) -> Path:
        """The path of a video's file. Raises: FileMissing, also if a link was put in its place."""
        self.storage.open_file(video).close()
        return video.path

    def _clip(self, path: Path, start_s: float | None, end_s: float | None) -> VideoFeatures:
        from indexer.search.queries import clip_features

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
