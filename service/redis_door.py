"""The door to Redis: clients of one server that may be away, and must then cost next to nothing. Only it imports redis.

After a failure, or an answer that took too long, nothing is asked for a while. It knows no key and no job.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

log = logging.getLogger("vidgrain.redis")

T = TypeVar("T")

ANSWER_TIMEOUT_S = 0.5
PAUSE_AFTER_FAILURE_S = 5.0


class RedisDoor:
    """Asks one Redis. Thread-safe. A failure is logged once, until it answers again; a refusal is no reason to pause.

    url None: there is no Redis, and nothing is asked. effect: what its absence means, for the log.
    timeout_s: how long connecting, and an answer, may take. slow_s: an answer that took longer counts as a failure.
    pause_s: how long nothing is asked after a failure.
    """

    def __init__(
        self,
        url: str | None,
        effect: str,
        *,
        timeout_s: float = ANSWER_TIMEOUT_S,
        slow_s: float | None = None,
        pause_s: float = PAUSE_AFTER_FAILURE_S,
    ) -> None:
        self._url = url
        self._effect = effect
        self._timeout_s = timeout_s
        self._slow_s = slow_s
        self._pause_s = pause_s
        self._silent_until_s = 0.0
        self._has_failed = False
        self._closed = threading.Event()

    def client(self, answer_timeout_s: float | None = None) -> Any:
        """A client with a pool of connections, for its owner to close; None without a Redis. Connects when used."""
        if self._url is None:
            return None
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        return redis.Redis.from_url(
            self._url,
            socket_connect_timeout=self._timeout_s,
            socket_timeout=answer_timeout_s or self._timeout_s,
            socket_keepalive=True,
            retry=Retry(NoBackoff(), 0),
        )

    def ask(self, client: Any, call: Callable[[Any], T]) -> T | None:
        """What call(client) returns; None without a client, after a failure, and while nothing is asked."""
        if client is None or self.is_silent:
            return None
        began_s = time.monotonic()
        try:
            answer = call(client)
        except self.failures() as error:
            self._fail(error)
            return None
        took_s = time.monotonic() - began_s
        if self._slow_s is not None and took_s > self._slow_s:
            self._pause(f"it took {took_s:.3f} s to answer")
        elif self._has_failed:
            self._has_failed = False
            log.info("redis_came_back", extra={"effect": self._effect})
        return answer

    @property
    def is_silent(self) -> bool:
        """Whether nothing is asked just now."""
        return time.monotonic() < self._silent_until_s

    @staticmethod
    def failures() -> tuple[type[Exception], ...]:
        """What a client raises when its Redis fails or refuses."""
        from redis import RedisError

        return RedisError, OSError

    def close(self, *clients: Any) -> None:
        """End these clients' connections; failures are no longer logged. Harmless when repeated."""
        self._closed.set()
        for client in clients:
            if client is not None:
                client.close()

    def _fail(self, error: Exception) -> None:
        from redis import ResponseError

        if isinstance(error, ResponseError):  # it answered at once: a value of another kind, no memory left
            self._warn(str(error))
        else:
            self._pause(str(error))

    def _pause(self, reason: str) -> None:
        self._silent_until_s = time.monotonic() + self._pause_s
        self._warn(reason)

    def _warn(self, reason: str) -> None:
        if not self._has_failed and not self._closed.is_set():
            log.warning("redis_unavailable", extra={"reason": reason, "effect": self._effect})
        self._has_failed = True
