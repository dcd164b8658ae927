"""Keeps the vectors up to date with the catalogue in a thread of its own, so that no search pays for new videos.

It knows no model and no SQL.
"""

from __future__ import annotations

import logging
import threading
import time

from indexer.errors import CatalogueBusy
from indexer.vectors import Feed, VectorIndex
from model.errors import VidgrainError

log = logging.getLogger("vidgrain.follower")

PATIENCE_S = 1.0
"""How long a search waits for videos that were published just before it."""


class Follower:
    """Runs between `start` and `stop`. Thread-safe."""

    def __init__(self, vectors: VectorIndex, catalogue: Feed, *, poll_s: float = 1.0) -> None:
        """poll_s: seconds between two reads of the change feed without a call of `wake`."""
        self.vectors = vectors
        self._catalogue = catalogue
        self._poll_s = poll_s
        self._woken = threading.Event()
        self._moved = threading.Condition()
        self._is_stopped = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread. Harmless when repeated."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="follower", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread. Harmless when repeated."""
        self._is_stopped = True
        self._woken.set()
        if self._thread is not None:
            self._thread.join()

    def wake(self) -> None:
        """Read the change feed now: something was published."""
        self._woken.set()

    def catch_up(self, patience_s: float = PATIENCE_S) -> bool:
        """Whether the vectors hold everything published before this call; waits at most patience_s for it.

        Without a running thread the caller reads the feed itself. Raises: CatalogueUnreadable, CatalogueBusy.
        """
        wanted = self._catalogue.last_seq()
        if self.vectors.generation >= wanted:
            return True
        if self._thread is None:
            self.vectors.follow(self._catalogue)
            return True
        ends_s = time.monotonic() + patience_s
        self.wake()
        with self._moved:
            while self.vectors.generation < wanted and not self._is_stopped:
                if not self._moved.wait(max(0.0, ends_s - time.monotonic())):
                    break
        return self.vectors.generation >= wanted

    def _run(self) -> None:
        while not self._is_stopped:
            self._woken.clear()
            try:
                self.vectors.follow(self._catalogue)
            except CatalogueBusy as error:
                log.warning("follow_postponed", extra={"error_code": error.code, "error_message": str(error)})
            except VidgrainError as error:  # searches read the catalogue too and report it; the next read may succeed
                log.error("follow_failed", extra={"error_code": error.code, "error_message": str(error)})
            with self._moved:
                self._moved.notify_all()
            self._woken.wait(self._poll_s)
