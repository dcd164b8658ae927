"""What searches and the vectors in memory read from the catalogue; every read is consistent in itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.catalogue import segments, videos
from indexer.catalogue.database import Database
from indexer.catalogue.rows import Transaction
from indexer.records import StoredSegment, Video, VideoChange


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The catalogue at one moment."""

    tx: Transaction

    def changes(self, after_seq: int, limit: int = 1000) -> tuple[VideoChange, ...]:
        """Videos that changed after `after_seq`, in order of seq, each once; only those that were ever searchable."""
        return segments.changes_after(self.tx, after_seq, limit)

    def segments(self, video_id: str) -> tuple[StoredSegment, ...]:
        """A video's segments in order of time. Raises: CatalogueUnreadable if the bytes of one have changed."""
        return segments.read_segments(self.tx, video_id)

    def num_stored(self) -> int:
        """The number of stored segments of all videos."""
        return segments.count(self.tx)


class CatalogueReader:
    """Reads one catalogue, in a transaction per call."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def last_seq(self) -> int:
        """The number of the newest change, 0 at first; it rises with every change of what a search may show."""
        with self._database.read() as tx:
            return tx.last_seq()

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """The catalogue as it is now, unchanged for as long as the block runs."""
        with self._database.read() as tx:
            yield Snapshot(tx)

    def segment_ids(self, filter: Mapping[str, Any] | None, video_ids: Sequence[str] | None) -> NDArray[np.int64]:
        """The sorted ids of segments whose video passes the filter and is among video_ids (None: any)."""
        with self._database.read() as tx:
            return segments.searchable_ids(tx, filter, video_ids)

    def live_videos(self, ids: Sequence[str]) -> dict[str, Video]:
        """Those of the ids that are videos, by id; unknown ones are left out."""
        with self._database.read() as tx:
            return videos.live(tx, ids)
