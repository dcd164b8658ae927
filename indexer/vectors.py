"""FAISS's door: pooled and frame embeddings of every live segment, searched, gathered, and kept up with the catalogue.

Letters: Q queries, N segments held, F frame slots, D width of frames, P width of pooled vectors, K results asked for.
Two flat fp16 inner-product indexes, one row per segment and one per real frame. Rows keep the order in which segments
came (removal closes the gap), so a table beside them says what each row is; FAISS's own id maps are not needed, and the
reranker reads the very memory that FAISS searches. Everything here is derived: thrown away and built again from the
catalogue at no loss. It knows no model and no file.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from indexer.errors import BackendMissing, CatalogueUnreadable
from indexer.locks import ReadersWriterLock
from indexer.records import StoredSegment, VideoChange
from model.threads import limit_this_thread

FEED_PAGE = 1000
"""Changes read from the catalogue at once."""
SEGMENTS_PER_BATCH = 4096
"""Segments staged before they are written; bounds memory while an index is built."""

Ids = NDArray[np.int64]


class Snapshot(Protocol):
    """What is needed of a catalogue at one moment: its change feed, a video's segments, how many are stored."""

    def changes(self, after_seq: int, limit: int = ...) -> Sequence[VideoChange]: ...
    def segments(self, video_id: str) -> Sequence[StoredSegment]: ...
    def num_stored(self) -> int: ...


class Feed(Protocol):
    """A catalogue that can be looked at."""

    def last_seq(self) -> int: ...
    def snapshot(self) -> AbstractContextManager[Snapshot]: ...


@dataclass(frozen=True, slots=True)
class Recall:
    """What recall found for Q queries."""

    segment_ids: Ids
    """(Q, K) int64, best first; -1 where there are fewer than K."""
    scores: NDArray[np.float32]
    """(Q, K) float32; -inf where there are fewer than K."""


@dataclass(frozen=True, slots=True)
class SegmentTable:
    """What each of N rows is."""

    segment_ids: Ids
    """(N,)"""
    video_codes: Ids
    """(N,) this process's short number for a video, see VectorIndex.video_id."""
    start_s: NDArray[np.float64]
    """(N,)"""
    end_s: NDArray[np.float64]
    """(N,)"""
    num_frames: Ids
    """(N,)"""
    times_s: NDArray[np.float64]
    """(N, F); slots past num_frames hold 0 s."""

    def take(self, rows: NDArray[Any]) -> SegmentTable:
        """Some of the rows, by number or by bool mask."""
        return SegmentTable(*(getattr(self, column.name)[rows] for column in fields(self)))

    @staticmethod
    def concat(tables: Sequence[SegmentTable]) -> SegmentTable:
        """Tables under one another."""
        names = [column.name for column in fields(SegmentTable)]
        return SegmentTable(*(np.concatenate([getattr(table, name) for table in tables]) for name in names))

    @staticmethod
    def empty(num_slots: int) -> SegmentTable:
        """No segments of F = num_slots."""
        ids, seconds = np.empty(0, dtype=np.int64), np.empty(0)
        return SegmentTable(ids, ids, seconds, seconds, ids, np.empty((0, num_slots)))


@dataclass(frozen=True, slots=True)
class SegmentBlock:
    """Copies of the features of N segments."""

    table: SegmentTable
    pooled: NDArray[np.float16]
    """(N, P)"""
    frames: NDArray[np.float16]
    """(N, F, D)"""
    mask: NDArray[np.bool_]
    """(N, F), True = real"""


class VectorIndex:
    """Recall over pooled and over frame embeddings. Safe to share by threads: many search, one follows.

    pooled_dim: P, D if not given. Raises: BackendMissing where FAISS is not installed, or too old to filter.
    """

    def __init__(self, dim: int, num_frames: int, *, pooled_dim: int | None = None) -> None:
        self._faiss = _import_faiss()
        self._dim = dim
        self._pooled_dim = pooled_dim or dim
        self._num_slots = num_frames
        self._lock = ReadersWriterLock()
        self._following = threading.Lock()
        self._pooled: Any
        self._frames: Any
        self._codes: dict[str, int] = {}
        self._names: list[str] = []
        self._unreadable: dict[str, str] = {}
        self._num_lost = 0
        self._clear()

    @property
    def generation(self) -> int:
        """The newest change of the catalogue that is in here."""
        return self._seq

    @property
    def num_segments(self) -> int:
        """Segments held."""
        return len(self._table.segment_ids)

    @property
    def num_videos(self) -> int:
        """Videos held."""
        return self._num_videos

    @property
    def unreadable(self) -> dict[str, str]:
        """Videos left out because their features can't be read: id -> why."""
        return dict(self._unreadable)

    @property
    def num_lost(self) -> int:
        """Stored segments that no video of the change feed claims: more than 0 only in a damaged catalogue."""
        return self._num_lost

    @property
    def is_whole(self) -> bool:
        """Whether everything that is stored could be read."""
        return not self._unreadable and not self._num_lost

    def video_id(self, code: int) -> str:
        """The video of a code of SegmentTable.video_codes; a code keeps its meaning as long as this index lives."""
        return self._names[code]

    def video_code(self, video_id: str) -> int:
        """The code of a video, -1 if it was never held."""
        return self._codes.get(video_id, -1)

    def all_ids(self, without_video_id: str | None = None) -> Ids:
        """The segments held, all but one video's if one is named."""
        table = self._table
        if without_video_id is not None:
            table = table.take(table.video_codes != self.video_code(without_video_id))
        return table.segment_ids

    def follow(self, catalogue: Feed) -> int:
        """Catch up with the catalogue and return the seq reached; one short query where nothing changed.

        A video whose stored features are damaged, or not all there, is left out and named in `unreadable`.
        """
        with self._following:
            if catalogue.last_seq() == self._seq:
                return self._seq
            is_first = self._seq == 0
            with catalogue.snapshot() as now:
                num_missing = 0
                while page := now.changes(self._seq, FEED_PAGE):
                    num_missing += self._follow_page(now, page)
                if is_first:
                    self._num_lost = max(0, now.num_stored() - self.num_segments - num_missing)
            return self._seq

    def recall(self, queries: NDArray[np.float32], k: int, allowed: Ids | None = None) -> Recall:
        """The k segments whose pooled embedding has the largest inner product with each query.

        Shapes: queries (Q, P); allowed int64 segment ids that may be found (None: all), applied before the top k.
        """
        with self._lock.reading():
            table = self._table
            can_pass = None if allowed is None else self._rows_allowed(allowed)
            rows, scores = self._search(self._pooled, queries, k, can_pass)
            return Recall(_named(table.segment_ids, rows), scores)

    def recall_frames(self, queries: NDArray[np.float32], k: int, allowed: Ids | None = None) -> Recall:
        """As `recall`, but of queries (Q, D) by the best single frame of each segment: finds what pooling hides."""
        with self._lock.reading():
            table, first = self._table, self._first_frame
            can_pass = None if allowed is None else np.repeat(self._rows_allowed(allowed), table.num_frames)
            rows, scores = self._search(self._frames, queries, k * self._num_slots, can_pass)
            segment_rows = np.where(rows < 0, -1, np.searchsorted(first, rows, side="right") - 1)
            best = [_first_of_each(row, score, k) for row, score in zip(segment_rows, scores, strict=True)]
        width = max((len(row) for row, _ in best), default=0)
        found = Recall(np.full((len(best), width), -1, np.int64), np.full((len(best), width), -np.inf, np.float32))
        for q, (row, score) in enumerate(best):
            found.segment_ids[q, : len(row)] = table.segment_ids[row]
            found.scores[q, : len(row)] = score
        return found

    def features(self, segment_ids: Ids) -> SegmentBlock:
        """The features of those of the segments that are still held, in the order asked."""
        with self._lock.reading():
            rows = self._rows_of(segment_ids)
            table = self._table.take(rows)
            mask = np.arange(self._num_slots)[None, :] < table.num_frames[:, None]
            frames = np.zeros((len(rows), self._num_slots, self._dim), dtype=np.float16)
            frame_rows = self._first_frame[rows][:, None] + np.arange(self._num_slots)[None, :]
            if len(rows):
                frames[mask] = self._stored(self._frames, self._dim)[frame_rows[mask]]
                pooled = self._stored(self._pooled, self._pooled_dim)[rows]
            else:
                pooled = np.empty((0, self._pooled_dim), dtype=np.float16)
            return SegmentBlock(table, pooled, frames, mask)

    # ---- following

    def _follow_page(self, catalogue: Snapshot, page: Sequence[VideoChange]) -> int:
        """Returns the number of segments that are stored and can't be used."""
        changed: list[str] = []
        staged: list[StoredSegment] = []
        num_missing = 0
        for change in page:
            self._unreadable.pop(change.video_id, None)
            changed.append(change.video_id)
            if change.is_live:
                try:
                    staged.extend(_all_segments(catalogue, change))
                except CatalogueUnreadable as error:
                    self._unreadable[change.video_id] = str(error)
                    num_missing += change.num_segments
            if len(staged) >= SEGMENTS_PER_BATCH:
                self._replace(changed, staged, change.seq)
                changed, staged = [], []
        self._replace(changed, staged, page[-1].seq)
        return num_missing

    def _replace(self, video_ids: Sequence[str], segments: Sequence[StoredSegment], seq: int) -> None:
        """Take the videos' old segments out and the new ones in; searches see both or neither."""
        new, pooled, frames = self._stage(segments)
        codes = np.array([self.video_code(video_id) for video_id in video_ids], dtype=np.int64)
        gone = np.isin(self._table.video_codes, codes)
        table = SegmentTable.concat([self._table.take(~gone), new]) if gone.any() or len(segments) else self._table
        with self._lock.writing():
            try:
                if gone.any():
                    self._frames.remove_ids(self._selector(np.repeat(gone, self._table.num_frames)))
                    self._pooled.remove_ids(self._selector(gone))
                if len(segments):
                    self._pooled.add(pooled)
                    self._frames.add(frames)
            except BaseException:
                self._clear()  # half a step would give wrong rows: start over from the catalogue
                raise
            self._hold(table)
            self._seq = seq

    def _stage(
        self, segments: Sequence[StoredSegment]
    ) -> tuple[SegmentTable, NDArray[np.float32], NDArray[np.float32]]:
        parts = [segment.features for segment in segments]
        times_s = np.zeros((len(parts), self._num_slots))
        for row, part in enumerate(parts):
            times_s[row, : len(part.times_s)] = part.times_s
        table = SegmentTable(
            segment_ids=np.array([segment.id for segment in segments], dtype=np.int64),
            video_codes=np.array([self._code_of(segment.video_id) for segment in segments], dtype=np.int64),
            start_s=np.array([part.start_s for part in parts], dtype=np.float64),
            end_s=np.array([part.end_s for part in parts], dtype=np.float64),
            num_frames=np.array([len(part.frames) for part in parts], dtype=np.int64),
            times_s=times_s,
        )
        if not parts:
            return table, np.empty((0, self._pooled_dim), np.float32), np.empty((0, self._dim), np.float32)
        pooled = np.stack([part.pooled for part in parts]).astype(np.float32)
        return table, pooled, np.concatenate([part.frames for part in parts]).astype(np.float32)

    def _code_of(self, video_id: str) -> int:
        if video_id not in self._codes:
            self._names.append(video_id)
            self._codes[video_id] = len(self._names) - 1
        return self._codes[video_id]

    def _clear(self) -> None:
        self._seq = 0
        self._pooled, self._frames = self._new_index(self._pooled_dim), self._new_index(self._dim)
        self._hold(SegmentTable.empty(self._num_slots))

    def _hold(self, table: SegmentTable) -> None:
        self._table = table
        self._first_frame = np.cumsum(table.num_frames) - table.num_frames
        self._by_id = np.argsort(table.segment_ids, kind="stable")
        self._num_videos = len(np.unique(table.video_codes))

    # ---- rows

    def _rows_of(self, segment_ids: Ids) -> Ids:
        """Rows of those of the ids that are held, in the order asked."""
        if not self.num_segments:
            return np.empty(0, dtype=np.int64)
        sorted_ids = self._table.segment_ids[self._by_id]
        at = np.minimum(np.searchsorted(sorted_ids, segment_ids), len(sorted_ids) - 1)
        rows: Ids = self._by_id[at[sorted_ids[at] == segment_ids]]
        return rows

    def _rows_allowed(self, segment_ids: Ids) -> NDArray[np.bool_]:
        can_pass = np.zeros(self.num_segments, dtype=np.bool_)
        can_pass[self._rows_of(segment_ids)] = True
        return can_pass

    # ---- FAISS

    def _new_index(self, width: int) -> Any:
        return self._faiss.IndexScalarQuantizer(
            width, self._faiss.ScalarQuantizer.QT_fp16, self._faiss.METRIC_INNER_PRODUCT
        )

    def _search(
        self, index: Any, queries: NDArray[np.float32], k: int, can_pass: NDArray[np.bool_] | None
    ) -> tuple[Ids, NDArray[np.float32]]:
        """Rows (Q, k') and scores, k' = min(k, rows that may be found); row -1 and score -inf where there is none."""
        k = min(k, int(index.ntotal) if can_pass is None else int(can_pass.sum()))
        if k <= 0:
            return np.empty((len(queries), 0), dtype=np.int64), np.empty((len(queries), 0), dtype=np.float32)
        selector = None if can_pass is None else self._selector(can_pass)
        params = None if selector is None else self._faiss.SearchParameters(sel=selector)
        limit_this_thread(self._faiss.omp_set_num_threads)
        scores, rows = index.search(np.ascontiguousarray(queries, dtype=np.float32), k, params=params)
        return rows, np.where(rows < 0, -np.inf, scores).astype(np.float32)

    def _selector(self, can_pass: NDArray[np.bool_]) -> Any:
        """A bitmap over rows. FAISS points into `bits`: the selector is given them to keep alive."""
        bits = np.packbits(can_pass, bitorder="little")
        selector = self._faiss.IDSelectorBitmap(bits)
        selector.bits_kept_alive = bits
        return selector

    def _stored(self, index: Any, width: int) -> NDArray[np.float16]:
        """The index's own memory as (rows, width) float16; valid while the lock is held."""
        raw: NDArray[np.uint8] = self._faiss.rev_swig_ptr(index.codes.data(), index.codes.size())
        return raw.view(np.float16).reshape(-1, width)


def _all_segments(catalogue: Snapshot, change: VideoChange) -> Sequence[StoredSegment]:
    """Raises: CatalogueUnreadable if there are more or fewer than the video's row has it."""
    found = catalogue.segments(change.video_id)
    if len(found) != change.num_segments:
        raise CatalogueUnreadable(
            f"{len(found)} of the {change.num_segments} segments of video {change.video_id!r} are there.",
            "Restore the data folder from a backup, or remove the video and add it again.",
        )
    return found


def _named(segment_ids: Ids, rows: Ids) -> Ids:
    if not rows.size:
        return rows
    named: Ids = np.where(rows < 0, -1, segment_ids[rows])
    return named


def _first_of_each(rows: Ids, scores: NDArray[np.float32], k: int) -> tuple[Ids, NDArray[np.float32]]:
    """The first k different rows with their scores, -1 left out; of a list that is sorted by score."""
    _, first = np.unique(rows, return_index=True)
    first = np.sort(first[rows[first] >= 0])[:k]
    return rows[first], scores[first]


def _import_faiss() -> ModuleType:
    hint = "Install one of the two: pip install 'vidgrain[cpu]' or pip install 'vidgrain[gpu]'."
    try:
        import faiss
    except ImportError as error:
        raise BackendMissing("FAISS is not installed.", hint) from error
    if not hasattr(faiss, "SearchParameters") or not hasattr(faiss, "IDSelectorBitmap"):
        raise BackendMissing(f"FAISS {faiss.__version__} is too old: it can't filter while it searches.", hint)
    module: ModuleType = faiss
    return module
