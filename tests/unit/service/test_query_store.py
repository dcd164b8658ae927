"""Encoded queries in Redis: shared where it is there, ignored where it isn't, hangs, or holds something else."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from model.query_cache import CachedText, entry_key
from service.query_store import RedisQueries
from service.redis_door import RedisDoor
from tests.support.fakes import FakeModel
from tests.support.server import free_port
from tests.unit.model.test_query_cache import Counting, same


@contextmanager
def silent_server() -> Iterator[tuple[str, list[socket.socket]]]:
    """Accepts connections and never answers: its URL, and the connections so far."""
    accepted: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    accepted.append(listener.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0", accepted
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in accepted:
                connection.close()


def patient(url: str) -> RedisQueries:
    """For a Redis that is there, on a machine that is busy."""
    return RedisQueries(url, timeout_s=20.0, slow_s=None)


def test_what_one_replica_encodes_another_finds(redis_url: str) -> None:
    with closing(patient(redis_url)) as mine, closing(patient(redis_url)) as yours:
        one, other = Counting(), Counting()
        theirs = CachedText(one, 1000, store=mine).encode_text(["red blue"])
        found = CachedText(other, 1000, store=yours).encode_text(["red blue"])
        assert other.asked == [] and same(found, theirs)


def test_entries_expire_and_do_not_show_the_sentence(redis_url: str) -> None:
    import redis

    with closing(patient(redis_url)) as store, closing(redis.Redis.from_url(redis_url)) as client:
        CachedText(FakeModel(), 1000, store=store).encode_text(["red"])
        (key,) = client.keys()
        assert key.startswith(b"vidgrain:query:fake-1:fp32:") and b"red" not in key
        assert 0 < client.ttl(key) <= 7 * 24 * 3600


def test_a_value_of_another_kind_is_ignored(redis_url: str) -> None:
    import redis

    key = f"vidgrain:query:{entry_key(FakeModel().spec, 'fp32', 'red')}"
    with closing(patient(redis_url)) as store, closing(redis.Redis.from_url(redis_url)) as client:
        client.lpush(key, "1")
        assert store.get(key.removeprefix("vidgrain:query:")) is None
        client.delete(key)
        for other in (b"x" * 2_000_000, b"garbage", b""):
            client.set(key, other)
            inner = Counting()
            CachedText(inner, 0, store=store).encode_text(["red"])
            assert inner.asked == ["red"]
            assert 100 < client.strlen(key) < 10_000, "the right entry took its place"


def test_a_redis_that_hangs_is_asked_once(caplog: pytest.LogCaptureFixture) -> None:
    with silent_server() as (url, accepted), closing(RedisQueries(url)) as store, caplog.at_level(logging.INFO):
        inner = Counting()
        model = CachedText(inner, 0, store=store)
        for text in ("red", "blue", "green"):
            model.encode_text([text])
        assert inner.asked == ["red", "blue", "green"]
        assert len(accepted) <= 1, "one attempt, then silence"
    assert [record.getMessage() for record in caplog.records] == ["redis_unavailable"]


def test_a_redis_that_is_away_costs_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    with closing(RedisQueries(f"redis://127.0.0.1:{free_port()}/0")) as store, caplog.at_level(logging.INFO):
        for _ in range(3):
            assert store.get("k") is None
            store.put("k", b"value")
    assert [record.getMessage() for record in caplog.records] == ["redis_unavailable"]


def test_a_slow_redis_counts_as_one_that_is_away(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    with closing(RedisDoor(redis_url, "nothing", slow_s=0.0)) as door, caplog.at_level(logging.WARNING):
        client = door.client()
        assert door.ask(client, lambda redis: redis.ping()) is True
        assert door.is_silent and door.ask(client, lambda redis: redis.ping()) is None
    assert [record.getMessage() for record in caplog.records] == ["redis_unavailable"]
