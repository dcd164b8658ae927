"""Wake-ups through Redis: of idle workers when a job is queued, of servers when a video is published.

Redis is optional and keeps nothing that must survive: without it workers and servers poll, and react a little later.
A worker's wake-up is an item of a list, so that it is not lost while all workers are busy; the list expires after a
minute. This file knows no job: the catalogue has what there is to do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from service.redis_door import PAUSE_AFTER_FAILURE_S, RedisDoor

_KEY = "vidgrain:wake"
_CHANNEL = "vidgrain:published"
_KEPT_S = 60
_MAX_WAITING = 64
_LONGEST_WAIT_S = 20.0
_LISTEN_S = 1.0


class Wake:
    """Wakes workers (notify, wait) and servers (published, on_published). Thread-safe. url None: nothing is sent.

    A Redis that doesn't answer is warned of once until it answers again, and costs at most half a second of every five.
    """

    def __init__(self, url: str | None) -> None:
        self._is_there = url is not None
        self._door = RedisDoor(url, "workers poll")
        self._notifier = self._door.client()
        self._waiter = self._door.client(_LONGEST_WAIT_S + 5.0)
        self._closed = threading.Event()

    def notify(self) -> None:
        """Wake one worker, after queueing a job. Never raises for a Redis that doesn't answer."""
        self._door.ask(self._notifier, _push)

    def wait(self, timeout_s: float) -> None:
        """Return when notified, when closed, or after timeout_s (at most 20 s when Redis is there)."""
        ends_s = time.monotonic() + timeout_s
        blocks_s = max(0.01, min(timeout_s, _LONGEST_WAIT_S))
        if self._door.ask(self._waiter, lambda redis: (redis.blpop([_KEY], timeout=blocks_s), True)) is None:
            self._closed.wait(max(0.0, ends_s - time.monotonic()))

    def published(self) -> None:
        """Wake the servers that hold vectors. Never raises for a Redis that doesn't answer."""
        self._door.ask(self._notifier, lambda redis: redis.publish(_CHANNEL, "1"))

    def on_published(self, call: Callable[[], object]) -> None:
        """From now on run `call`, in a thread, whenever some process publishes; nothing without a Redis."""
        if self._is_there:
            threading.Thread(target=self._listen, args=(call,), name="published", daemon=True).start()

    def _listen(self, call: Callable[[], object]) -> None:
        client = self._door.client()
        while not self._closed.is_set():
            try:
                with client.pubsub(ignore_subscribe_messages=True) as messages:
                    messages.subscribe(_CHANNEL)
                    call()  # something may have been published while nobody listened
                    while not self._closed.is_set():
                        if messages.get_message(timeout=_LISTEN_S) is not None:
                            call()
            except self._door.failures():  # `notify` and `wait` report it; the servers poll meanwhile
                self._closed.wait(PAUSE_AFTER_FAILURE_S)
            finally:
                client.close()

    def is_there(self) -> bool:
        """Whether there is a Redis and it answers now."""
        return bool(self._door.ask(self._notifier, lambda redis: redis.ping()))

    def close(self) -> None:
        """End the connections; a wait without Redis returns at once."""
        self._closed.set()
        self._door.close(self._notifier, self._waiter)


def _push(redis: Any) -> None:
    with redis.pipeline(transaction=True) as pipe:
        pipe.lpush(_KEY, "1").ltrim(_KEY, 0, _MAX_WAITING - 1).expire(_KEY, _KEPT_S).execute()
