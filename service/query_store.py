"""Encoded queries in Redis, shared by the replicas of a service. model/query_cache.py knows what the entries hold.

An entry expires; a Redis that is away, hangs or is slow costs a search some tens of milliseconds once, and then
isn't asked for a while.
"""

from __future__ import annotations

from service.redis_door import RedisDoor

_PREFIX = "vidgrain:query:"
_KEPT_S = 7 * 24 * 3600
TIMEOUT_S = 0.03
SLOW_S = 0.02
_PAUSE_S = 30.0
_MAX_BYTES = 1_000_000
"""A longer value isn't ours: the longest sentence of the widest model has less."""


class RedisQueries:
    """QueryStore of a Redis. Thread-safe; neither verb raises.

    timeout_s: the longest that Redis may take to connect, and to answer. slow_s: an answer that takes longer is the
    last one for a while; it stops a Redis that is as slow as encoding from being asked each time.
    """

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S, slow_s: float | None = SLOW_S) -> None:
        effect = "queries are encoded again"
        self._door = RedisDoor(url, effect, timeout_s=timeout_s, slow_s=slow_s, pause_s=_PAUSE_S)
        self._client = self._door.client()

    def get(self, key: str) -> bytes | None:
        """The entry, None if there is none, or Redis doesn't answer at once."""
        found = self._door.ask(self._client, lambda redis: redis.getrange(_PREFIX + key, 0, _MAX_BYTES))
        return found if isinstance(found, bytes) and 0 < len(found) <= _MAX_BYTES else None

    def put(self, key: str, value: bytes) -> None:
        """Keep an entry."""
        self._door.ask(self._client, lambda redis: redis.set(_PREFIX + key, value, ex=_KEPT_S))

    def close(self) -> None:
        """End the connections."""
        self._door.close(self._client)
