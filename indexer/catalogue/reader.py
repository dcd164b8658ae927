"""What searches and the vectors in memory read from the catalogue; every read is consistent in itself."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.catalogue import segments, videos
from indexer.catalogue.database import Database
from indexer.catalogue.filters import compile_filter
from indexer.catalogue.rows import Transaction
from indexer.records import PublishedVideo, Video, VideoChange

FILTERS_KEPT = 16
"""Results of filters that are kept; one has 8 bytes for each video that passes."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The catalogue at one moment."""

    tx: Transaction

    def last_seq(self) -> int:
        """The number of the newest change, 0 at first."""
        return self.tx.last_seq()

    def published(self) -> NDArray[np.int64]:
        """Every video that can be found, in order of number. (V, 3): number, features_seq, num_segments."""
        return segments.published(self.tx)

    def videos(self, first_number: int, last_number: int) -> Iterator[PublishedVideo]:
        """The videos that can be found among a range of numbers, in that order, with their features."""
        return segments.published_videos(self.tx, first_number, last_number)

    def changes(self, after_seq: int, limit: int = 1000) -> tuple[VideoChange, ...]:
        """Videos that changed after `after_seq`, in order of seq, each once; only those that were ever searchable."""
        return segments.changes_after(self.tx, after_seq, limit)

    def num_stored(self) -> int:
        """The number of stored segments of all videos."""
        return segments.count(self.tx)


class CatalogueReader:
    """Reads one catalogue, in a transaction per call. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._allowed: OrderedDict[object, tuple[int, NDArray[np.int64]]] = OrderedDict()
        self._lock = threading.Lock()

    def last_seq(self) -> int:
        """The number of the newest change, 0 at first; it rises with every change of what a search may show."""
        with self._database.read() as tx:
            return tx.last_seq()

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """The catalogue as it is now, unchanged for as long as the block runs."""
        with self._database.read() as tx:
            yield Snapshot(tx)

    def allowed_numbers(
        self, filter: Mapping[str, Any] | None, video_ids: Sequence[str] | None = None
    ) -> NDArray[np.int64]:
        """The sorted numbers of the videos that can be found, pass the filter and are among video_ids (None: any).

        Kept until the catalogue changes; don't write into it. Raises: InvalidFilter.
        """
        clause = compile_filter(filter)
        key = clause, None if video_ids is None else tuple(video_ids)
        with self._database.read() as tx:
            seq = tx.last_seq()  # rises with every change of a video that can be found
            with self._lock:
                known = self._allowed.get(key)
                if known is not None and known[0] == seq:
                    self._allowed.move_to_end(key)
                    return known[1]
            numbers = segments.allowed_numbers(tx, clause, video_ids)
        numbers.flags.writeable = False
        with self._lock:
            self._allowed[key] = seq, numbers
            self._allowed.move_to_end(key)
            while len(self._allowed) > FILTERS_KEPT:
                self._allowed.popitem(last=False)
        return numbers

    def live_videos(self, ids: Sequence[str]) -> dict[str, Video]:
        """Those of the ids that are videos, by id; unknown ones are left out."""
        with self._database.read() as tx:
            return videos.live(tx, ids)
