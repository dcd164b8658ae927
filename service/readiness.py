"""Whether searches are answered: now and then a real search is made, with a short time limit.

A model that hangs blocks one probing thread; no second one is started meanwhile. This file knows no HTTP.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from model.errors import VidgrainError
from service.errors import NotReady

log = logging.getLogger("vidgrain.readiness")


class Readiness:
    """Runs `probe` at most every fresh_s seconds. Thread-safe."""

    def __init__(self, probe: Callable[[], object], *, fresh_s: float = 15.0, patience_s: float = 5.0) -> None:
        """probe: makes a test search. fresh_s: how long a success counts. patience_s: how long `check` waits."""
        self._probe = probe
        self._fresh_s = fresh_s
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._under_way: threading.Event | None = None
        self._began_s = 0.0
        self._succeeded_s: float | None = None
        self._reason = "no search has been tried yet"

    def check(self) -> float:
        """Seconds since the last successful probe; a stale one is repeated. Raises: NotReady with the reason."""
        age_s = self._age_s()
        if age_s is not None and age_s < self._fresh_s:
            return age_s
        done = self._start()
        if not done.wait(self._patience_s):
            raise NotReady(f"a test search has not returned for {time.monotonic() - self._began_s:.0f} s")
        age_s = self._age_s()
        if age_s is None or age_s >= self._fresh_s:
            raise NotReady(self._reason)
        return age_s

    def _age_s(self) -> float | None:
        succeeded_s = self._succeeded_s
        return None if succeeded_s is None else time.monotonic() - succeeded_s

    def _start(self) -> threading.Event:
        with self._lock:
            if self._under_way is None:
                self._under_way = threading.Event()
                self._began_s = time.monotonic()
                threading.Thread(target=self._run, args=(self._under_way,), name="readiness", daemon=True).start()
            return self._under_way

    def _run(self, done: threading.Event) -> None:
        try:
            self._probe()
            self._succeeded_s = time.monotonic()
        except Exception as error:  # the top of a thread: /readyz reports whatever it is
            self._succeeded_s = None
            self._reason = f"a test search failed: {error.code if isinstance(error, VidgrainError) else 'internal'}"
            log.warning("readiness_failed", exc_info=True)
        with self._lock:
            self._under_way = None
        done.set()
