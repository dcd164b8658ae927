"""Wake-ups through Redis: of idle workers when a job is queued, of servers when a video is published.

Redis is optional and keeps nothing that must survive: without it workers and servers poll, and react a little later.
A worker's wake-up is an item of a list, so that it is not lost while all workers are busy; the list expires after a
minute. This file knows no job: the catalogue has what there is to do. It is the only file that imports redis.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

log = logging.getLogger("vidgrain.wake")

_KEY = "vidgrain:wake"
_CHANNEL = "vidgrain:published"
_KEPT_S = 60
_MAX_WAITING = 64
_ANSWER_TIMEOUT_S = 0.5
_LONGEST_WAIT_S = 20.0
_PAUSE_AFTER_FAILURE_S = 5.0
_LISTEN_S = 1.0


class Wake:
    """Wakes workers (notify, wait) and servers (published, on_published). Thread-safe. url None: nothing is sent.

    A Redis that doesn't answer is warned of once until it answers again, and costs at most half a second of every five.
    """

    def __init__(self, url: str | None) -> None:
        self._url = url
        self._notifier = _client(url, _ANSWER_TIMEOUT_S) if url is not None else None
        self._waiter = _client(url, _LONGEST_WAIT_S + 5.0) if url is not None else None
        self._has_failed = False
        self._silent_until_s = 0.0
        self._closed = threading.Event()

    def notify(self) -> None:
        """Wake one worker, after queueing a job. Never raises for a Redis that doesn't answer."""
        self._ask(self._notifier, _push)

    def wait(self, timeout_s: float) -> None:
        """Return when notified, when closed, or after timeout_s (at most 20 s when Redis is there)."""
        ends_s = time.monotonic() + timeout_s
        blocks_s = max(0.01, min(timeout_s, _LONGEST_WAIT_S))
        if self._ask(self._waiter, lambda redis: (redis.blpop([_KEY], timeout=blocks_s), True)) is None:
            self._closed.wait(max(0.0, ends_s - time.monotonic()))

    def published(self) -> None:
        """Wake the servers that hold vectors. Never raises for a Redis that doesn't answer."""
        self._ask(self._notifier, lambda redis: redis.publish(_CHANNEL, "1"))

    def on_published(self, call: Callable[[], object]) -> None:
        """From now on run `call`, in a thread, whenever some process publishes; nothing without a Redis."""
        if self._url is not None:
            threading.Thread(target=self._listen, args=(self._url, call), name="published", daemon=True).start()

    def _listen(self, url: str, call: Callable[[], object]) -> None:
        from redis import RedisError

        while not self._closed.is_set():
            client = _client(url, _ANSWER_TIMEOUT_S)
            try:
                with client.pubsub(ignore_subscribe_messages=True) as messages:
                    messages.subscribe(_CHANNEL)
                    call()  # something may have been published while nobody listened
                    while not self._closed.is_set():
                        if messages.get_message(timeout=_LISTEN_S) is not None:
                            call()
            except (RedisError, OSError):  # `notify` and `wait` report it; the servers poll meanwhile
                self._closed.wait(_PAUSE_AFTER_FAILURE_S)
            finally:
                client.close()

    def is_there(self) -> bool:
        """Whether there is a Redis and it answers now."""
        return bool(self._ask(self._notifier, lambda redis: redis.ping()))

    def close(self) -> None:
        """End the connections; a wait without Redis returns at once."""
        self._closed.set()
        for client in (self._notifier, self._waiter):
            if client is not None:
                client.close()

    def _ask(self, client: Any, call: Callable[[Any], Any]) -> Any:
        """What call(client) returns; None without a client, and while Redis doesn't answer."""
        if client is None or time.monotonic() < self._silent_until_s:
            return None
        from redis import RedisError

        try:
            answer = call(client)
        except (RedisError, OSError) as error:
            self._silent_until_s = time.monotonic() + _PAUSE_AFTER_FAILURE_S
            if not self._has_failed and not self._closed.is_set():
                log.warning("redis_unavailable", extra={"reason": str(error), "effect": "workers poll"})
            self._has_failed = True
            return None
        if self._has_failed:
            self._has_failed = False
            log.info("redis_came_back")
        return answer


def _client(url: str, answer_timeout_s: float) -> Any:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return redis.Redis.from_url(
        url,
        socket_connect_timeout=_ANSWER_TIMEOUT_S,
        socket_timeout=answer_timeout_s,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
    )


def _push(redis: Any) -> None:
    with redis.pipeline(transaction=True) as pipe:
        pipe.lpush(_KEY, "1").ltrim(_KEY, 0, _MAX_WAITING - 1).expire(_KEY, _KEPT_S).execute()
